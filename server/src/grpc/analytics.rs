//! AnalyticsService.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status};
use upbridge_proto::v1::analytics_service_server::AnalyticsService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::domain::activity::{Change, What};
use crate::domain::cleanup::Cleanup;
use crate::model::analytics as model;
use crate::model::event::{EventKind, EventStatus};
use crate::model::page::Page;
use crate::model::period::Period;
use crate::model::queue::QueueStats;
use crate::model::{Error, Instant, Result as HubResult, alert};

/// Events tried again when nobody says how many.
const RETRIED: i32 = 1_000;

#[tonic::async_trait]
impl AnalyticsService for Door {
    async fn get_sync_analytics(
        &self,
        request: Request<GetSyncAnalyticsRequest>,
    ) -> Result<Response<GetSyncAnalyticsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let period = Period::parse(message.period.as_deref()).map_err(status)?;
        let numbers = self.hub.sync_analytics(period).await.map_err(status)?;
        let users = numbers.users;
        Ok(Response::new(GetSyncAnalyticsResponse {
            period: numbers.period.to_string(),
            start: Some(convert::timestamp(numbers.window.start)),
            end: Some(convert::timestamp(numbers.window.end)),
            as_of: Some(convert::timestamp(numbers.window.end)),
            users: Some(UserSyncCounts {
                total: users.total(),
                synced: users.synced,
                pending: users.pending,
                error: users.error,
            }),
            events: Some(events(&numbers.events)),
            webhooks: Some(webhooks(&numbers.webhooks)),
            usage: Some(UsageStatistics {
                total_records: numbers.usage.total.records,
                total_amount: numbers.usage.total.amount,
                monthly: sums(&numbers.usage.monthly),
                daily: sums(&numbers.usage.daily),
                by_type: sums(&numbers.usage.by_type),
                all_time: Some(sum(&numbers.usage.all_time)),
            }),
            queue: Some(queue(numbers.queue.as_ref())),
        }))
    }

    async fn get_user_sync_analytics(
        &self,
        request: Request<GetUserSyncAnalyticsRequest>,
    ) -> Result<Response<GetUserSyncAnalyticsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let user_id = convert::uuid(&message.user_id, "user_id").map_err(status)?;
        let numbers = self.hub.user_sync_analytics(user_id).await.map_err(status)?;
        let mut usage = model::UsageSum::default();
        numbers.usage_by_month.values().for_each(|month| usage.add(month.records, month.amount));
        let user = &numbers.user;
        Ok(Response::new(GetUserSyncAnalyticsResponse {
            user_id: user.id.to_string(),
            sync_status: convert::number!(user.sync_status),
            creatorup_synced_at: user.creatorup_synced_at.map(convert::timestamp),
            creatorup_user_id: user.creatorup_user_id.clone(),
            last_creatorup_access: user.last_creatorup_access.map(convert::timestamp),
            events: Some(events(&numbers.events)),
            recent_events: numbers.recent_events.iter().map(recent_event).collect(),
            webhooks: Some(webhooks(&numbers.webhooks)),
            recent_webhooks: numbers.recent_webhooks.iter().map(webhook).collect(),
            usage_by_month: sums(&numbers.usage_by_month),
            usage_by_type: sums(&numbers.usage_by_type),
            usage: Some(sum(&usage)),
            as_of: Some(convert::timestamp(numbers.as_of)),
        }))
    }

    async fn get_system_health(
        &self,
        request: Request<GetSystemHealthRequest>,
    ) -> Result<Response<GetSystemHealthResponse>, Status> {
        convert::open(request)?;
        let checkup = self.hub.system_health().await;
        Ok(Response::new(health(&checkup, self.hub.store().dialect().name(), self.hub.has_creatorup(), self.hub.now())))
    }

    async fn retry_failed_sync(
        &self,
        request: Request<RetryFailedSyncRequest>,
    ) -> Result<Response<RetryFailedSyncResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let filter = model::RetryFilter {
            kind: kind(message.event_type.as_deref()).map_err(status)?,
            user_id: convert::uuid_or_none(message.user_id.as_deref(), "user_id").map_err(status)?,
        };
        let most = message.max.unwrap_or(RETRIED).unsigned_abs().into();
        let retried = self.hub.retry_failed_sync(filter, most).await.map_err(status)?;
        Ok(Response::new(RetryFailedSyncResponse {
            retried_count: retried.events as i64,
            from_dead_letters: retried.from_dead_letters as i64,
            skipped_count: retried.skipped as i64,
            more: retried.more,
            as_of: Some(convert::timestamp(self.hub.now())),
        }))
    }

    async fn cleanup_old_data(
        &self,
        request: Request<CleanupOldDataRequest>,
    ) -> Result<Response<CleanupOldDataResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let cleanup = Cleanup { days: message.days.map(i32::unsigned_abs), dry_run: message.dry_run };
        let cleaned = self.hub.cleanup_old_data(cleanup).await.map_err(status)?;
        Ok(Response::new(CleanupOldDataResponse {
            deleted: cleaned.deleted.into_iter().map(|(table, rows)| (table.to_owned(), rows as i64)).collect(),
            archived: cleaned.archived as i64,
            dry_run: cleanup.dry_run,
            more: cleaned.more,
            retention_days: cleaned
                .kept_days
                .into_iter()
                .map(|(table, days)| (table.to_owned(), days as i32))
                .collect(),
            as_of: Some(convert::timestamp(self.hub.now())),
        }))
    }

    async fn list_sync_events(
        &self,
        request: Request<ListSyncEventsRequest>,
    ) -> Result<Response<ListSyncEventsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let filter = model::EventFilter {
            kind: kind(message.event_type.as_deref()).map_err(status)?,
            status: event_status(message.status.as_deref()).map_err(status)?,
            user_id: convert::uuid_or_none(message.user_id.as_deref(), "user_id").map_err(status)?,
        };
        let bound = format!("sync events {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let as_of = self.hub.now();
        let listed = self.hub.list_sync_events(&filter, &page).await.map_err(status)?;
        Ok(Response::new(ListSyncEventsResponse {
            events: listed.items.iter().map(event).collect(),
            next_page_token: listed.next,
            as_of: Some(convert::timestamp(as_of)),
        }))
    }

    async fn list_alerts(&self, request: Request<ListAlertsRequest>) -> Result<Response<ListAlertsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let bound = format!("alerts {}", message.open);
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let as_of = self.hub.now();
        let listed = self.hub.list_alerts(message.open, &page).await.map_err(status)?;
        Ok(Response::new(ListAlertsResponse {
            alerts: listed.items.iter().map(alert_message).collect(),
            next_page_token: listed.next,
            as_of: Some(convert::timestamp(as_of)),
        }))
    }

    type WatchActivityStream = BoxStream<'static, Result<WatchActivityResponse, Status>>;

    async fn watch_activity(
        &self,
        request: Request<WatchActivityRequest>,
    ) -> Result<Response<Self::WatchActivityStream>, Status> {
        let (ctx, message) = convert::open(request)?;
        let kind = kind(message.event_type.as_deref()).map_err(status)?;
        let watching = self.hub.watch_activity(&ctx, message.last_event_id.as_deref(), kind);
        let watcher = watching.await.map_err(status)?;
        let changes = stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            Some(match watcher.next().await {
                Ok(changed) => (Ok(change(&changed)), Some(watcher)),
                Err(error) => (Err(status(error)), None),
            })
        });
        Ok(Response::new(changes.boxed()))
    }
}

fn kind(word: Option<&str>) -> HubResult<Option<EventKind>> {
    let refused = || Error::invalid("event_type", "must be subscription_sync, user_sync or usage_sync");
    word.map(|word| EventKind::parse(word).ok_or_else(refused)).transpose()
}

fn event_status(word: Option<&str>) -> HubResult<Option<EventStatus>> {
    let refused = || Error::invalid("status", "must be pending, completed or failed");
    word.map(|word| EventStatus::parse(word).ok_or_else(refused)).transpose()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn sum(sum: &model::UsageSum) -> UsageSum {
    UsageSum { records: sum.records, amount: sum.amount }
}

fn sums(sums: &BTreeMap<String, model::UsageSum>) -> BTreeMap<String, UsageSum> {
    sums.iter().map(|(key, one)| (key.clone(), sum(one))).collect()
}

fn by_type(counts: &model::TypedCounts) -> BTreeMap<String, StatusCounts> {
    let counts = counts.by_type.iter().map(|(key, counts)| {
        let model::StatusCounts { pending, completed, failed } = *counts;
        (key.clone(), StatusCounts { total: counts.total(), completed, failed, pending })
    });
    counts.collect()
}

fn events(counts: &model::TypedCounts) -> SyncEventCounts {
    SyncEventCounts {
        total: counts.all.total(),
        completed: counts.all.completed,
        failed: counts.all.failed,
        pending: counts.all.pending,
        success_rate: counts.all.success_rate(),
        by_type: by_type(counts),
    }
}

fn webhooks(counts: &model::TypedCounts) -> WebhookCounts {
    WebhookCounts {
        total: counts.all.total(),
        processed: counts.all.completed,
        failed: counts.all.failed,
        pending: counts.all.pending,
        success_rate: counts.all.success_rate(),
        by_type: by_type(counts),
    }
}

fn queue(stats: Option<&QueueStats>) -> QueueStatus {
    let Some(stats) = stats else { return QueueStatus::default() };
    QueueStatus {
        available: true,
        waiting: stats.counts.waiting,
        active: stats.counts.active,
        delayed: stats.counts.delayed,
        completed: stats.counts.completed,
        failed: stats.counts.failed,
        dead: stats.dead,
        oldest_ready_seconds: stats.oldest_ready_age().map(|age| age.as_secs_f64()),
        processing_p50_ms: stats.processing_time.map(|time| milliseconds(time.p50)),
        processing_p95_ms: stats.processing_time.map(|time| milliseconds(time.p95)),
    }
}

fn health(checkup: &model::Checkup, database: &str, has_creatorup: bool, now: Instant) -> GetSystemHealthResponse {
    let word = match checkup.health() {
        model::Health::Healthy => HealthStatus::Healthy,
        model::Health::Degraded => HealthStatus::Degraded,
        model::Health::Unhealthy => HealthStatus::Unhealthy,
    };
    let reached = checkup.creatorup.as_ref();
    GetSystemHealthResponse {
        status: word.into(),
        checked_at: Some(convert::timestamp(checkup.at)),
        as_of: Some(convert::timestamp(now)),
        database: Some(DatabaseHealth {
            connected: checkup.database_latency.is_some(),
            kind: database.to_owned(),
            latency_ms: checkup.database_latency.map(milliseconds),
            size_bytes: checkup.sizes.database,
            down_since: checkup.down_since.map(convert::timestamp),
        }),
        queue: Some(QueueHealth {
            backend: "embedded".to_owned(),
            connected: checkup.queue_connected,
            redis: false,
            counts: Some(QueueStatus { available: checkup.queue_connected, ..queue(checkup.queue.as_ref()) }),
            size_bytes: checkup.sizes.queue,
            paused: checkup.paused().into_iter().map(|kind| kind.as_str().to_owned()).collect(),
        }),
        creatorup_api: Some(CreatorUpHealth {
            configured: has_creatorup,
            reachable: reached.map(|reached| reached.answer.is_ok()),
            response_time_ms: reached.and_then(|reached| reached.answer.as_ref().ok()).map(|took| milliseconds(*took)),
            checked_at: reached.map(|reached| convert::timestamp(reached.at)),
            error: reached.and_then(|reached| reached.answer.as_ref().err()).cloned(),
        }),
        error_rates: checkup.rates.map(|rates| ErrorRates {
            since: Some(convert::timestamp(rates.since)),
            sync_events: Some(rate(&rates.events)),
            webhooks: Some(rate(&rates.webhooks)),
        }),
        alerts: checkup.alerts.iter().map(alert_message).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn rate(counts: &model::StatusCounts) -> ErrorRate {
    ErrorRate { failed: counts.failed, finished: counts.finished(), rate: counts.error_rate() }
}

fn alert_message(alert: &alert::Alert) -> Alert {
    Alert {
        id: alert.id.to_string(),
        code: alert.code.clone(),
        severity: alert.severity.clone(),
        source: alert.source.clone(),
        message: alert.message.clone(),
        details: alert.details.as_ref().and_then(convert::structure),
        opened_at: Some(convert::timestamp(alert.opened_at)),
        cleared_at: alert.cleared_at.map(convert::timestamp),
    }
}

fn event(event: &model::EventRecord) -> SyncEventRecord {
    SyncEventRecord {
        id: event.id.to_string(),
        event_type: event.kind.clone(),
        status: event.status.clone(),
        user_id: event.user_id.map(|id| id.to_string()),
        payload: event.payload.as_ref().and_then(convert::structure),
        response: event.response.as_ref().and_then(convert::structure),
        retry_count: event.retry_count,
        max_retries: event.max_retries,
        error_message: event.error_message.clone(),
        created_at: Some(convert::timestamp(event.created_at)),
        processed_at: event.processed_at.map(convert::timestamp),
        updated_at: Some(convert::timestamp(event.updated_at)),
    }
}

fn recent_event(event: &model::EventRecord) -> SyncEvent {
    SyncEvent {
        id: event.id.to_string(),
        event_type: event.kind.clone(),
        status: event.status.clone(),
        retry_count: event.retry_count,
        max_retries: event.max_retries,
        error_message: event.error_message.clone(),
        created_at: Some(convert::timestamp(event.created_at)),
        processed_at: event.processed_at.map(convert::timestamp),
    }
}

fn webhook(webhook: &model::WebhookRecord) -> ReceivedWebhook {
    ReceivedWebhook {
        id: webhook.id.to_string(),
        source: webhook.source.clone(),
        event_type: webhook.event_type.clone(),
        status: webhook.status.clone(),
        error_message: webhook.error_message.clone(),
        created_at: Some(convert::timestamp(webhook.created_at)),
        processed_at: webhook.processed_at.map(convert::timestamp),
    }
}

fn change(change: &Arc<Change>) -> WatchActivityResponse {
    let (sync_event, alert) = match &change.what {
        What::Event(one) => (Some(event(one)), None),
        What::Alert(one) => (None, Some(alert_message(one))),
    };
    WatchActivityResponse {
        event_id: change.id.to_string(),
        at: Some(convert::timestamp(change.at())),
        sync_event,
        alert,
        gap: change.gap,
    }
}
