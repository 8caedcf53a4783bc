//! The record of what administrators changed. Rows are only added.

use sea_orm::{ActiveValue::Set, EntityTrait};
use uuid::Uuid;

use super::entity::audit::{ActiveModel, Entity};
use super::{WriteTx, asked};
use crate::model::{Ctx, Instant, Json, Principal, Result};

/// What was done to what.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Dotted, past tense, such as `user.updated`.
    pub action: &'static str,
    /// Kind of thing.
    pub target_kind: &'static str,
    /// Its id.
    pub target_id: String,
    /// The changed keys and such values as are no secret.
    pub changes: Json,
}

/// Adds an entry about the caller of `ctx`.
pub async fn insert(tx: &mut WriteTx, ctx: &Ctx, entry: Entry, now: Instant) -> Result<()> {
    let (actor_kind, actor_id) = match &ctx.principal {
        Principal::Anonymous => ("anonymous", None),
        Principal::User(signed_in) => ("user", Some(signed_in.user.id)),
        Principal::Service => ("service", None),
        Principal::Webhook(_) => ("webhook", None),
        Principal::Provider(_) => ("provider", None),
    };
    let row = ActiveModel {
        id: Set(Uuid::now_v7()),
        actor_id: Set(actor_id),
        actor_kind: Set(actor_kind.to_owned()),
        action: Set(entry.action.to_owned()),
        target_kind: Set(entry.target_kind.to_owned()),
        target_id: Set(entry.target_id),
        changes: Set(Some(entry.changes)),
        ip_address: Set(ctx.ip.map(|ip| ip.to_string()).unwrap_or_default()),
        request_id: Set(ctx.request_id.to_string()),
        created_at: Set(now),
    };
    asked(Entity::insert(row).exec_without_returning(tx.connection())).await.map(drop)
}
