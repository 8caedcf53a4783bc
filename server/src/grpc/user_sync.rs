//! UserSyncService.

use std::time::Duration;

use tonic::{Request, Response, Status};
use upbridge_proto::v1::user_sync_service_server::UserSyncService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::model::membership::AccessReason as ModelReason;
use upbridge_service::grpc::BearerToken;

#[tonic::async_trait]
impl UserSyncService for Door {
    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let header = request.extensions().get::<BearerToken>().map(|token| token.0.clone());
        let (ctx, message) = convert::open(request)?;
        let body = message.token.as_deref().filter(|token| !token.is_empty());
        let verified = self.hub.verify_token(&ctx, header.as_deref(), body).await;
        let (signed_in, entitlements) = verified.map_err(status)?;
        let reason = entitlements.standing();
        Ok(Response::new(VerifyTokenResponse {
            valid: true,
            user: Some(convert::user(&entitlements.user)),
            subscription: entitlements.membership.as_ref().map(|held| convert::membership(held, entitlements.as_of)),
            has_access: reason == ModelReason::Granted,
            reason: convert::number!(reason),
            token_expires_at: Some(convert::timestamp(signed_in.expires_at)),
        }))
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let (user, membership) = self.hub.get_profile(&ctx, subject).await.map_err(status)?;
        let now = self.hub.now();
        Ok(Response::new(GetProfileResponse {
            user: Some(convert::user(&user)),
            subscription: membership.as_ref().map(|held| convert::membership(held, now)),
            plan: membership.as_ref().map(|held| convert::plan(&held.plan)),
        }))
    }

    async fn check_access(
        &self,
        request: Request<CheckAccessRequest>,
    ) -> Result<Response<CheckAccessResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let (entitlements, features) = self.hub.check_access(&ctx, subject).await.map_err(status)?;
        let reason = entitlements.standing();
        // Limits add up only when every feature has one.
        let limits: Option<Vec<i64>> = features.iter().map(|access| access.decision.limit).collect();
        let limit = limits.filter(|limits| !limits.is_empty()).map(|limits| limits.iter().sum::<i64>());
        let left = features.iter().filter_map(|access| access.decision.remaining()).sum::<i64>();
        let held = entitlements.membership.as_deref();
        Ok(Response::new(CheckAccessResponse {
            has_access: reason == ModelReason::Granted,
            reason: convert::number!(reason),
            user_id: entitlements.user.id.to_string(),
            plan: held.map(|held| held.plan.name.clone()),
            limit,
            used: entitlements.usage.total(),
            remaining: limit.map(|_| left),
            period_start: Some(convert::timestamp(entitlements.month.start())),
            period_end: Some(convert::timestamp(entitlements.month.end())),
            access_until: held.map(|held| convert::timestamp(held.subscription.end_date)),
            as_of: Some(convert::timestamp(entitlements.as_of)),
            features: features
                .iter()
                .map(|access| FeatureAccess {
                    feature: access.feature.clone(),
                    has_access: access.decision.has_access(),
                    reason: convert::reason(access),
                    limit: access.decision.limit,
                    used: access.decision.used,
                    remaining: access.decision.remaining(),
                })
                .collect(),
        }))
    }

    async fn sync_user(&self, request: Request<SyncUserRequest>) -> Result<Response<SyncUserResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let wait = Duration::from_millis(message.wait_ms.unwrap_or_default().max(0) as u64);
        let asked = self.hub.sync_user(&ctx, subject, message.creatorup_api_url.as_deref(), wait).await;
        let (user, event_id) = asked.map_err(status)?;
        Ok(Response::new(SyncUserResponse {
            sync_status: convert::number!(user.sync_status),
            event_id: event_id.to_string(),
            creatorup_user_id: user.creatorup_user_id.clone(),
            creatorup_synced_at: user.creatorup_synced_at.map(convert::timestamp),
        }))
    }

    async fn get_sync_status(
        &self,
        request: Request<GetSyncStatusRequest>,
    ) -> Result<Response<GetSyncStatusResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let standing = self.hub.get_sync_status(&ctx, subject).await.map_err(status)?;
        let user = convert::user(&standing.user);
        Ok(Response::new(GetSyncStatusResponse {
            user_id: user.id,
            sync_status: user.sync_status,
            creatorup_synced_at: user.creatorup_synced_at,
            creatorup_user_id: user.creatorup_user_id,
            last_creatorup_access: user.last_creatorup_access,
            recent_events: standing
                .events
                .into_iter()
                .map(|event| SyncEvent {
                    id: event.id.to_string(),
                    event_type: event.kind,
                    status: event.status,
                    retry_count: event.retry_count,
                    max_retries: event.max_retries,
                    error_message: event.error_message,
                    created_at: Some(convert::timestamp(event.created_at)),
                    processed_at: event.processed_at.map(convert::timestamp),
                })
                .collect(),
        }))
    }
}
