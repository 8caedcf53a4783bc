//! UserSyncService.

use serde_json::json;
use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::user_sync_service_server::UserSyncService;
use upbridge_proto::creatorup::v1::{
    PullUserRequest, PullUserResponse, PushUserRequest, PushUserResponse, PushedFeature, PushedPlan,
};

use super::{Door, convert, open, status};
use crate::model::user::{Membership, Profile};
use crate::model::{Error, Instant, Json, Result};

#[tonic::async_trait]
impl UserSyncService for Door {
    async fn pull_user(&self, request: Request<PullUserRequest>) -> Result<Response<PullUserResponse>, Status> {
        let (caller, _) = open(request)?;
        let (_, token) = caller.user().map_err(status)?;
        let user = self.creatorup.pull_user(token).await.map_err(status)?;
        Ok(Response::new(PullUserResponse { user: Some(convert::user(&user)) }))
    }

    async fn push_user(&self, request: Request<PushUserRequest>) -> Result<Response<PushUserResponse>, Status> {
        let (_, message) = open(request)?;
        let told = profile(message, self.creatorup.clock().now()).map_err(status)?;
        let (user, changed) = self.creatorup.push_user(told).await.map_err(status)?;
        Ok(Response::new(PushUserResponse {
            creatorup_user_id: user.id.to_string(),
            changed,
            synced_at: Some(convert::timestamp(user.synced_at)),
        }))
    }
}

/// What a push says.
fn profile(message: PushUserRequest, now: Instant) -> Result<Profile> {
    let digiup_user_id = convert::uuid(&message.digiup_user_id, "digiup_user_id")?;
    let as_of = convert::instant_or_none(message.as_of, "as_of")?.unwrap_or(now);
    if message.deleted {
        return Ok(Profile::deleted(digiup_user_id, as_of));
    }
    let user = message.user.ok_or_else(|| Error::invalid("user", "is required unless the user was deleted"))?;
    if !user.id.is_empty() && convert::uuid(&user.id, "user.id")? != digiup_user_id {
        return Err(Error::invalid("user.id", "must be digiup_user_id"));
    }
    let courses = user.purchased_courses.map(|courses| convert::list(courses, "user.purchased_courses")).transpose()?;
    let membership = message.subscription.map(|held| {
        let end_date = convert::instant_or_none(held.end_date, "subscription.end_date")?;
        Ok(Membership { plan: held.plan, status: held.status, end_date })
    });
    Ok(Profile {
        digiup_user_id,
        email: user.email,
        name: user.name,
        username: user.username,
        role: user.role,
        status: user.status,
        membership: membership.transpose()?,
        details: json!({
            "purchased_courses": courses.unwrap_or_else(|| json!([])),
            "plan": message.plan.map(|plan| plan_json(&plan)),
        }),
        as_of,
    })
}

fn plan_json(plan: &PushedPlan) -> Json {
    let feature = |feature: &PushedFeature| json!({"feature": feature.feature, "monthly_limit": feature.monthly_limit});
    json!({
        "id": plan.id,
        "name": plan.name,
        "tier": plan.tier,
        "price": plan.price,
        "currency": plan.currency,
        "features": plan.features.iter().map(feature).collect::<Vec<_>>(),
    })
}
