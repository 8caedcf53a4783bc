//! The usage ledger's rules: which record a report is about, and what it changes.
//!
//! A record is identified by its user and idempotency key; without a key by its user and natural key (batch name,
//! batch type, usage type, month). Three producers may report one batch (the client at creation, the webhook at
//! completion, the client again), so a report that completes a batch also finds the record that opened it.

use uuid::Uuid;

use super::words::words;
use super::{Instant, Json, Month};

words! {
    /// What reported a record first.
    Source {
        /// RecordUsage.
        RecordUsage = "record_usage",
        /// CreateBatch.
        CreateBatch = "create_batch",
        /// RecordUsageStream.
        Stream = "stream",
        /// HandleUsageWebhook.
        Webhook = "webhook",
    }
}

/// What somebody says was used. Absent fields were not said, which differs from saying the default.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Whose usage it is.
    pub user_id: Uuid,
    /// The idempotency key.
    pub key: Option<String>,
    /// Name of the batch.
    pub batch_name: String,
    /// Kind of batch.
    pub batch_type: String,
    /// The feature used.
    pub usage_type: String,
    /// Units, positive.
    pub amount: Option<i32>,
    /// The month it counts in, when the reporter decides.
    pub month: Option<Month>,
    /// When the batch was completed.
    pub completed_at: Option<Instant>,
    /// Anything about the batch.
    pub metadata: Option<Json>,
    /// What reports it.
    pub source: Source,
    /// When the hub was told.
    pub received_at: Instant,
}

impl Report {
    /// The month the report counts in: the one it names, else that of the completion, else that of its arrival.
    pub fn month(&self) -> Month {
        self.month.unwrap_or_else(|| Month::of(self.completed_at.unwrap_or(self.received_at)))
    }

    /// The record this report makes when there is none.
    pub fn record(&self, creatorup_user_id: &str) -> Record {
        Record {
            id: Uuid::now_v7(),
            user_id: self.user_id,
            creatorup_user_id: creatorup_user_id.to_owned(),
            batch_name: self.batch_name.clone(),
            batch_type: self.batch_type.clone(),
            usage_type: self.usage_type.clone(),
            amount: self.amount.unwrap_or(1),
            month: self.month(),
            completed_at: self.completed_at.unwrap_or(self.received_at),
            completion_reported: self.completed_at.is_some(),
            metadata: self.metadata.clone(),
            key: self.key.clone(),
            source: self.source.as_str().to_owned(),
            revision: 0,
            synced_at: self.received_at,
            created_at: self.received_at,
        }
    }
}

/// A record of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// UUID, version 7.
    pub id: Uuid,
    /// Whose usage it is.
    pub user_id: Uuid,
    /// Their id at CreatorUp when the record was made; may be empty.
    pub creatorup_user_id: String,
    /// Name of the batch.
    pub batch_name: String,
    /// Kind of batch.
    pub batch_type: String,
    /// The feature used.
    pub usage_type: String,
    /// Units, positive.
    pub amount: i32,
    /// The month it counts in.
    pub month: Month,
    /// When the batch was completed; the first report's arrival while nobody said.
    pub completed_at: Instant,
    /// Whether a report said that the batch is completed.
    pub completion_reported: bool,
    /// Anything about the batch.
    pub metadata: Option<Json>,
    /// The idempotency key.
    pub key: Option<String>,
    /// What reported it first.
    pub source: String,
    /// How often it was amended.
    pub revision: i32,
    /// When the hub last wrote it.
    pub synced_at: Instant,
    /// When the hub first wrote it.
    pub created_at: Instant,
}

impl Record {
    /// Where statistics count it: when it was completed, or at the first instant of its month where that is another.
    pub fn counted_at(&self) -> Instant {
        counted_at(self.completed_at, self.month)
    }

    fn same_names(&self, report: &Report) -> bool {
        self.user_id == report.user_id
            && self.batch_name == report.batch_name
            && self.batch_type == report.batch_type
            && self.usage_type == report.usage_type
    }
}

/// Where statistics count what was completed at an instant and counts in a month.
pub fn counted_at(completed_at: Instant, month: Month) -> Instant {
    if Month::of(completed_at) == month { completed_at } else { month.start() }
}

/// Finds the record a report is about, among those that could be.
///
/// 1. The record with the report's key.
/// 2. For a report without a key: the record with its natural key, one without a key first. A second batch of the
///    same name in the same month needs a key of its own, so a report without one can mean no other.
/// 3. For a report with a new key: the record without a key of the same names, month and completion, which is the
///    same batch told by somebody who does not know the key.
/// 4. For a report that completes a batch: the record without a key of the same names, of any month, that was
///    opened and not completed. It moves to the month of the completion.
pub fn identify<'a>(report: &Report, candidates: &'a [Record]) -> Option<&'a Record> {
    if report.key.is_some()
        && let Some(record) =
            candidates.iter().find(|record| record.key == report.key && record.user_id == report.user_id)
    {
        return Some(record);
    }
    let named = || candidates.iter().filter(|record| record.same_names(report));
    let month = report.month();
    let same_batch = match report.key {
        None => named().filter(|record| record.month == month).min_by_key(|record| record.key.is_some()),
        Some(_) => named().find(|record| {
            record.key.is_none() && record.month == month && report.completed_at == Some(record.completed_at)
        }),
    };
    same_batch.or_else(|| {
        let completes = report.completed_at.is_some();
        named().find(|record| completes && record.key.is_none() && !record.completion_reported)
    })
}

/// The record as the report changes it, or `None` when the report says nothing new.
///
/// What a report does not say stays as it was: a creation report that arrives late does not reopen a batch.
pub fn amend(record: &Record, report: &Report) -> Option<Record> {
    let mut new = record.clone();
    new.batch_name.clone_from(&report.batch_name);
    new.batch_type.clone_from(&report.batch_type);
    new.usage_type.clone_from(&report.usage_type);
    new.amount = report.amount.unwrap_or(record.amount);
    if let Some(completed_at) = report.completed_at {
        new.completed_at = completed_at;
        new.completion_reported = true;
    }
    new.month = match (report.month, report.completed_at) {
        (Some(month), _) => month,
        (None, Some(completed_at)) => Month::of(completed_at),
        (None, None) => record.month,
    };
    if report.metadata.is_some() {
        new.metadata.clone_from(&report.metadata);
    }
    if new == *record {
        return None;
    }
    if record.key.is_none() {
        new.key.clone_from(&report.key);
    }
    new.revision += 1;
    new.synced_at = report.received_at;
    Some(new)
}

/// What became of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// What was done.
    pub outcome: Outcome,
    /// The record as it is now.
    pub record: Record,
}

words! {
    /// What was done with a report.
    Outcome {
        /// A new record.
        Created = "created",
        /// Nothing: it was recorded before.
        Duplicate = "duplicate",
        /// A record was changed.
        Amended = "amended",
    }
}

/// A sum of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthlySum {
    /// The feature used.
    pub usage_type: String,
    /// Kind of batch.
    pub batch_type: String,
    /// Units.
    pub amount: i64,
    /// Number of batches.
    pub batches: i64,
}

/// A month's sums as read at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthlyUsage {
    /// Whose.
    pub user_id: Uuid,
    /// The month.
    pub month: Month,
    /// Sums by usage type and batch type, in that order.
    pub sums: Vec<MonthlySum>,
    /// When they were read.
    pub as_of: Instant,
}

impl MonthlyUsage {
    /// Units of one usage type.
    pub fn used(&self, usage_type: &str) -> i64 {
        self.sums.iter().filter(|sum| sum.usage_type == usage_type).map(|sum| sum.amount).sum()
    }

    /// Units of all usage types.
    pub fn total(&self) -> i64 {
        self.sums.iter().map(|sum| sum.amount).sum()
    }
}

/// Which records to list; absent fields do not restrict.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// Month.
    pub month: Option<Month>,
    /// Usage type.
    pub usage_type: Option<String>,
    /// Batch type.
    pub batch_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone, Utc};

    fn at(month: u32, day: u32) -> Instant {
        Utc.with_ymd_and_hms(2024, month, day, 10, 30, 0).unwrap()
    }

    fn report(key: Option<&str>, completed_at: Option<Instant>) -> Report {
        Report {
            user_id: Uuid::nil(),
            key: key.map(str::to_owned),
            batch_name: "my-video-batch-001".into(),
            batch_type: "video".into(),
            usage_type: "local_rendering".into(),
            amount: Some(1),
            month: None,
            completed_at,
            metadata: None,
            source: Source::RecordUsage,
            received_at: at(1, 20),
        }
    }

    #[test]
    fn the_same_content_again_is_nothing_new() {
        let first = report(None, Some(at(1, 15)));
        let record = first.record("");
        assert_eq!(identify(&first, std::slice::from_ref(&record)), Some(&record));
        assert_eq!(amend(&record, &first), None);
        let later = Report { received_at: at(1, 21), source: Source::Stream, ..first };
        assert_eq!(amend(&record, &later), None, "when and how it is told again does not matter");
    }

    #[test]
    fn a_completion_finds_what_a_creation_opened_and_moves_it_to_its_month() {
        let opened = report(None, None).record("");
        let completion = report(Some("webhook-1"), Some(at(2, 3)));
        let found = identify(&completion, std::slice::from_ref(&opened)).expect("it is the same batch");
        let amended = amend(found, &completion).expect("it says something new");
        assert_eq!((amended.month.to_string().as_str(), amended.completion_reported), ("2024-02", true));
        assert_eq!((amended.key.as_deref(), amended.revision), (Some("webhook-1"), 1));
    }

    #[test]
    fn a_late_creation_report_does_not_reopen_a_batch() {
        let completed = report(None, Some(at(1, 15))).record("");
        let late = report(None, None);
        assert_eq!(identify(&late, std::slice::from_ref(&completed)), Some(&completed));
        assert_eq!(amend(&completed, &late), None);
    }

    #[test]
    fn a_second_batch_of_the_same_name_with_its_own_key_is_another_batch() {
        let first = report(Some("run-1"), Some(at(1, 15))).record("");
        assert_eq!(identify(&report(Some("run-2"), Some(at(1, 16))), std::slice::from_ref(&first)), None);
        let unkeyed = report(None, Some(at(1, 15))).record("");
        assert_eq!(identify(&report(Some("run-2"), Some(at(1, 16))), &[unkeyed]), None);
    }

    #[test]
    fn the_same_completion_told_with_and_without_a_key_is_one_batch() {
        let unkeyed = report(None, Some(at(1, 15))).record("");
        assert!(identify(&report(Some("k"), Some(at(1, 15))), &[unkeyed]).is_some());
        let keyed = report(Some("k"), Some(at(1, 15))).record("");
        assert!(identify(&report(None, Some(at(1, 15))), &[keyed]).is_some());
    }

    #[test]
    fn a_month_that_is_named_wins_over_the_month_of_completion() {
        let named = Report { month: Month::parse("2023-12"), ..report(None, Some(at(1, 15))) };
        assert_eq!(named.record("").month.to_string(), "2023-12");
        let unnamed = Report { received_at: at(3, 1) + TimeDelta::days(1), ..report(None, None) };
        assert_eq!(unnamed.record("").month.to_string(), "2024-03");
    }
}
