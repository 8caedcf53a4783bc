//! Those whose integrations the hub manages.

use sea_orm::sea_query::{Expr, ExprTrait, Func, LikeExpr, Query, SelectStatement};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::entity::partner::{ActiveModel, Column, Entity, Model};
use super::entity::partner_integration;
use super::row::word;
use super::{WriteTx, asked, taken};
use crate::model::integration::{Partner, PartnerChange, PartnerFilter, PartnerStatus};
use crate::model::page::Page;
use crate::model::{Error, Instant, Result};

/// The columns whose values must be unique.
const UNIQUE: &[&str] = &["name"];

/// The partner of that id.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Partner>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(Partner::try_from).transpose()
}

/// The partner of that id, whose row is held until the transaction ends: an integration is not added while the partner
/// is deleted.
pub async fn hold(tx: &WriteTx, id: Uuid) -> Result<Option<Partner>> {
    let row = Entity::find_by_id(id).lock_exclusive();
    asked(row.one(tx.reader())).await?.map(Partner::try_from).transpose()
}

/// Whether a partner's integrations are at work.
pub async fn is_active<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<bool> {
    let query = at_work().and_where(Expr::col(Column::Id).eq(id)).take();
    Ok(asked(connection.query_one(&query)).await?.is_some())
}

/// The ids of partners whose integrations are at work.
pub(super) fn at_work() -> SelectStatement {
    let is_active = Expr::col(Column::Status).eq(PartnerStatus::Active.as_str());
    Query::select().column(Column::Id).from(Entity).and_where(is_active).take()
}

/// A page of partners, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(connection: &C, filter: &PartnerFilter, page: &Page) -> Result<Vec<Partner>> {
    let mut query = Entity::find().order_by_desc(Column::Id).limit(u64::from(page.size) + 1);
    if let Some(after) = &page.after {
        query = query.filter(Column::Id.lt(after.id));
    }
    if let Some(status) = filter.status {
        query = query.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(text) = &filter.query {
        query = query.filter(contains(text));
    }
    asked(query.all(connection)).await?.into_iter().map(Partner::try_from).collect()
}

/// `text` inside the name, in any case; its wildcards stand for themselves.
fn contains(text: &str) -> Condition {
    let like = |text: &str| {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        LikeExpr::new(format!("%{escaped}%")).escape('\\')
    };
    let lowered = Expr::expr(Func::lower(Expr::col(Column::Name))).like(like(&text.to_lowercase()));
    // SQLite lowers ASCII letters only; other letters are found there as they are written.
    Condition::any().add(lowered).add(Expr::col(Column::Name).like(like(text)))
}

/// Adds a partner.
pub async fn insert(tx: &mut WriteTx, partner: &Partner) -> Result<()> {
    let row = ActiveModel {
        id: Set(partner.id),
        name: Set(partner.name.clone()),
        status: Set(partner.status.as_str().to_owned()),
        created_at: Set(partner.created_at),
        updated_at: Set(partner.updated_at),
    };
    let insert = Entity::insert(row).exec_without_returning(tx.connection()).await;
    insert.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// Changes parts of a partner.
pub async fn update(tx: &mut WriteTx, id: Uuid, change: &PartnerChange, now: Instant) -> Result<()> {
    let mut row = ActiveModel { updated_at: Set(now), ..Default::default() };
    if let Some(name) = &change.name {
        row.name = Set(name.clone());
    }
    if let Some(status) = change.status {
        row.status = Set(status.as_str().to_owned());
    }
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id)).exec(tx.connection()).await;
    update.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// Whether a partner has integrations.
pub async fn has_integrations(tx: &WriteTx, id: Uuid) -> Result<bool> {
    let query = partner_integration::Entity::find()
        .select_only()
        .column(partner_integration::Column::Id)
        .filter(partner_integration::Column::PartnerId.eq(id));
    Ok(asked(query.into_tuple::<Uuid>().one(tx.reader())).await?.is_some())
}

/// Deletes a partner.
pub async fn delete(tx: &mut WriteTx, id: Uuid) -> Result<()> {
    asked(Entity::delete_by_id(id).exec(tx.connection())).await.map(drop)
}

impl TryFrom<Model> for Partner {
    type Error = Error;

    fn try_from(row: Model) -> Result<Partner> {
        Ok(Partner {
            id: row.id,
            status: word("partners.status", &row.status, PartnerStatus::parse)?,
            name: row.name,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
