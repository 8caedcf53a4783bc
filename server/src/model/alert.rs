//! What is wrong, and when it counts as wrong: pure rules over numbers that were read elsewhere.
//!
//! An alert opens when its rule breaks and clears when it holds again, at the same threshold; there is no second level
//! to clear at. A number that could not be read changes nothing.

use serde_json::json;
use uuid::Uuid;

use super::analytics::StatusCounts;
use super::words::words;
use super::{Instant, Json};

/// Failures per hundred that are still well.
const MOST_PERCENT: i64 = 5;
/// What has to be over before a rate means anything: below, a single failure would be more than the threshold.
const LEAST_SAMPLE: i64 = 20;
/// Waiting jobs that are still well.
const MOST_WAITING: i64 = 100;

words! {
    /// What an alert is about.
    AlertCode {
        /// More than 5 % of the sync events of the last 24 hours failed.
        SyncErrorRate = "sync_error_rate",
        /// More than 5 % of the webhooks of the last 24 hours failed.
        WebhookErrorRate = "webhook_error_rate",
        /// More than 100 jobs wait.
        QueueBacklog = "queue_backlog",
        /// CreatorUp does not answer.
        CreatorUpUnreachable = "creatorup_unreachable",
        /// The database does not answer.
        DatabaseDown = "database_down",
    }
}

words! {
    /// How bad it is.
    Severity {
        /// Worth knowing.
        Info = "info",
        /// Worth a look today.
        Warning = "warning",
        /// Something does not work.
        Error = "error",
        /// Nothing works.
        Critical = "critical",
    }
}

impl AlertCode {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            AlertCode::SyncErrorRate | AlertCode::WebhookErrorRate | AlertCode::QueueBacklog => Severity::Warning,
            AlertCode::CreatorUpUnreachable => Severity::Error,
            AlertCode::DatabaseDown => Severity::Critical,
        }
    }
}

/// Something that is or was wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// UUID, version 7.
    pub id: Uuid,
    /// What it is about; text, because others than the hub may raise alerts of their own.
    pub code: String,
    /// How bad it is.
    pub severity: String,
    /// Who says so.
    pub source: String,
    /// For people.
    pub message: String,
    /// The numbers behind it.
    pub details: Option<Json>,
    /// Since when.
    pub opened_at: Instant,
    /// Until when.
    pub cleared_at: Option<Instant>,
    /// When the row last changed.
    pub updated_at: Instant,
}

impl Alert {
    /// An alert of the hub that opens now.
    pub fn opening(code: AlertCode, finding: &Finding, now: Instant) -> Alert {
        Alert {
            id: Uuid::now_v7(),
            code: code.as_str().to_owned(),
            severity: code.severity().as_str().to_owned(),
            source: "hub".to_owned(),
            message: finding.message.clone(),
            details: Some(finding.details.clone()),
            opened_at: now,
            cleared_at: None,
            updated_at: now,
        }
    }
}

/// Why an alert should be open.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// For people.
    pub message: String,
    /// The numbers behind it.
    pub details: Json,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its alert should be open.
    Broken(Finding),
    /// Its alert should not be open.
    Holds,
    /// Nobody knows: its alert stays as it is.
    Unknown,
}

/// What was read; what could not be read is absent.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Sync events of the last 24 hours.
    pub events: Option<StatusCounts>,
    /// Webhooks of the last 24 hours.
    pub webhooks: Option<StatusCounts>,
    /// Jobs that wait.
    pub waiting: Option<i64>,
    /// Whether CreatorUp answers, or why it counts as unreachable.
    pub creatorup: Option<Result<(), String>>,
}

/// What the rule of each code says, but for the database's, which is known by whether anything could be read.
pub fn judge(readings: &Readings) -> Vec<(AlertCode, Verdict)> {
    vec![
        (AlertCode::SyncErrorRate, of_rate("sync events", readings.events)),
        (AlertCode::WebhookErrorRate, of_rate("webhooks", readings.webhooks)),
        (AlertCode::QueueBacklog, of_backlog(readings.waiting)),
        (AlertCode::CreatorUpUnreachable, of_creatorup(readings.creatorup.as_ref())),
    ]
}

fn of_rate(what: &str, counts: Option<StatusCounts>) -> Verdict {
    let Some(counts) = counts else { return Verdict::Unknown };
    let (failed, finished) = (counts.failed, counts.finished());
    // In whole numbers: exactly five of a hundred is well.
    if finished < LEAST_SAMPLE || failed * 100 <= MOST_PERCENT * finished {
        return Verdict::Holds;
    }
    let percent = failed as f64 * 100.0 / finished as f64;
    Verdict::Broken(Finding {
        message: format!(
            "{percent:.1} % of the {what} of the last 24 hours failed ({failed} of {finished}); {MOST_PERCENT} % is the limit"
        ),
        details: json!({ "failed": failed, "finished": finished, "limit_percent": MOST_PERCENT }),
    })
}

fn of_backlog(waiting: Option<i64>) -> Verdict {
    match waiting {
        None => Verdict::Unknown,
        Some(waiting) if waiting <= MOST_WAITING => Verdict::Holds,
        Some(waiting) => Verdict::Broken(Finding {
            message: format!("{waiting} jobs wait; {MOST_WAITING} is the limit"),
            details: json!({ "waiting": waiting, "limit": MOST_WAITING }),
        }),
    }
}

fn of_creatorup(answer: Option<&Result<(), String>>) -> Verdict {
    match answer {
        None => Verdict::Unknown,
        Some(Ok(())) => Verdict::Holds,
        Some(Err(error)) => Verdict::Broken(Finding {
            message: format!("CreatorUp does not answer: {error}"),
            details: json!({ "error": error }),
        }),
    }
}

/// Why the database's alert is open.
pub fn of_database(error: &str) -> Finding {
    Finding { message: "the database does not answer".to_owned(), details: json!({ "error": error }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_broken(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Broken(_))
    }

    fn rate(failed: i64, finished: i64) -> Verdict {
        of_rate("things", Some(StatusCounts { pending: 7, completed: finished - failed, failed }))
    }

    #[test]
    fn five_percent_is_well_and_a_tenth_more_is_not() {
        assert!(!is_broken(&rate(50, 1_000)));
        assert!(is_broken(&rate(51, 1_000)));
        assert!(!is_broken(&rate(0, 1_000)));
        assert_eq!(of_rate("things", None), Verdict::Unknown);
    }

    #[test]
    fn a_rate_of_too_few_means_nothing() {
        assert!(!is_broken(&rate(19, 19)));
        assert!(!is_broken(&rate(1, 20)), "that is five percent");
        assert!(is_broken(&rate(2, 20)));
        assert!(!is_broken(&rate(0, 0)));
    }

    #[test]
    fn a_hundred_waiting_jobs_are_well_and_one_more_is_not() {
        assert_eq!(of_backlog(Some(100)), Verdict::Holds);
        assert!(is_broken(&of_backlog(Some(101))));
        assert_eq!(of_backlog(None), Verdict::Unknown);
    }

    #[test]
    fn what_nobody_asked_is_unknown() {
        assert_eq!(of_creatorup(None), Verdict::Unknown);
        assert_eq!(of_creatorup(Some(&Ok(()))), Verdict::Holds);
        assert!(is_broken(&of_creatorup(Some(&Err("refused".to_owned())))));
        assert!(judge(&Readings::default()).iter().all(|(_, verdict)| *verdict == Verdict::Unknown));
    }
}
