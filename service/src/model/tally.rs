//! Running counts: what analytics answers from, whatever the length of the history.

use chrono::{Datelike, NaiveDate};

use super::Instant;
use super::words::words;

/// What is counted: a word, and the buckets its counts go into. Each server counts what its figures are answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// The word it is stored as.
    pub word: &'static str,
    /// How long its buckets are.
    pub spans: &'static [Span],
}

impl Counter {
    /// Jobs by `kind.state`: how many there are now, and how many ever ended in each final state.
    pub const JOBS: Counter = Counter { word: "jobs", spans: &[Span::Total] };
    /// Tries that ended, by `kind.<class of duration>`, in the hour they ended; the amount is microseconds.
    pub const JOB_TIMES: Counter = Counter { word: "job_times", spans: &[Span::Hour] };
}

words! {
    /// How long a bucket is.
    Span {
        /// Sixty seconds.
        Minute = "minute",
        /// An hour.
        Hour = "hour",
        /// A day in UTC.
        Day = "day",
        /// A calendar month in UTC.
        Month = "month",
        /// For ever; the bucket starts at 0.
        Total = "total",
    }
}

impl Span {
    /// Unix seconds of the start of the bucket that holds `at`.
    pub fn start(self, at: Instant) -> i64 {
        let seconds = at.timestamp();
        match self {
            Span::Minute => seconds - seconds.rem_euclid(60),
            Span::Hour => seconds - seconds.rem_euclid(3_600),
            Span::Day => seconds - seconds.rem_euclid(86_400),
            Span::Month => {
                let first = NaiveDate::from_ymd_opt(at.year(), at.month(), 1).unwrap_or_default();
                first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp()
            }
            Span::Total => 0,
        }
    }
}

/// A sum of one label in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// What was counted.
    pub label: String,
    /// Unix seconds of the start of the bucket.
    pub starts_at: i64,
    /// How many.
    pub count: i64,
    /// How much.
    pub amount: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_starts_where_its_span_does() {
        let at = "2026-03-31T23:59:59.999999Z".parse().unwrap();
        let start = |span: Span| chrono::DateTime::from_timestamp(span.start(at), 0).unwrap().to_rfc3339();
        assert_eq!(start(Span::Minute), "2026-03-31T23:59:00+00:00");
        assert_eq!(start(Span::Hour), "2026-03-31T23:00:00+00:00");
        assert_eq!(start(Span::Day), "2026-03-31T00:00:00+00:00");
        assert_eq!(start(Span::Month), "2026-03-01T00:00:00+00:00");
        assert_eq!(start(Span::Total), "1970-01-01T00:00:00+00:00");
    }
}
