//! Integrations.

use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::Value;
use uuid::Uuid;

use super::asked;
use super::entity::partner_integration::{Entity, Model};
use crate::model::failure::FailureClass;
use crate::model::integration::{Environment, Integration, LogStatus, Provider, TestRecord};
use crate::model::{Error, Result};

/// What the credentials of an integration are sealed for.
pub const CREDENTIALS: &str = "integration credentials";

/// An integration.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Integration>> {
    Ok(find_sealed(connection, id).await?.map(|(integration, _)| integration))
}

/// An integration with its sealed credentials.
pub async fn find_sealed<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<(Integration, String)>> {
    let row = asked(Entity::find_by_id(id).one(connection)).await?;
    row.map(|mut row| {
        let sealed = std::mem::take(&mut row.credentials);
        Ok((Integration::try_from(row)?, sealed))
    })
    .transpose()
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
