//! What the running counts say, in the words of the people who ask.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::alert::Alert;
use super::event::EventStatus;
use super::job::Kind;
use super::period::{Period, Window};
use super::queue::QueueStats;
use super::tally::Sum;
use super::user::{SyncStatus, User};
use super::{Instant, Json};

/// How many have which status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Not over yet.
    pub pending: i64,
    /// Done with.
    pub completed: i64,
    /// Given up.
    pub failed: i64,
}

impl StatusCounts {
    /// All.
    pub fn total(&self) -> i64 {
        self.pending + self.completed + self.failed
    }

    /// What is over.
    pub fn finished(&self) -> i64 {
        self.completed + self.failed
    }

    /// The completed of what is over; nothing of nothing is no rate.
    pub fn success_rate(&self) -> Option<f64> {
        rate(self.completed, self.finished())
    }

    /// The failed of what is over.
    pub fn error_rate(&self) -> Option<f64> {
        rate(self.failed, self.finished())
    }

    fn add(&mut self, status: &str, count: i64) {
        let place = match status {
            // Webhooks have other words for the same.
            "pending" | "received" => &mut self.pending,
            "completed" | "processed" => &mut self.completed,
            "failed" => &mut self.failed,
            _ => return,
        };
        *place += count;
    }
}

fn rate(part: i64, of: i64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// Counts by status, in sum and by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypedCounts {
    /// In sum.
    pub all: StatusCounts,
    /// By type.
    pub by_type: BTreeMap<String, StatusCounts>,
}

impl TypedCounts {
    /// Adds up sums that are labelled `type.status`.
    pub fn of<'a>(sums: impl IntoIterator<Item = &'a Sum>) -> TypedCounts {
        let mut counts = TypedCounts::default();
        for sum in sums {
            let Some((kind, status)) = sum.label.rsplit_once('.') else { continue };
            counts.all.add(status, sum.count);
            counts.by_type.entry(kind.to_owned()).or_default().add(status, sum.count);
        }
        counts
    }
}

/// Users by sync status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    /// Confirmed by CreatorUp.
    pub synced: i64,
    /// Waiting to be sent.
    pub pending: i64,
    /// The last attempt failed.
    pub error: i64,
}

impl UserCounts {
    /// All.
    pub fn total(&self) -> i64 {
        self.synced + self.pending + self.error
    }

    /// Adds up sums that are labelled with a status.
    pub fn of<'a>(sums: impl IntoIterator<Item = &'a Sum>) -> UserCounts {
        let mut counts = UserCounts::default();
        for sum in sums {
            match SyncStatus::parse(&sum.label) {
                Some(SyncStatus::Synced) => counts.synced += sum.count,
                Some(SyncStatus::Pending) => counts.pending += sum.count,
                Some(SyncStatus::Error) => counts.error += sum.count,
                None => {}
            }
        }
        counts
    }
}

/// Usage, as records and as units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// Records.
    pub records: i64,
    /// Units.
    pub amount: i64,
}

impl UsageSum {
    /// Adds.
    pub fn add(&mut self, records: i64, amount: i64) {
        self.records += records;
        self.amount += amount;
    }
}

/// Usage of a period. Months, days and types each add up to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageCounts {
    /// In sum.
    pub total: UsageSum,
    /// By `YYYY-MM`.
    pub monthly: BTreeMap<String, UsageSum>,
    /// By `YYYY-MM-DD`.
    pub daily: BTreeMap<String, UsageSum>,
    /// By usage type.
    pub by_type: BTreeMap<String, UsageSum>,
    /// Of any time, not of the period alone.
    pub all_time: UsageSum,
}

impl UsageCounts {
    /// Adds up sums that are labelled with a usage type, each in its bucket.
    pub fn of<'a>(sums: impl IntoIterator<Item = &'a Sum>) -> UsageCounts {
        let mut counts = UsageCounts::default();
        for sum in sums.into_iter().filter(|sum| (sum.count, sum.amount) != (0, 0)) {
            let day = chrono::DateTime::from_timestamp(sum.starts_at, 0).unwrap_or_default();
            let day = day.format("%Y-%m-%d").to_string();
            let month = day.rsplit_once('-').map_or("", |(month, _)| month).to_owned();
            let places = [
                &mut counts.total,
                counts.monthly.entry(month).or_default(),
                counts.daily.entry(day).or_default(),
                counts.by_type.entry(sum.label.clone()).or_default(),
            ];
            places.into_iter().for_each(|place| place.add(sum.count, sum.amount));
        }
        counts
    }
}

/// The numbers of a period.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnalytics {
    /// What was asked for.
    pub period: Period,
    /// What it means now.
    pub window: Window,
    /// Users as they stand.
    pub users: UserCounts,
    /// Sync events made in the window.
    pub events: TypedCounts,
    /// Webhooks that came in the window.
    pub webhooks: TypedCounts,
    /// Usage of the window.
    pub usage: UsageCounts,
    /// The queue as it stands; absent when it cannot be read.
    pub queue: Option<QueueStats>,
}

/// The numbers of a user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserAnalytics {
    /// The user.
    pub user: User,
    /// Their user and subscription events.
    pub events: TypedCounts,
    /// The newest of these.
    pub recent_events: Vec<EventRecord>,
    /// Webhooks about them.
    pub webhooks: TypedCounts,
    /// The newest of these.
    pub recent_webhooks: Vec<WebhookRecord>,
    /// Usage by `YYYY-MM`.
    pub usage_by_month: BTreeMap<String, UsageSum>,
    /// The same by usage type.
    pub usage_by_type: BTreeMap<String, UsageSum>,
    /// When it was read.
    pub as_of: Instant,
}

/// A sync event with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// UUID, version 7.
    pub id: Uuid,
    /// `user_sync`, `usage_sync` or `subscription_sync`.
    pub kind: String,
    /// Where it stands.
    pub status: String,
    /// Whose it is.
    pub user_id: Option<Uuid>,
    /// What happened.
    pub payload: Option<Json>,
    /// What the other side answered.
    pub response: Option<Json>,
    /// Attempts after the first.
    pub retry_count: i32,
    /// Most attempts after the first.
    pub max_retries: i32,
    /// What went wrong last.
    pub error_message: Option<String>,
    /// When it happened.
    pub created_at: Instant,
    /// When it was done with.
    pub processed_at: Option<Instant>,
    /// When it last changed.
    pub updated_at: Instant,
}

/// A webhook that came in, without what it held.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookRecord {
    /// UUID.
    pub id: Uuid,
    /// Who sent it.
    pub source: String,
    /// What it is about.
    pub event_type: String,
    /// `received`, `processed` or `failed`.
    pub status: String,
    /// What went wrong.
    pub error_message: Option<String>,
    /// When it came.
    pub created_at: Instant,
    /// When it was done with.
    pub processed_at: Option<Instant>,
}

/// Which events are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only of this type.
    pub kind: Option<super::event::EventKind>,
    /// Only in this status.
    pub status: Option<EventStatus>,
    /// Only of this user.
    pub user_id: Option<Uuid>,
}

/// Which failed events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryFilter {
    /// Only of this type.
    pub kind: Option<super::event::EventKind>,
    /// Only of this user.
    pub user_id: Option<Uuid>,
}

/// What was made pending again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Events that are pending again.
    pub events: u64,
    /// Of these, those whose dead letter was taken up.
    pub from_dead_letters: u64,
    /// Events that stay failed: nothing says any more what was to be done.
    pub skipped: u64,
    /// Whether failed events are left that were not looked at.
    pub more: bool,
}

/// How everything stood at the last check.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkup {
    /// When it was made.
    pub at: Instant,
    /// How long the database took to answer; absent when it did not.
    pub database_latency: Option<Duration>,
    /// Since when the database has been gone.
    pub down_since: Option<Instant>,
    /// Bytes the database takes, and its queue; what was last known.
    pub sizes: Sizes,
    /// The queue; what was last known.
    pub queue: Option<QueueStats>,
    /// Whether `queue` is of this check.
    pub queue_connected: bool,
    /// CreatorUp; absent when it is not configured.
    pub creatorup: Option<Reachability>,
    /// Failures of the last 24 hours; what was last known.
    pub rates: Option<Rates>,
    /// Alerts that are open, the oldest first.
    pub alerts: Vec<Alert>,
}

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of the whole database.
    pub database: Option<i64>,
    /// Of the queue's tables.
    pub queue: Option<i64>,
}

/// Whether the other side answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reachability {
    /// When it was asked.
    pub at: Instant,
    /// How long it took, or what went wrong.
    pub answer: Result<Duration, String>,
}

/// Failures of the last 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The first instant that counts.
    pub since: Instant,
    /// Sync events.
    pub events: StatusCounts,
    /// Webhooks.
    pub webhooks: StatusCounts,
}

/// Everything in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong.
    Healthy,
    /// The hub works, and something is wrong.
    Degraded,
    /// The hub cannot do its work.
    Unhealthy,
}

impl Checkup {
    /// Everything in a word.
    pub fn health(&self) -> Health {
        match (self.database_latency, self.alerts.is_empty()) {
            (None, _) => Health::Unhealthy,
            (Some(_), false) => Health::Degraded,
            (Some(_), true) => Health::Healthy,
        }
    }

    /// Kinds of jobs that are paused.
    pub fn paused(&self) -> Vec<Kind> {
        let kinds = self.queue.iter().flat_map(|queue| &queue.kinds);
        kinds.filter(|kind| kind.paused_since.is_some()).map(|kind| kind.kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(label: &str, starts_at: i64, count: i64, amount: i64) -> Sum {
        Sum { label: label.to_owned(), starts_at, count, amount }
    }

    #[test]
    fn a_rate_is_of_what_is_over_and_nothing_of_nothing_has_none() {
        let counts = StatusCounts { pending: 90, completed: 3, failed: 1 };
        assert_eq!((counts.total(), counts.success_rate(), counts.error_rate()), (94, Some(0.75), Some(0.25)));
        let none = StatusCounts { pending: 90, ..Default::default() };
        assert_eq!((none.success_rate(), none.error_rate()), (None, None));
    }

    #[test]
    fn labels_are_read_by_type_and_status() {
        let sums = [sum("user_sync.failed", 0, 2, 0), sum("user_sync.completed", 0, 3, 0), sum("a.b.pending", 0, 4, 0)];
        let counts = TypedCounts::of(&sums);
        assert_eq!(counts.all, StatusCounts { pending: 4, completed: 3, failed: 2 });
        assert_eq!(counts.by_type["a.b"].pending, 4);
        let webhooks =
            TypedCounts::of(&[sum("usage-update.processed", 0, 5, 0), sum("usage-update.received", 0, 1, 0)]);
        assert_eq!(webhooks.all, StatusCounts { pending: 1, completed: 5, failed: 0 });
    }

    #[test]
    fn months_days_and_types_each_add_up_to_the_total() {
        let day = |text: &str| text.parse::<Instant>().unwrap().timestamp();
        let sums = [
            sum("local", day("2026-02-28T23:00:00Z"), 1, 10),
            sum("local", day("2026-03-01T00:00:00Z"), 2, 20),
            sum("cloud", day("2026-03-01T00:00:00Z"), 4, 40),
            sum("cloud", day("2026-03-02T00:00:00Z"), 0, 0),
        ];
        let counts = UsageCounts::of(&sums);
        assert_eq!(counts.total, UsageSum { records: 7, amount: 70 });
        assert_eq!(counts.monthly["2026-02"], UsageSum { records: 1, amount: 10 });
        assert_eq!(counts.monthly["2026-03"], UsageSum { records: 6, amount: 60 });
        assert_eq!(counts.daily.len(), 2);
        for parts in [&counts.monthly, &counts.daily, &counts.by_type] {
            assert_eq!(parts.values().map(|part| part.amount).sum::<i64>(), 70);
        }
    }
}
