//! The model as messages, and messages as the model. Shapes only.

use prost_types::Timestamp;
use upbridge_proto::creatorup::v1;
pub use upbridge_service::grpc::convert::{instant, json, list, month_or_none, structure, timestamp, uuid};

use crate::domain::batch::Standing;
use crate::model::batch::{Batch, BatchStatus};
use crate::model::media::MediaPath;
use crate::model::user::User;
use crate::model::{Error, Instant, Month, Result};

/// Text that can be kept: PostgreSQL has no NUL.
pub fn text(text: String, field: &'static str) -> Result<String> {
    if text.contains('\0') { Err(Error::invalid(field, "must not hold NUL")) } else { Ok(text) }
}

/// A time that may be absent.
pub fn instant_or_none(at: Option<Timestamp>, field: &'static str) -> Result<Option<Instant>> {
    at.map(|at| instant(at, field)).transpose()
}

/// Where a batch stands, by the contract's number.
pub fn batch_status(number: i32) -> Result<BatchStatus> {
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let known = place.and_then(|place| BatchStatus::ALL.get(place)).copied();
    known.ok_or_else(|| Error::invalid("status", "must be a known value"))
}

pub fn user(user: &User) -> v1::User {
    let profile = &user.profile;
    v1::User {
        id: user.id.to_string(),
        digiup_user_id: profile.digiup_user_id.to_string(),
        email: profile.email.clone(),
        name: profile.name.clone(),
        username: profile.username.clone(),
        role: profile.role.clone(),
        status: profile.status.clone(),
        membership: profile.membership.as_ref().map(|held| v1::Membership {
            plan: held.plan.clone(),
            status: held.status.clone(),
            end_date: held.end_date.map(timestamp),
        }),
        as_of: Some(timestamp(profile.as_of)),
        synced_at: Some(timestamp(user.synced_at)),
        created_at: Some(timestamp(user.created_at)),
    }
}

pub fn batch(standing: &Standing) -> v1::Batch {
    let Standing { batch, usage } = standing;
    let month = usage.as_ref().map_or_else(|| Month::of(batch.created_at), |usage| usage.month);
    v1::Batch {
        id: batch.id.to_string(),
        digiup_user_id: batch.digiup_user_id.to_string(),
        name: batch.name.clone(),
        r#type: batch.batch_type.clone(),
        usage_type: batch.usage_type.clone(),
        // The contract numbers its words from 1, in the order the model has them; a test compares the two.
        status: batch.status.place() as i32 + 1,
        progress: batch.progress,
        inputs: batch.inputs.iter().map(MediaPath::as_str).map(str::to_owned).collect(),
        metadata: Batch::told(batch).as_ref().and_then(structure),
        error: batch.error.clone(),
        usage_amount: usage.as_ref().map_or(0, |usage| usage.amount),
        month_year: month.to_string(),
        // What the hub refused counts for nothing, and there is nothing to tell.
        usage_reported: usage.as_ref().is_none_or(|usage| usage.reported_at.is_some()),
        created_at: Some(timestamp(batch.created_at)),
        started_at: batch.started_at.map(timestamp),
        finished_at: batch.finished_at.map(timestamp),
    }
}
