//! IntegrationWebhookService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::integration_webhook_service_server::IntegrationWebhookService;
use upbridge_proto::v1::*;

use super::convert::number;
use super::{Door, convert, status};
use crate::domain::hook::manage::NewHook;
use crate::model::hook::{self as model, DeliveryStatus, Hook, HookDelivery, HookTry};
use crate::model::page::Page;
use crate::model::{Error, Json, Result as Model};

/// Deliveries that are sent again when nobody says how many.
const REPLAYED: i32 = 1_000;
/// Hours in which a previous secret signs too, when nobody says.
const OVERLAP: i32 = 24;

#[tonic::async_trait]
impl IntegrationWebhookService for Door {
    async fn list_integration_webhooks(
        &self,
        request: Request<ListIntegrationWebhooksRequest>,
    ) -> Result<Response<ListIntegrationWebhooksResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        let hooks = self.hub.list_hooks(id).await.map_err(status)?;
        Ok(Response::new(ListIntegrationWebhooksResponse { webhooks: hooks.into_iter().map(webhook).collect() }))
    }

    async fn create_integration_webhook(
        &self,
        request: Request<CreateIntegrationWebhookRequest>,
    ) -> Result<Response<CreateIntegrationWebhookResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let integration_id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        let new = NewHook {
            url: message.webhook_url,
            secret: message.webhook_secret,
            events: message.events,
            is_active: message.is_active,
            retry_attempts: message.retry_attempts,
            retry_delay: message.retry_delay,
            rate_limit: message.rate_limit,
        };
        let (hook, secret) = self.hub.create_hook(&ctx, integration_id, new).await.map_err(status)?;
        let shown = IntegrationWebhook { webhook_secret: secret, ..webhook(hook) };
        Ok(Response::new(CreateIntegrationWebhookResponse { webhook: Some(shown) }))
    }

    async fn get_integration_webhook(
        &self,
        request: Request<GetIntegrationWebhookRequest>,
    ) -> Result<Response<GetIntegrationWebhookResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let (hook, backlog) = self.hub.get_hook(id).await.map_err(status)?;
        let now = self.hub.now();
        let state = IntegrationWebhookState {
            disabled_at: hook.disabled_at.map(convert::timestamp),
            disabled_reason: hook.disabled_reason.clone(),
            breaker_open_until: hook.breaker.open(now).map(convert::timestamp),
            previous_secret_expires_at: hook
                .previous_secret_expires_at
                .filter(|until| *until > now)
                .map(convert::timestamp),
            rate_limit: hook.rate_limit,
            pending: backlog.pending,
            held: backlog.held,
            created_by: hook.created_by.map(|id| id.to_string()),
            created_at: Some(convert::timestamp(hook.created_at)),
            updated_at: Some(convert::timestamp(hook.updated_at)),
        };
        Ok(Response::new(GetIntegrationWebhookResponse { webhook: Some(webhook(hook)), state: Some(state) }))
    }

    async fn update_integration_webhook(
        &self,
        request: Request<UpdateIntegrationWebhookRequest>,
    ) -> Result<Response<UpdateIntegrationWebhookResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let change = model::HookChange {
            url: message.webhook_url,
            events: (!message.events.is_empty()).then_some(message.events),
            is_active: message.is_active,
            retry_attempts: message.retry_attempts,
            retry_delay: message.retry_delay,
            rate_limit: message.rate_limit.map(|limit| (limit > 0).then_some(limit)),
        };
        let hook = self.hub.update_hook(&ctx, id, change, message.webhook_secret).await.map_err(status)?;
        Ok(Response::new(UpdateIntegrationWebhookResponse { webhook: Some(webhook(hook)) }))
    }

    async fn delete_integration_webhook(
        &self,
        request: Request<DeleteIntegrationWebhookRequest>,
    ) -> Result<Response<DeleteIntegrationWebhookResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        self.hub.delete_hook(&ctx, id).await.map_err(status)?;
        Ok(Response::new(DeleteIntegrationWebhookResponse {}))
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<RotateWebhookSecretRequest>,
    ) -> Result<Response<RotateWebhookSecretResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let (secret, hours) = (message.webhook_secret.as_deref(), message.overlap_hours.unwrap_or(OVERLAP));
        let (webhook_secret, until) = self.hub.rotate_hook_secret(&ctx, id, secret, hours).await.map_err(status)?;
        let previous_secret_expires_at = until.map(convert::timestamp);
        Ok(Response::new(RotateWebhookSecretResponse { webhook_secret, previous_secret_expires_at }))
    }

    async fn send_test_event(
        &self,
        request: Request<SendTestEventRequest>,
    ) -> Result<Response<SendTestEventResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let delivery = self.hub.send_test_event(&ctx, id, message.event.as_deref()).await.map_err(status)?;
        Ok(Response::new(SendTestEventResponse { delivery: Some(whole(delivery)) }))
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<ListWebhookDeliveriesRequest>,
    ) -> Result<Response<ListWebhookDeliveriesResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let wanted = message.status.and_then(|number| convert::value(DeliveryStatus::ALL, number));
        let filter = model::DeliveryFilter { status: wanted, event: message.event };
        let bound = format!("deliveries {id} {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_hook_deliveries(id, &filter, &page).await.map_err(status)?;
        let deliveries = listed.items.into_iter().map(delivery).collect();
        Ok(Response::new(ListWebhookDeliveriesResponse { deliveries, next_page_token: listed.next }))
    }

    async fn get_webhook_delivery(
        &self,
        request: Request<GetWebhookDeliveryRequest>,
    ) -> Result<Response<GetWebhookDeliveryResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.delivery_id, "delivery_id").map_err(status)?;
        let (found, tries) = self.hub.get_hook_delivery(id).await.map_err(status)?;
        let attempts = tries.into_iter().map(attempt).collect();
        Ok(Response::new(GetWebhookDeliveryResponse { delivery: Some(whole(found)), attempts }))
    }

    async fn resend_webhook_delivery(
        &self,
        request: Request<ResendWebhookDeliveryRequest>,
    ) -> Result<Response<ResendWebhookDeliveryResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.delivery_id, "delivery_id").map_err(status)?;
        let resent = self.hub.resend_hook_delivery(&ctx, id).await.map_err(status)?;
        Ok(Response::new(ResendWebhookDeliveryResponse { delivery: Some(whole(resent)) }))
    }

    async fn replay_webhook_deliveries(
        &self,
        request: Request<ReplayWebhookDeliveriesRequest>,
    ) -> Result<Response<ReplayWebhookDeliveriesResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.webhook_id, "webhook_id").map_err(status)?;
        let replay = replay(message).map_err(status)?;
        let (replayed, more) = self.hub.replay_hook_deliveries(&ctx, id, replay).await.map_err(status)?;
        Ok(Response::new(ReplayWebhookDeliveriesResponse { replayed: replayed as i64, more }))
    }
}

fn replay(message: ReplayWebhookDeliveriesRequest) -> Model<model::Replay> {
    let wanted = message.status.and_then(|number| convert::value(DeliveryStatus::ALL, number));
    if wanted.is_some_and(|wanted| !matches!(wanted, DeliveryStatus::Held | DeliveryStatus::Failed)) {
        return Err(Error::invalid("status", "must be held or failed"));
    }
    Ok(model::Replay {
        status: wanted,
        event: message.event,
        since: message.since.map(|at| convert::instant(at, "since")).transpose()?,
        until: message.until.map(|at| convert::instant(at, "until")).transpose()?,
        most: u64::from(message.limit.unwrap_or(REPLAYED).max(0).unsigned_abs()),
    })
}

fn webhook(hook: Hook) -> IntegrationWebhook {
    IntegrationWebhook {
        id: hook.id.to_string(),
        integration_id: hook.integration_id.to_string(),
        webhook_url: hook.url,
        webhook_secret: hook.secret_masked,
        events: hook.events,
        is_active: hook.is_active,
        retry_attempts: hook.retry_attempts,
        retry_delay: hook.retry_delay,
        last_triggered_at: hook.last_triggered_at.map(convert::timestamp),
        last_status: hook.last_status.map(|status| number!(status)),
        failure_count: hook.failure_count,
    }
}

/// A delivery as one of a list.
fn delivery(one: HookDelivery) -> WebhookDelivery {
    WebhookDelivery {
        id: one.id.to_string(),
        webhook_id: one.webhook_id.to_string(),
        event: one.event,
        status: number!(one.status),
        attempts: one.attempts,
        next_attempt_at: one.next_attempt_at.map(convert::timestamp),
        response_status: one.response_status,
        error_class: one.error_class,
        is_test: one.is_test,
        payload: None,
        created_at: Some(convert::timestamp(one.created_at)),
        finished_at: one.finished_at.map(convert::timestamp),
    }
}

/// A delivery with its body.
fn whole(one: HookDelivery) -> WebhookDelivery {
    let payload = serde_json::from_str::<Json>(&one.payload).ok();
    WebhookDelivery { payload: payload.as_ref().and_then(convert::structure), ..delivery(one) }
}

fn attempt(one: HookTry) -> WebhookAttempt {
    let text = |name: &str| one.response.get(name).and_then(Json::as_str).map(str::to_owned);
    let whole =
        |json: &Json, name: &str| json.get(name).and_then(Json::as_i64).and_then(|number| number.try_into().ok());
    WebhookAttempt {
        id: one.id.to_string(),
        attempt: whole(&one.request, "attempt").unwrap_or_default(),
        status: number!(one.status),
        response_status: whole(&one.response, "status"),
        response_body: text("body"),
        remote_address: text("remoteAddress"),
        message: one.message,
        duration_ms: one.duration,
        created_at: Some(convert::timestamp(one.at)),
    }
}
