//! Integrations.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value;
use uuid::Uuid;

use super::entity::partner_integration::{ActiveModel, Column, Entity, Model};
use super::{WriteTx, asked, taken};
use crate::model::failure::FailureClass;
use crate::model::integration::{Environment, Integration, IntegrationFilter, LogStatus, Provider, TestRecord};
use crate::model::page::Page;
use crate::model::{Error, Result};

/// What the credentials of an integration are sealed for.
pub const CREDENTIALS: &str = "integration credentials";

/// The columns whose values must be unique among a partner's.
const UNIQUE: &[&str] = &["name"];

/// An integration.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Integration>> {
    Ok(find_sealed(connection, id).await?.map(|(integration, _)| integration))
}

/// An integration with its sealed credentials.
pub async fn find_sealed<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<(Integration, String)>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(with_sealed).transpose()
}

/// An integration with its sealed credentials, whose row is held until the transaction ends.
pub async fn hold_sealed(tx: &WriteTx, id: Uuid) -> Result<Option<(Integration, String)>> {
    let row = Entity::find_by_id(id).lock_exclusive();
    asked(row.one(tx.reader())).await?.map(with_sealed).transpose()
}

fn with_sealed(mut row: Model) -> Result<(Integration, String)> {
    let sealed = std::mem::take(&mut row.credentials);
    Ok((Integration::try_from(row)?, sealed))
}

/// A page of a partner's integrations, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    partner_id: Uuid,
    filter: &IntegrationFilter,
    page: &Page,
) -> Result<Vec<Integration>> {
    let mut query = Entity::find()
        .filter(Column::PartnerId.eq(partner_id))
        .order_by_desc(Column::Id)
        .limit(u64::from(page.size) + 1);
    if let Some(after) = &page.after {
        query = query.filter(Column::Id.lt(after.id));
    }
    if let Some(category) = filter.category {
        query = query.filter(Column::Category.eq(category.as_str()));
    }
    if let Some(provider) = filter.provider {
        query = query.filter(Column::Provider.eq(provider.as_str()));
    }
    if let Some(environment) = filter.environment {
        query = query.filter(Column::Environment.eq(environment.as_str()));
    }
    if let Some(is_active) = filter.is_active {
        query = query.filter(Column::IsActive.eq(is_active));
    }
    asked(query.all(connection)).await?.into_iter().map(Integration::try_from).collect()
}

/// Adds an integration with its sealed credentials.
pub async fn insert(tx: &mut WriteTx, integration: &Integration, sealed: &str) -> Result<()> {
    let row = ActiveModel {
        id: Set(integration.id),
        partner_id: Set(integration.partner_id),
        category: Set(integration.provider.spec().category.as_str().to_owned()),
        provider: Set(integration.provider.as_str().to_owned()),
        created_by: Set(integration.created_by),
        created_at: Set(integration.created_at),
        ..configured(integration, Some(sealed))
    };
    let insert = Entity::insert(row).exec_without_returning(tx.connection()).await;
    insert.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// Writes how an integration is configured, and its credentials where they were sealed anew.
pub async fn update(tx: &mut WriteTx, integration: &Integration, sealed: Option<&str>) -> Result<()> {
    let row = configured(integration, sealed);
    let update = Entity::update_many().set(row).filter(Column::Id.eq(integration.id)).exec(tx.connection()).await;
    update.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// The columns that somebody configures.
fn configured(integration: &Integration, sealed: Option<&str>) -> ActiveModel {
    let mut row = ActiveModel {
        name: Set(integration.name.clone()),
        environment: Set(integration.environment.as_str().to_owned()),
        base_url: Set(integration.base_url.clone()),
        is_active: Set(integration.is_active),
        updated_at: Set(integration.updated_at),
        ..Default::default()
    };
    if let Some(sealed) = sealed {
        row.credentials = Set(sealed.to_owned());
        row.credentials_key_id = Set(integration.key_id.clone());
        row.credentials_masked = Set(Some(integration.masked.clone()));
        row.callback_digest = Set(integration.callback_digest.clone());
    }
    row
}

/// Deletes an integration with what is left of its history; says whether there was one.
pub async fn delete(tx: &mut WriteTx, id: Uuid) -> Result<bool> {
    Ok(asked(Entity::delete_by_id(id).exec(tx.connection())).await?.rows_affected > 0)
}

/// Removes from the history of an integration, `most` rows of each table at most; says whether more may be left.
///
/// Each query has an order that one index alone gives, so that no plan is to walk a whole table in search of the rows.
pub async fn clear(tx: &mut WriteTx, id: Uuid, most: u64) -> Result<bool> {
    let dialect = tx.dialect();
    let row = dialect.row_name();
    let of = |table: &str, order: &str| {
        format!("SELECT {row} FROM {table} WHERE integration_id = $1 ORDER BY {order} LIMIT $2")
    };
    let deliveries = dialect.pick(&[
        "SELECT webhook_deliveries.rowid FROM (SELECT id AS webhook FROM integration_webhooks WHERE integration_id = $1) \
         AS webhooks CROSS JOIN webhook_deliveries ON webhook_deliveries.webhook_id = webhook LIMIT $2",
        "SELECT found.place FROM integration_webhooks AS webhooks, LATERAL (SELECT webhook_deliveries.ctid AS place \
         FROM webhook_deliveries WHERE webhook_id = webhooks.id ORDER BY id LIMIT $2) AS found \
         WHERE webhooks.integration_id = $1 LIMIT $2",
    ]);
    let mut more = false;
    for (table, rows) in [
        ("integration_logs", of("integration_logs", "created_at, id")),
        ("integration_receipts", of("integration_receipts", "callback_key")),
        ("integration_counts", of("integration_counts", "span, starts_at")),
        ("webhook_deliveries", (*deliveries).to_owned()),
    ] {
        let sql = format!("DELETE FROM {table} WHERE {row} IN ({rows})");
        let delete = dialect.statement(sql, [id.into(), (most as i64).into()]);
        more |= asked(tx.connection().execute_raw(delete)).await?.rows_affected() >= most;
    }
    Ok(more)
}

impl TryFrom<Model> for Integration {
    type Error = Error;

    fn try_from(row: Model) -> Result<Integration> {
        let unknown = |what: &str| Error::internal(format!("an integration with an unknown {what}"));
        let last_test = match (row.last_test_at, row.last_test_status) {
            (Some(at), Some(status)) => Some(TestRecord {
                at,
                status: LogStatus::parse(&status).ok_or_else(|| unknown("test status"))?,
                message: row.last_test_message.unwrap_or_default(),
                class: row.last_test_class.as_deref().and_then(FailureClass::parse),
                latency: row.last_test_latency.unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Integration {
            id: row.id,
            partner_id: row.partner_id,
            provider: Provider::parse(&row.provider).ok_or_else(|| unknown("provider"))?,
            name: row.name,
            environment: Environment::parse(&row.environment).ok_or_else(|| unknown("environment"))?,
            masked: row.credentials_masked.unwrap_or(Value::Null),
            base_url: row.base_url,
            callback_digest: row.callback_digest,
            is_active: row.is_active,
            last_test,
            key_id: row.credentials_key_id,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
