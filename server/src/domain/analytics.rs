//! What administrators ask about the integration: numbers of a period, of a user, and lists.

use uuid::Uuid;

use super::Hub;
use crate::model::alert::Alert;
use crate::model::analytics::{
    Checkup, EventFilter, EventRecord, Rates, SyncAnalytics, TypedCounts, UsageCounts, UserAnalytics, UserCounts,
};
use crate::model::event::{EventKind, EventStatus};
use crate::model::page::{Page, Paged, Place};
use crate::model::period::{Period, Stretch, Window};
use crate::model::tally::{Metric, Span, Sum};
use crate::model::{Error, Result};
use crate::storage::{self, analytics, tally};

/// Events and webhooks shown of a user.
const SHOWN: u64 = 20;
/// What has a rate of failures.
pub(super) const RATED: &[Metric] = &[Metric::Events, Metric::Webhooks];
/// Months shown of a user.
const MONTHS: usize = 120;

impl Hub {
    /// The numbers of a period. What they cost does not depend on how much ever happened.
    pub async fn sync_analytics(&self, period: Period) -> Result<SyncAnalytics> {
        let now = self.now();
        let window = period.until(now);
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let counts = tally::over(read, dialect, RATED, &window.stretches(Span::Minute), false).await?;
        let usage = tally::over(read, dialect, &[Metric::Usage], &window.stretches(Span::Hour), true).await?;
        let ever = Stretch { span: Span::Month, from: i64::MIN, to: i64::MAX };
        let all_usage = tally::over(read, dialect, &[Metric::Usage], &[ever], false).await?;
        let users = Stretch { span: Span::Total, from: 0, to: 1 };
        let users = tally::over(read, dialect, &[Metric::Users], &[users], false).await?;
        let mut usage = UsageCounts::of(usage.iter().map(|(_, sum)| sum));
        all_usage.iter().for_each(|(_, sum)| usage.all_time.add(sum.count, sum.amount));
        let queue = self.queue_stats().await;
        if let Err(error) = &queue {
            tracing::warn!(%error, context = ?error, "analytics answers without the queue");
        }
        Ok(SyncAnalytics {
            period,
            window,
            users: UserCounts::of(users.iter().map(|(_, sum)| sum)),
            events: TypedCounts::of(of_metric(&counts, Metric::Events)),
            webhooks: TypedCounts::of(of_metric(&counts, Metric::Webhooks)),
            usage,
            queue: queue.ok(),
        })
    }

    /// Failures of the last 24 hours, to the minute.
    pub(super) async fn error_rates(&self) -> Result<Rates> {
        let window = Period::Hours(24).until(self.now());
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let counts = tally::over(read, dialect, RATED, &window.stretches(Span::Minute), false).await?;
        Ok(rates(&window, &counts))
    }

    /// The numbers of a user.
    pub async fn user_sync_analytics(&self, user_id: Uuid) -> Result<UserAnalytics> {
        let as_of = self.now();
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let user = storage::user::find(read, user_id).await?.ok_or(Error::NotFound { what: "user" })?;
        let filter = EventFilter { user_id: Some(user_id), ..EventFilter::default() };
        let page = Page::parse(Some(SHOWN as i32), None, "")?;
        let mut recent_events = analytics::events(read, dialect, &filter, &page).await?;
        recent_events.truncate(SHOWN as usize);
        let (usage_by_month, usage_by_type) = analytics::usage_of(read, user_id, MONTHS).await?;
        Ok(UserAnalytics {
            user,
            events: analytics::count_events(read, dialect, user_id).await?,
            recent_events,
            webhooks: analytics::count_webhooks(read, dialect, user_id).await?,
            recent_webhooks: analytics::recent_webhooks(read, dialect, user_id, SHOWN).await?,
            usage_by_month,
            usage_by_type,
            as_of,
        })
    }

    /// A page of sync events, newest first.
    ///
    /// Errors: INVALID_ARGUMENT for a user's completed usage, which is in the ledger and has no index here.
    pub async fn list_sync_events(&self, filter: &EventFilter, page: &Page) -> Result<Paged<EventRecord>> {
        let is_over = filter.status.is_none_or(|status| status == EventStatus::Completed);
        if filter.user_id.is_some() && filter.kind == Some(EventKind::UsageSync) && is_over {
            let why = "cannot be usage_sync for one user unless status is pending or failed; usage is in the ledger";
            return Err(Error::invalid("event_type", why));
        }
        let events = analytics::events(self.store.read(), self.store.dialect(), filter, page).await?;
        Ok(page.cut(events, |event| Place { group: String::new(), id: event.id }))
    }

    /// A page of alerts, newest first.
    pub async fn list_alerts(&self, only_open: bool, page: &Page) -> Result<Paged<Alert>> {
        let alerts = storage::alert::list(self.store.read(), self.store.dialect(), only_open, page).await?;
        Ok(page.cut(alerts, |alert| Place { group: String::new(), id: alert.id }))
    }

    /// How everything stands: read now, but for CreatorUp, which is asked at intervals; from memory while the database
    /// is gone.
    pub async fn system_health(&self) -> Checkup {
        let last = self.condition.last(self.now());
        if last.database_latency.is_none() && last.down_since.is_some() {
            return last;
        }
        let Ok(latency) = self.store.ping().await else {
            return Checkup { database_latency: None, queue_connected: false, ..last };
        };
        self.read_vitals(latency, last).await
    }

    /// What the database tells, on top of what is known already.
    pub(super) async fn read_vitals(&self, latency: std::time::Duration, last: Checkup) -> Checkup {
        let queue = self.queue_stats().await;
        Checkup {
            database_latency: Some(latency),
            down_since: None,
            sizes: analytics::sizes(&self.store).await.unwrap_or(last.sizes),
            queue_connected: queue.is_ok(),
            queue: queue.ok().or(last.queue.clone()),
            rates: self.error_rates().await.ok().or(last.rates),
            ..last
        }
    }
}

/// Failures of a window, from its counts.
pub(super) fn rates(window: &Window, counts: &[(Metric, Sum)]) -> Rates {
    Rates {
        since: window.start,
        events: TypedCounts::of(of_metric(counts, Metric::Events)).all,
        webhooks: TypedCounts::of(of_metric(counts, Metric::Webhooks)).all,
    }
}

fn of_metric(sums: &[(Metric, Sum)], metric: Metric) -> impl Iterator<Item = &Sum> {
    sums.iter().filter(move |(of, _)| *of == metric).map(|(_, sum)| sum)
}
