//! The model as messages, and messages as the model. Shapes only; the words of enums are the contract's.

use chrono::{DateTime, SubsecRound};
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use tonic::{Request, Status};
use upbridge_proto::v1;
use uuid::Uuid;

use super::status;
use crate::model::membership::{Access, Membership, Plan, Subscription};
use crate::model::user::User;
use crate::model::{Ctx, Error, Instant, Json, Month, Result};

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

/// A UUID the codec has checked; `field` names it should it be none all the same.
pub fn uuid(text: &str, field: &'static str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| Error::invalid(field, "must be a UUID"))
}

/// A UUID that may be absent.
pub fn uuid_or_none(text: Option<&str>, field: &'static str) -> Result<Option<Uuid>> {
    text.map(|text| uuid(text, field)).transpose()
}

/// A month that may be absent.
pub fn month_or_none(text: Option<&str>, field: &'static str) -> Result<Option<Month>> {
    let read = |text| Month::parse(text).ok_or_else(|| Error::invalid(field, "must be a month as YYYY-MM"));
    text.map(read).transpose()
}

pub fn timestamp(at: Instant) -> Timestamp {
    Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 }
}

pub fn instant(at: Timestamp, field: &'static str) -> Result<Instant> {
    let nanos = u32::try_from(at.nanos).unwrap_or(u32::MAX);
    let read = DateTime::from_timestamp(at.seconds, nanos).map(|at| at.trunc_subsecs(6));
    read.ok_or_else(|| Error::invalid(field, "must be a time between years 1 and 9999"))
}

/// Free-form JSON as it is stored: integers stay integers, 5 and not 5.0.
pub fn json(object: Struct, field: &str) -> Result<Json> {
    let members = object.fields.into_iter().map(|(key, value)| match key.contains('\0') {
        true => Err(Error::invalid(field, "must not hold NUL")),
        false => Ok((key, json_value(value, field)?)),
    });
    Ok(Json::Object(members.collect::<Result<_>>()?))
}

fn json_value(value: Value, field: &str) -> Result<Json> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        // PostgreSQL's jsonb has no NUL, so a text with one could not be kept everywhere.
        Some(Kind::StringValue(value)) if value.contains('\0') => {
            return Err(Error::invalid(field, "must not hold NUL"));
        }
        Some(Kind::StringValue(value)) => Json::String(value),
        // Beyond 2^53 a double is no longer every integer, and its exact value is anyone's guess.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
            Json::from(number as i64)
        }
        Some(Kind::NumberValue(number)) => serde_json::Number::from_f64(number)
            .map(Json::Number)
            .ok_or_else(|| Error::invalid(field, "must not hold NaN or infinity"))?,
        Some(Kind::ListValue(list)) => {
            Json::Array(list.values.into_iter().map(|value| json_value(value, field)).collect::<Result<_>>()?)
        }
        Some(Kind::StructValue(object)) => json(object, field)?,
    })
}

/// Stored JSON as a message; anything but an object has no such form.
pub fn structure(json: &Json) -> Option<Struct> {
    let members = json.as_object()?;
    Some(Struct { fields: members.iter().map(|(key, value)| (key.clone(), structure_value(value))).collect() })
}

fn structure_value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(structure_value).collect() }),
        Json::Object(_) => Kind::StructValue(structure(json).unwrap_or_default()),
    };
    Value { kind: Some(kind) }
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
