//! Removal of what is past its retention: by itself at intervals, on one hub of all, and when an administrator asks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::Hub;
use crate::model::job::{Job, JobKind, NewJob, Outcome};
use crate::model::retention::{HOUR_COUNT_DAYS, INTEGRATION_MINUTE_DAYS, MINUTE_COUNT_DAYS, Table};
use crate::model::tally::Span;
use crate::model::{Instant, Result};
use crate::storage::{self, archive, retention, tally};

/// Rows of one transaction.
const BATCH: u64 = 1_000;
/// Batches of one table in one pass.
const BATCHES: usize = 50;
/// What the intervals are counted by.
const SCHEDULE: &str = "cleanup";
/// The rows of the counts among those of the tables.
const COUNTS: &str = "tallies";
const INTEGRATION_COUNTS: &str = "integration_counts";

/// What is to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Days that are kept, in the place of each table's own retention.
    pub days: Option<u32>,
    /// Count and remove nothing.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Rows by table, every table named.
    pub deleted: BTreeMap<&'static str, u64>,
    /// Rows written to the archive.
    pub archived: u64,
    /// Whether more is left.
    pub more: bool,
    /// Days kept by table.
    pub kept_days: BTreeMap<&'static str, u32>,
}

impl Hub {
    /// Removes what is past its retention, a bounded number of rows; or counts it.
    pub async fn cleanup_old_data(&self, cleanup: Cleanup) -> Result<Cleaned> {
        let now = self.now();
        let mut cleaned = Cleaned::default();
        for table in Table::ALL {
            let before = self.retention.before(*table, cleanup.days, now);
            cleaned.kept_days.insert(table.as_str(), self.retention.days(*table, cleanup.days));
            let rows = match cleanup.dry_run {
                true => retention::count(self.store.read(), self.store.dialect(), *table, before).await? as u64,
                false => self.remove(*table, before, now, &mut cleaned).await?,
            };
            cleaned.deleted.insert(table.as_str(), rows);
        }
        let counts = if cleanup.dry_run { 0 } else { self.remove_counts(now).await? };
        cleaned.deleted.insert(COUNTS, counts);
        let counts = if cleanup.dry_run { 0 } else { self.remove_integration_counts(now).await? };
        cleaned.deleted.insert(INTEGRATION_COUNTS, counts);
        Ok(cleaned)
    }

    /// Removes rows of a table, after they are archived where there is an archive.
    async fn remove(&self, table: Table, before: Instant, now: Instant, cleaned: &mut Cleaned) -> Result<u64> {
        let mut removed = 0;
        for _ in 0..BATCHES {
            let batch = match &self.archive {
                Some(directory) if table.is_archived() => {
                    let (read, dialect) = (self.store.read(), self.store.dialect());
                    let rows = retention::read(read, dialect, table, before, BATCH).await?;
                    if rows.is_empty() {
                        return Ok(removed);
                    }
                    let (ids, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
                    cleaned.archived += ids.len() as u64;
                    archive::append(directory, table, rows, now).await?;
                    // None of them may be left where reading finds it again.
                    let input = (table, ids, before);
                    let remove = self.store.write(input, |tx, (table, ids, before)| {
                        Box::pin(retention::remove_named(tx, *table, ids, *before))
                    });
                    remove.await?
                }
                _ => {
                    let remove = self.store.write((table, before), |tx, (table, before)| {
                        Box::pin(retention::remove(tx, *table, *before, BATCH))
                    });
                    remove.await?
                }
            };
            removed += batch;
            if batch < BATCH {
                return Ok(removed);
            }
        }
        cleaned.more = true;
        Ok(removed)
    }

    /// Removes the running counts of short spans, which longer ones keep.
    async fn remove_counts(&self, now: Instant) -> Result<u64> {
        let mut removed = 0;
        for (span, days) in [(Span::Minute, MINUTE_COUNT_DAYS), (Span::Hour, HOUR_COUNT_DAYS)] {
            // A period of so many days begins within an hour before; nothing it needs may be gone.
            let before = span.start(now) - (days + 1) * 86_400;
            for _ in 0..BATCHES {
                let batch = self
                    .store
                    .write((span, before), |tx, (span, before)| Box::pin(tally::prune(tx, *span, *before, BATCH)))
                    .await?;
                removed += batch;
                if batch < BATCH {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Removes the counts of integrations of short spans, which longer ones keep.
    async fn remove_integration_counts(&self, now: Instant) -> Result<u64> {
        let mut removed = 0;
        for (span, days) in [(Span::Minute, INTEGRATION_MINUTE_DAYS), (Span::Hour, HOUR_COUNT_DAYS)] {
            let before = span.start(now) - days * 86_400;
            for _ in 0..BATCHES {
                let prune = self.store.write((span, before), |tx, (span, before)| {
                    Box::pin(retention::prune_integration_counts(tx, *span, *before, BATCH))
                });
                let batch = prune.await?;
                removed += batch;
                if batch < BATCH {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Enqueues the cleanup of this interval, unless a hub has; says whether this one did. The interval in which a
    /// database has its first hub has none: there is nothing old yet.
    pub async fn schedule_cleanup(&self, interval: Duration) -> Result<bool> {
        let now = self.now();
        let slot = now.timestamp_millis() / (interval.as_millis().max(1) as i64);
        self.store
            .write((slot, now), |tx, (slot, now)| {
                Box::pin(async move {
                    let has_begun = storage::job::was_scheduled(tx, SCHEDULE).await?;
                    let is_ours = storage::job::take_slot(tx, SCHEDULE, *slot).await? && has_begun;
                    if is_ours {
                        tx.enqueue(NewJob::new(JobKind::Cleanup, SCHEDULE, json!({}), *now).unique(SCHEDULE));
                    }
                    Ok(is_ours)
                })
            })
            .await
    }

    /// The job of an interval: removes until nothing is left.
    pub(super) async fn clean_up(&self, job: &Job) -> Outcome {
        let mut deleted: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut archived = 0;
        loop {
            match self.cleanup_old_data(Cleanup::default()).await {
                Err(error) => {
                    tracing::warn!(job = %job.id, %error, context = ?error, "the cleanup is interrupted");
                    return Outcome::retry(error);
                }
                Ok(cleaned) => {
                    cleaned.deleted.iter().for_each(|(table, rows)| *deleted.entry(table).or_default() += rows);
                    archived += cleaned.archived;
                    if !cleaned.more {
                        break;
                    }
                }
            }
        }
        tracing::info!(?deleted, archived, "cleaned up");
        Outcome::Done(Some(json!({ "deleted": deleted, "archived": archived })))
    }
}
