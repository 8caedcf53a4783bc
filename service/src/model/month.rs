//! A calendar month in UTC.

use std::fmt;

use chrono::{Datelike, Months, NaiveDate, NaiveTime};

use super::Instant;

/// A month as `YYYY-MM`; years 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    year: u16,
    month: u8,
}

impl Month {
    /// The month an instant lies in, in UTC.
    pub fn of(at: Instant) -> Month {
        Month { year: at.year().clamp(0, 9999) as u16, month: at.month() as u8 }
    }

    /// Reads `YYYY-MM` and nothing else.
    pub fn parse(text: &str) -> Option<Month> {
        let bytes = text.as_bytes();
        if bytes.len() != 7
            || bytes[4] != b'-'
            || !bytes.iter().enumerate().all(|(at, b)| at == 4 || b.is_ascii_digit())
        {
            return None;
        }
        let (year, month) = (text[..4].parse().ok()?, text[5..].parse().ok()?);
        (1..=12).contains(&month).then_some(Month { year, month })
    }

    /// The first instant of the month.
    pub fn start(self) -> Instant {
        let day = NaiveDate::from_ymd_opt(self.year.into(), self.month.into(), 1).unwrap_or_default();
        day.and_time(NaiveTime::MIN).and_utc()
    }

    /// The first instant after the month: a period is `[start, end)`.
    pub fn end(self) -> Instant {
        self.start() + Months::new(1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_read_as_it_is_written() {
        for text in ["2024-01", "2024-12", "0001-01", "9999-12"] {
            assert_eq!(Month::parse(text).map(|month| month.to_string()).as_deref(), Some(text));
        }
        for text in ["2024-13", "2024-00", "2024-1", "24-01", "2024/01", "", "2024-01-01", "+024-01", "２024-1"] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
    }

    #[test]
    fn december_ends_with_the_new_year() {
        let month = Month::parse("2024-12").unwrap();
        assert_eq!(month.end().to_rfc3339(), "2025-01-01T00:00:00+00:00");
        assert_eq!(Month::of(month.end()).to_string(), "2025-01");
    }
}
