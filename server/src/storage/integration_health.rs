//! What health looks at beside the counts.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::asked;
use super::dialect::Dialect;
use super::row::column;
use crate::model::Result;
use crate::model::recommendation::WebhookStanding;

/// Webhooks of one integration that are looked at.
const MOST: i64 = 100;

/// How an integration's webhooks stand.
pub async fn webhooks<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    integration_id: Uuid,
) -> Result<Vec<WebhookStanding>> {
    let sql = format!(
        "SELECT webhook_url, is_active, disabled_at, disabled_reason, breaker_open_until, \
         (SELECT COUNT(*) FROM (SELECT 1 FROM webhook_deliveries WHERE webhook_id = integration_webhooks.id \
         AND status = 'held' LIMIT {}) AS kept) AS held \
         FROM integration_webhooks WHERE integration_id = $1 ORDER BY id LIMIT {MOST}",
        WebhookStanding::MOST_HELD
    );
    let rows = asked(connection.query_all_raw(dialect.statement(sql, [integration_id.into()]))).await?;
    rows.iter()
        .map(|row| {
            Ok(WebhookStanding {
                url: column(row, "webhook_url")?,
                is_active: column(row, "is_active")?,
                disabled_at: column(row, "disabled_at")?,
                disabled_reason: column(row, "disabled_reason")?,
                breaker_open_until: column(row, "breaker_open_until")?,
                held: column(row, "held")?,
            })
        })
        .collect()
}
