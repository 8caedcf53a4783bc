//! The last connection tests of integrations, and whose turn it is.

use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::partner_integration::{ActiveModel, Column, Entity};
use super::{WriteTx, asked};
use crate::model::integration::{LogStatus, PartnerStatus, TestRecord};
use crate::model::{Instant, Result};

/// What the last test before was, of an integration that is still there.
pub type Before = Option<LogStatus>;

/// Keeps a test as an integration's last, unless a newer one came between. `None` when the integration is gone.
pub async fn record(tx: &mut WriteTx, id: Uuid, test: &TestRecord) -> Result<Option<Before>> {
    let query = Entity::find_by_id(id).select_only().column(Column::LastTestStatus).into_tuple::<Option<String>>();
    let Some(before) = asked(query.one(tx.reader())).await? else { return Ok(None) };
    let row = ActiveModel {
        last_test_at: Set(Some(test.at)),
        last_test_status: Set(Some(test.status.as_str().to_owned())),
        last_test_message: Set(Some(test.message.clone())),
        last_test_class: Set(test.class.map(|class| class.as_str().to_owned())),
        last_test_latency: Set(Some(test.latency)),
        ..Default::default()
    };
    let is_newest = Column::LastTestAt.is_null().or(Column::LastTestAt.lte(test.at));
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id)).filter(is_newest);
    asked(update.exec(tx.connection())).await?;
    Ok(Some(before.as_deref().and_then(LogStatus::parse)))
}

/// Integrations at work that were not tested since `before`, the longest untested first, and after them those that
/// never were and have been there since before that; at most `most`.
pub async fn list_due<C: ConnectionTrait>(connection: &C, before: Instant, most: u64) -> Result<Vec<Uuid>> {
    let due = || Entity::find().select_only().column(Column::Id).filter(Column::IsActive.eq(true));
    let due = || due().filter(Column::PartnerId.in_subquery(partners_at_work()));
    let stale = due().filter(Column::LastTestAt.lt(before)).order_by_asc(Column::LastTestAt).order_by_asc(Column::Id);
    let mut found: Vec<Uuid> = asked(stale.limit(most).into_tuple().all(connection)).await?;
    let room = most - found.len() as u64;
    if room > 0 {
        let never = due().filter(Column::LastTestAt.is_null()).filter(Column::CreatedAt.lt(before));
        let never = never.order_by_asc(Column::Id).limit(room).into_tuple::<Uuid>();
        found.extend(asked(never.all(connection)).await?);
    }
    Ok(found)
}

/// Whether an integration's partner is at work.
pub async fn is_partner_active<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<bool> {
    let query = Entity::find_by_id(id).filter(Column::PartnerId.in_subquery(partners_at_work()));
    Ok(asked(query.select_only().column(Column::Id).into_tuple::<Uuid>().one(connection)).await?.is_some())
}

fn partners_at_work() -> SelectStatement {
    let is_active = Expr::col("status").eq(PartnerStatus::Active.as_str());
    Query::select().column("id").from("partners").and_where(is_active).take()
}
