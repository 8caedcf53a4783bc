//! WebhookService.

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};
use upbridge_proto::v1::webhook_service_server::WebhookService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::domain::webhook::Incoming;
use crate::model::page::Page;
use crate::model::usage::Source;
use crate::model::webhook::{self as model, SubscriptionUpdate, WebhookFilter, subscription_status};
use crate::model::{Ctx, Error, Instant, Principal, Result as HubResult};

#[tonic::async_trait]
impl WebhookService for Door {
    async fn handle_usage_webhook(
        &self,
        request: Request<HandleUsageWebhookRequest>,
    ) -> Result<Response<HandleUsageWebhookResponse>, Status> {
        let (ctx, mut message) = convert::open(request)?;
        message.signature = None;
        let content = unsigned(&ctx, &message);
        let incoming = Incoming { content, event_id: message.event_id.take(), said_at: None };
        let report = UsageReport {
            usage_data: message.usage_data,
            digiup_user_id: Some(message.digiup_user_id),
            idempotency_key: None,
        };
        let report = super::usage::read(&ctx, report, Source::Webhook, self.hub.now()).map_err(status)?;
        let receipt = self.hub.handle_usage_webhook(&ctx, report, incoming).await.map_err(status)?;
        Ok(Response::new(HandleUsageWebhookResponse {
            received: true,
            event_id: receipt.event_id.to_string(),
            duplicate: receipt.is_duplicate,
        }))
    }

    async fn handle_subscription_webhook(
        &self,
        request: Request<HandleSubscriptionWebhookRequest>,
    ) -> Result<Response<HandleSubscriptionWebhookResponse>, Status> {
        let (ctx, mut message) = convert::open(request)?;
        message.signature = None;
        let incoming = Incoming {
            content: unsigned(&ctx, &message),
            event_id: message.event_id.take(),
            said_at: message.occurred_at.map(|at| convert::instant(at, "occurred_at")).transpose().map_err(status)?,
        };
        let user_id = convert::uuid(&message.digiup_user_id, "digiup_user_id").map_err(status)?;
        let update = read(message.subscription_data, self.hub.now()).map_err(status)?;
        let receipt = self.hub.handle_subscription_webhook(&ctx, user_id, update, incoming).await.map_err(status)?;
        Ok(Response::new(HandleSubscriptionWebhookResponse {
            received: true,
            event_id: receipt.event_id.to_string(),
            duplicate: receipt.is_duplicate,
        }))
    }

    async fn get_webhook_receipt(
        &self,
        request: Request<GetWebhookReceiptRequest>,
    ) -> Result<Response<GetWebhookReceiptResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.event_id, "event_id").map_err(status)?;
        let log = self.hub.get_webhook_receipt(id).await.map_err(status)?;
        Ok(Response::new(GetWebhookReceiptResponse {
            event_id: log.id.to_string(),
            event_type: log.event_type,
            status: convert::number!(log.status),
            received_at: Some(convert::timestamp(log.created_at)),
            processed_at: log.processed_at.map(convert::timestamp),
            response: log.response.as_ref().and_then(convert::structure),
            error_message: log.error_message,
        }))
    }

    async fn list_webhook_logs(
        &self,
        request: Request<ListWebhookLogsRequest>,
    ) -> Result<Response<ListWebhookLogsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let filter = WebhookFilter {
            status: message.status.and_then(|number| convert::value(model::WebhookStatus::ALL, number)),
            event_type: message.event_type,
            source: message.source,
            user_id: convert::uuid_or_none(message.user_id.as_deref(), "user_id").map_err(status)?,
        };
        let bound = format!("webhooks {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_webhook_logs(&filter, &page).await.map_err(status)?;
        let without_body = |log: model::WebhookLog| WebhookLog { payload: None, response: None, ..self::log(log) };
        let logs = listed.items.into_iter().map(without_body).collect();
        Ok(Response::new(ListWebhookLogsResponse { logs, next_page_token: listed.next }))
    }

    async fn get_webhook_log(
        &self,
        request: Request<GetWebhookLogRequest>,
    ) -> Result<Response<GetWebhookLogResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.log_id, "log_id").map_err(status)?;
        let found = self.hub.get_webhook_log(id).await.map_err(status)?;
        Ok(Response::new(GetWebhookLogResponse { log: Some(log(found)) }))
    }
}

/// Digest of what a caller without a signature sent; a message has one encoding of the same fields. What is signed has
/// the digest of its bytes.
fn unsigned(ctx: &Ctx, message: &impl Message) -> Option<[u8; 32]> {
    let is_signed = matches!(ctx.principal, Principal::Webhook(_));
    (!is_signed).then(|| Sha256::digest(message.encode_to_vec()).into())
}

fn read(data: Option<SubscriptionData>, now: Instant) -> HubResult<SubscriptionUpdate> {
    let data = data.ok_or_else(|| Error::invalid("subscription_data", "is required"))?;
    let status = subscription_status(&data.status)
        .ok_or_else(|| Error::invalid("subscription_data.status", "must be active, canceled or expired"))?;
    let end_date = data.end_date.map(|at| convert::instant(at, "subscription_data.end_date")).transpose()?;
    Ok(SubscriptionUpdate { plan: data.plan, status, end_date, occurred_at: now })
}

fn log(log: model::WebhookLog) -> WebhookLog {
    WebhookLog {
        id: log.id.to_string(),
        source: log.source,
        event_type: log.event_type,
        user_id: log.user_id.map(|id| id.to_string()),
        status: convert::number!(log.status),
        payload: log.payload.as_ref().and_then(convert::structure),
        signature: log.signature,
        response: log.response.as_ref().and_then(convert::structure),
        error_message: log.error_message,
        ip_address: log.ip_address,
        processed_at: log.processed_at.map(convert::timestamp),
        created_at: Some(convert::timestamp(log.created_at)),
    }
}
