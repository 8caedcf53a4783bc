//! Columns for people.

/// Rows under their headings, each column as wide as its widest cell.
pub fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings)];
    lines.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

/// Milliseconds as people say them: the two largest units that matter.
pub fn duration(millis: i64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        ..1 => format!("{millis}ms"),
        1..60 => format!("{:.1}s", millis as f64 / 1_000.0),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Bytes as people say them.
pub fn bytes(bytes: i64) -> String {
    let (mut size, mut units) = (bytes as f64, ["B", "KiB", "MiB", "GiB", "TiB"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |one: &str, two: &str| [one.to_owned(), two.to_owned()];
        let table = columns(["ID", "KEY"], &[row("1", "é"), row("100", "")]);
        assert_eq!(table, "ID   KEY\n1    é\n100");
    }

    #[test]
    fn amounts_are_said_as_people_say_them() {
        let said = [0, 999, 1_500, 61_000, 3_660_000, 90_000_000].map(duration);
        assert_eq!(said, ["0ms", "999ms", "1.5s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!([0, 1023, 1024, 5 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 MiB"]);
    }
}
