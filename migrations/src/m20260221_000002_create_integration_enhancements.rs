//! What happens to integrations: their logs with the counts of them, the callbacks that came, the webhooks that are
//! told, and the deliveries to those.

use sea_orm_migration::prelude::*;

use crate::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

const ACTIONS: &[&str] = &["test", "webhook", "transaction", "error", "config_change"];
const OUTCOMES: &[&str] = &["success", "failed", "pending"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            integration_logs(manager),
            integration_counts(),
            integration_receipts(manager),
            integration_webhooks(manager),
            webhook_deliveries(manager),
        ] {
            manager.create_table(table).await?;
        }
        run(
            manager,
            &[
                // With what the begun hours at the ends of a range are counted by.
                "CREATE INDEX integration_logs_by_time ON integration_logs (integration_id, created_at, id, action, status)",
                // What is looked for among the many calls that went well.
                "CREATE INDEX integration_logs_of_rare_actions ON integration_logs \
                 (integration_id, action, created_at, id, status) WHERE action <> 'webhook'",
                "CREATE INDEX integration_logs_not_well ON integration_logs \
                 (integration_id, created_at, id, action, status) WHERE status <> 'success'",
                // The tries of a delivery.
                "CREATE INDEX integration_logs_by_delivery ON integration_logs (delivery_id, id) \
                 WHERE delivery_id IS NOT NULL",
                "CREATE INDEX integration_receipts_by_age ON integration_receipts (received_at)",
                "CREATE INDEX integration_webhooks_by_integration ON integration_webhooks (integration_id, id)",
                "CREATE INDEX integration_webhooks_by_key ON integration_webhooks (secret_key_id, id)",
                "CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, id)",
                // What a webhook's next slice takes: what is new before what is replayed, the oldest of each first.
                "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, priority, next_attempt_at, id) \
                 WHERE status = 'pending'",
                "CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL",
                "CREATE INDEX webhook_deliveries_held ON webhook_deliveries (webhook_id, id) WHERE status = 'held'",
                "CREATE INDEX webhook_deliveries_missed ON webhook_deliveries (webhook_id, id) \
                 WHERE status IN ('held', 'failed')",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [
            "webhook_deliveries",
            "integration_webhooks",
            "integration_receipts",
            "integration_counts",
            "integration_logs",
        ];
        for table in tables {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn belongs_to(name: &'static str, column: &'static str, table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().name(name).from_col(column).to(table, "id").on_delete(ForeignKeyAction::Cascade).take()
}

/// What happened to an integration, append-only. A try of a delivery is an entry too, and names its delivery.
fn integration_logs(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("integration_logs")
        .col(id())
        .col(uuid("integration_id"))
        .col(word("action", 16, ACTIONS))
        .col(word("status", 16, OUTCOMES))
        .col(ColumnDef::new("message").text().not_null())
        .col(json_or_null("request_data"))
        .col(json_or_null("response_data"))
        .col(json_or_null("error_details"))
        .col(ColumnDef::new("duration").integer().null())
        .col(text_or_null("ip_address", 64))
        .col(ColumnDef::new("user_agent").text().null())
        .col(ColumnDef::new("user_id").uuid().null())
        .col(ColumnDef::new("delivery_id").uuid().null())
        // What it is counted as, when not by the class of its failure: it is no request.
        .col(text_or_null("counted_as", 16))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .foreign_key(&mut belongs_to("a_log_entry_belongs_to_an_integration", "integration_id", "partner_integrations"))
        .take()
}

/// How many entries there are of each kind in each minute, hour and day, and ever: what statistics and health are
/// answered from, whatever the length of the history. `timed` entries took `millis` together. `minutes` has a bit for
/// each minute of an hour in which there was one, and is 0 in other spans: so uptime is known to the minute, and no
/// minute has to be read for it. A shard is a writer, so that two of them do not wait for one row.
fn integration_counts() -> TableCreateStatement {
    let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().default(0).take();
    Table::create()
        .table("integration_counts")
        .col(uuid("integration_id"))
        .col(word("span", 8, &["minute", "hour", "day", "total"]))
        .col(ColumnDef::new("starts_at").big_integer().not_null())
        .col(word("action", 16, ACTIONS))
        .col(word("status", 16, OUTCOMES))
        .col(text("error_class", 32).default(""))
        .col(ColumnDef::new("shard").integer().not_null())
        .col(number("count"))
        .col(number("timed"))
        .col(number("millis"))
        .col(number("minutes"))
        .primary_key(
            Index::create()
                .col("integration_id")
                .col("span")
                .col("starts_at")
                .col("action")
                .col("status")
                .col("error_class")
                .col("shard"),
        )
        .foreign_key(&mut belongs_to("counts_belong_to_an_integration", "integration_id", "partner_integrations"))
        .take()
}

/// The callbacks that came, by what tells one from everything else at its provider.
fn integration_receipts(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("integration_receipts")
        .col(uuid("integration_id"))
        .col(text("callback_key", 255))
        .col(uuid("log_id"))
        .col(time_now(manager, "received_at"))
        .primary_key(Index::create().col("integration_id").col("callback_key"))
        .foreign_key(&mut belongs_to("a_receipt_belongs_to_an_integration", "integration_id", "partner_integrations"))
        .take()
}

/// Who is told of an integration's events. Secrets are sealed.
fn integration_webhooks(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("integration_webhooks")
        .col(id())
        .col(uuid("integration_id"))
        .col(text("webhook_url", 2000))
        .col(ColumnDef::new("webhook_secret").text().not_null())
        .col(text("secret_key_id", 32))
        .col(text("secret_masked", 32))
        .col(ColumnDef::new("previous_secret").text().null())
        .col(time("previous_secret_expires_at"))
        .col(ColumnDef::new("events").json_binary().not_null())
        .col(ColumnDef::new("is_active").boolean().not_null().default(true))
        .col(ColumnDef::new("retry_attempts").integer().not_null().default(3))
        .col(ColumnDef::new("retry_delay").integer().not_null().default(60))
        .col(ColumnDef::new("rate_limit").integer().null())
        .col(time("last_triggered_at"))
        .col(
            ColumnDef::new("last_status")
                .string_len(16)
                .null()
                .check(Expr::col("last_status").is_in(OUTCOMES.iter().copied())),
        )
        .col(ColumnDef::new("failure_count").integer().not_null().default(0))
        .col(time("disabled_at"))
        .col(ColumnDef::new("disabled_reason").text().null())
        // The breaker: what was tried and failed since the window began, how often it opened in a row, until when.
        .col(time("breaker_window_at"))
        .col(ColumnDef::new("breaker_tried").integer().not_null().default(0))
        .col(ColumnDef::new("breaker_failed").integer().not_null().default(0))
        .col(ColumnDef::new("breaker_trips").integer().not_null().default(0))
        .col(time("breaker_open_until"))
        // Raised when it begins anew: tries that began before count no more.
        .col(ColumnDef::new("generation").integer().not_null().default(0))
        .col(ColumnDef::new("created_by").uuid().null())
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .foreign_key(&mut belongs_to("a_webhook_belongs_to_an_integration", "integration_id", "partner_integrations"))
        .take()
}

/// An event on its way to one webhook. `payload` is the text that is signed and sent, byte for byte.
fn webhook_deliveries(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("webhook_deliveries")
        .col(id())
        .col(uuid("webhook_id"))
        .col(uuid("integration_id"))
        .col(text("event", 100))
        .col(ColumnDef::new("payload").text().not_null())
        .col(word("status", 16, &["pending", "success", "failed", "held"]))
        .col(ColumnDef::new("priority").integer().not_null().default(0))
        .col(ColumnDef::new("attempts").integer().not_null().default(0))
        // Tries that are over when it was last sent anew: what is left of `retry_attempts` counts from here.
        .col(ColumnDef::new("attempts_before").integer().not_null().default(0))
        .col(time("next_attempt_at"))
        .col(ColumnDef::new("response_status").integer().null())
        .col(text_or_null("error_class", 32))
        .col(ColumnDef::new("is_test").boolean().not_null().default(false))
        .col(time_now(manager, "created_at"))
        .col(time("finished_at"))
        .foreign_key(&mut belongs_to("a_delivery_belongs_to_a_webhook", "webhook_id", "integration_webhooks"))
        .take()
}
