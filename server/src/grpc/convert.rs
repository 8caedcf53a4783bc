//! The model as messages, and messages as the model. Shapes only; the words of enums are the contract's.

use tonic::{Request, Status};
use upbridge_proto::v1;
pub use upbridge_service::grpc::convert::*;

use super::status;
use crate::model::membership::{Access, Membership, Plan, Subscription};
use crate::model::user::User;
use crate::model::{Ctx, Error, Instant, Result};

/// Takes a call apart: who asks, and what.
pub fn open<T>(mut request: Request<T>) -> Result<(Ctx, T), Status> {
    let ctx = request.extensions_mut().remove::<Ctx>();
    let ctx = ctx.ok_or_else(|| status(Error::internal("a call did not pass the gate")))?;
    Ok((ctx, request.into_inner()))
}

/// The contract's number of a value. The contract numbers its words from 1, in the order the model has them; a test
/// compares the two, so that no conversion has to.
macro_rules! number {
    ($value:expr) => {
        $value.place() as i32 + 1
    };
}
pub(super) use number;

/// The value of a number of the contract.
pub fn value<T: Copy>(all: &[T], number: i32) -> Option<T> {
    all.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// The value of a number that must be one; `field` names it should the codec have let another through.
pub fn known<T: Copy>(all: &[T], number: i32, field: &'static str) -> Result<T> {
    value(all, number).ok_or_else(|| Error::invalid(field, "must be a known value"))
}

pub fn user(user: &User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        email: user.email.clone(),
        name: user.name.clone(),
        username: user.username.clone(),
        role: number!(user.role),
        status: number!(user.status),
        sync_status: number!(user.sync_status),
        creatorup_user_id: user.creatorup_user_id.clone(),
        creatorup_synced_at: user.creatorup_synced_at.map(timestamp),
        last_creatorup_access: user.last_creatorup_access.map(timestamp),
        creatorup_metadata: user.creatorup_metadata.as_ref().and_then(structure),
        created_at: Some(timestamp(user.created_at)),
        updated_at: Some(timestamp(user.updated_at)),
    }
}

pub fn plan(plan: &Plan) -> v1::Plan {
    v1::Plan {
        id: plan.id,
        name: plan.name.clone(),
        tier: number!(plan.tier),
        price: plan.price.into(),
        currency: plan.currency.clone(),
        interval: "month".to_owned(),
        features: plan
            .features
            .iter()
            .map(|feature| v1::PlanFeature { feature: feature.feature.clone(), monthly_limit: feature.monthly_limit })
            .collect(),
        is_active: plan.is_active,
        created_at: Some(timestamp(plan.created_at)),
        updated_at: Some(timestamp(plan.updated_at)),
    }
}

/// A subscription as it stands at `now`.
pub fn subscription(held: &Subscription, plan: &Plan, now: Instant) -> v1::Subscription {
    v1::Subscription {
        id: held.id.to_string(),
        user_id: held.user_id.to_string(),
        plan_id: held.plan_id,
        plan: plan.name.clone(),
        tier: number!(plan.tier),
        status: number!(held.status_at(now)),
        start_date: Some(timestamp(held.start_date)),
        end_date: Some(timestamp(held.end_date)),
        cancel_at_period_end: held.cancel_at_period_end,
        source: held.source.as_str().to_owned(),
        created_at: Some(timestamp(held.created_at)),
        updated_at: Some(timestamp(held.updated_at)),
    }
}

pub fn membership(held: &Membership, now: Instant) -> v1::Subscription {
    subscription(&held.subscription, &held.plan, now)
}

pub fn reason(access: &Access) -> i32 {
    number!(access.decision.reason)
}
