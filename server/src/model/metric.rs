//! What the hub counts.

use upbridge_service::model::tally::{Counter, Span};

use super::words::words;

words! {
    /// What is counted.
    Metric {
        /// Sync events by `kind.status`, in the buckets of the instant they were made.
        Events = "events",
        /// Webhooks in by `event_type.status`, in the buckets of the instant they came.
        Webhooks = "webhooks",
        /// Ledger records by usage type, with their units as the amount, at the instant they were completed.
        Usage = "usage",
        /// Users by sync status: how many there are now.
        Users = "users",
        /// Jobs by `kind.state`: how many there are now, and how many ever ended in each final state.
        Jobs = "jobs",
        /// Tries that ended, by `kind.<class of duration>`, in the hour they ended; the amount is microseconds.
        JobTimes = "job_times",
    }
}

impl Metric {
    /// The buckets a count of this metric goes into.
    pub fn spans(self) -> &'static [Span] {
        match self {
            Metric::Events | Metric::Webhooks => &[Span::Minute, Span::Hour, Span::Day],
            Metric::Usage => &[Span::Hour, Span::Day, Span::Month],
            Metric::Users | Metric::Jobs => &[Span::Total],
            Metric::JobTimes => &[Span::Hour],
        }
    }
}

impl From<Metric> for Counter {
    fn from(metric: Metric) -> Counter {
        match metric {
            Metric::Jobs => Counter::JOBS,
            Metric::JobTimes => Counter::JOB_TIMES,
            _ => Counter { word: metric.as_str(), spans: metric.spans() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_counts_is_known_by_the_words_it_counts_it_by() {
        for metric in Metric::ALL {
            let counter = Counter::from(*metric);
            assert_eq!((counter.word, counter.spans), (metric.as_str(), metric.spans()));
        }
    }
}
