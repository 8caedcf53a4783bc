//! The table.

use std::fmt::Write as _;

use crate::load::{Comparison, Figures};
use crate::target::Target;

/// Everything a run found out.
#[derive(Default)]
pub struct Report {
    /// Sentences above the table.
    pub preamble: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    figure: String,
    latency: String,
    cpu: String,
    reference: String,
    judged: f64,
    unit: &'static str,
    target: Target,
}

impl Report {
    /// Calls per second beside those of a reference; the ratio is judged.
    pub fn compared(&mut self, what: &str, reference: &str, comparison: &Comparison, target: Target) {
        let Comparison { reference: of_reference, subject, ratio } = comparison;
        self.push(Row {
            what: what.to_owned(),
            figure: per_second(subject.per_second, "calls"),
            latency: latency(subject),
            cpu: format!("{:.1} µs", subject.cpu_us),
            reference: format!(
                "{reference}: {}, {}, {:.1} µs",
                per_second(of_reference.per_second, "calls"),
                latency(of_reference),
                of_reference.cpu_us
            ),
            judged: *ratio,
            unit: "×",
            target,
        });
    }

    /// Records per second beside those of a reference; the ratio is judged.
    pub fn records(&mut self, what: &str, rate: f64, reference: &str, reference_rate: f64, ratio: f64, target: Target) {
        self.push(Row {
            what: what.to_owned(),
            figure: per_second(rate, "records"),
            latency: "–".to_owned(),
            cpu: "–".to_owned(),
            reference: format!("{reference}: {}", per_second(reference_rate, "records")),
            judged: ratio,
            unit: "×",
            target,
        });
    }

    /// A figure that is judged by itself.
    pub fn absolute(&mut self, what: &str, figure: f64, unit: &'static str, target: Target) {
        self.push(Row {
            what: what.to_owned(),
            figure: judgement(figure, unit),
            latency: "–".to_owned(),
            cpu: "–".to_owned(),
            reference: "–".to_owned(),
            judged: figure,
            unit,
            target,
        });
    }

    fn push(&mut self, row: Row) {
        eprintln!("  {}: {}", row.what, judgement(row.judged, row.unit));
        self.rows.push(row);
    }

    /// The report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from("# Upbridge benchmark\n\n");
        for sentence in &self.preamble {
            writeln!(text, "{sentence}\n").expect("a String takes everything");
        }
        text.push_str("| What | Figure | p50 / p99 | Server CPU per call | Reference | Judged | Target | |\n");
        text.push_str("|---|---:|---:|---:|---|---:|---:|---|\n");
        for row in &self.rows {
            let Row { what, figure, latency, cpu, reference, target, .. } = row;
            let mark = match target.met(row.judged) {
                Some(true) => "pass",
                Some(false) => "**FAIL**",
                None => "",
            };
            let judged = judgement(row.judged, row.unit);
            writeln!(text, "| {what} | {figure} | {latency} | {cpu} | {reference} | {judged} | {target} | {mark} |")
                .expect("a String takes everything");
        }
        text
    }
}

fn judgement(figure: f64, unit: &str) -> String {
    if unit == "×" { format!("{figure:.2} ×") } else { format!("{figure:.1} {unit}") }
}

fn per_second(rate: f64, what: &str) -> String {
    let digits = format!("{rate:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {what}/s")
}

fn latency(figures: &Figures) -> String {
    format!("{:.2} / {:.2} ms", figures.p50_us / 1e3, figures.p99_us / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_short_of_its_target_is_marked() {
        let mut report = Report::default();
        report.absolute("memory", 65.0, "MiB", Target::AtMost(64.0));
        report.records("stream", 1_234_567.0, "inserts", 999.0, 0.5, Target::AtLeast(0.4));
        let text = report.to_markdown();
        assert!(text.contains("| memory | 65.0 MiB | – | – | – | 65.0 MiB | ≤ 64 | **FAIL** |"), "{text}");
        assert!(text.contains("| 1,234,567 records/s |") && text.contains("| 0.50 × | ≥ 0.4 | pass |"), "{text}");
    }
}
