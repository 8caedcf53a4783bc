//! Webhooks that come in, the ledger that tells a repeated one, and the alerts.

use sea_orm_migration::prelude::*;

use crate::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(webhook_logs(manager)).await?;
        manager.create_table(webhook_receipts(manager)).await?;
        manager.create_table(alerts(manager)).await?;
        run(
            manager,
            &[
                "CREATE INDEX webhook_logs_by_user ON webhook_logs (user_id, id) WHERE user_id IS NOT NULL",
                "CREATE INDEX webhook_logs_failed ON webhook_logs (id) WHERE status = 'failed'",
                "CREATE INDEX webhook_logs_by_age ON webhook_logs (created_at)",
                "CREATE INDEX webhook_receipts_by_age ON webhook_receipts (received_at)",
                "CREATE UNIQUE INDEX one_open_alert_per_code ON alerts (code) WHERE cleared_at IS NULL",
                "CREATE INDEX alerts_by_change ON alerts (updated_at, id)",
                // What is listed and tried again: few among the many that succeed.
                "CREATE INDEX sync_events_failed ON sync_events (id) WHERE status = 'failed'",
                "CREATE INDEX sync_events_by_type ON sync_events (event_type, id) WHERE event_type <> 'usage_sync'",
            ],
        )
        .await?;
        // When what the row says became true at its source: an older event changes nothing.
        manager.alter_table(Table::alter().table("user_subscriptions").add_column(time("changed_at")).take()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "ALTER TABLE user_subscriptions DROP COLUMN changed_at",
                "DROP INDEX sync_events_failed",
                "DROP INDEX sync_events_by_type",
            ],
        )
        .await?;
        for table in ["alerts", "webhook_receipts", "webhook_logs"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

/// Every webhook that came, good or bad. A bad one's body is not kept.
fn webhook_logs(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_logs")
        .col(id())
        .col(text("source", 50))
        .col(text("event_type", 50))
        .col(ColumnDef::new("user_id").uuid().null())
        .col(json_or_null("payload"))
        .col(text_or_null("signature", 255))
        .col(word("status", 50, &["received", "processed", "failed"]).default("received"))
        .col(json_or_null("response"))
        .col(ColumnDef::new("error_message").text().null())
        .col(text("ip_address", 64).default(""))
        .col(time("processed_at"))
        .col(time_now(manager, "created_at"))
        .take()
}

/// What was received, by what tells it from everything else: the sender's signed id, or the digest of the body.
fn webhook_receipts(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_receipts")
        .col(text("source", 50))
        .col(text("delivery_key", 255))
        .col(text("body_digest", 64))
        .col(uuid("log_id"))
        .col(time_now(manager, "received_at"))
        .primary_key(Index::create().col("delivery_key").col("source"))
        .take()
}

/// What is or was wrong. One row per opening; closed rows are its history.
fn alerts(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("alerts")
        .col(id())
        .col(text("code", 64))
        .col(word("severity", 16, &["info", "warning", "error", "critical"]))
        .col(text("source", 50).default("hub"))
        .col(ColumnDef::new("message").text().not_null())
        .col(json_or_null("details"))
        .col(time_now(manager, "opened_at"))
        .col(time("cleared_at"))
        .col(time_now(manager, "updated_at"))
        .take()
}
