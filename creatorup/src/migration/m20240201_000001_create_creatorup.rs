//! The users of DigiUp, their batches, what these count for, and what the hub has yet to be told.

use sea_orm_migration::prelude::*;
use upbridge_migrations::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(digiup_users(manager)).await?;
        manager.create_table(verified_tokens()).await?;
        manager.create_table(batches(manager)).await?;
        manager.create_table(usage_records(manager)).await?;
        manager.create_table(outbox(manager)).await?;
        run(
            manager,
            &[
                "CREATE UNIQUE INDEX user_is_copied_once ON digiup_users (digiup_user_id)",
                "CREATE INDEX verified_tokens_by_user ON verified_tokens (user_id)",
                "CREATE INDEX verified_tokens_by_expiry ON verified_tokens (expires_at)",
                "CREATE INDEX batches_by_user ON batches (user_id, id)",
                "CREATE UNIQUE INDEX idempotency_key_is_used_once ON batches (user_id, idempotency_key) \
                 WHERE idempotency_key IS NOT NULL",
                "CREATE UNIQUE INDEX batch_counts_once ON usage_records (batch_id)",
                "CREATE INDEX usage_records_by_month ON usage_records (user_id, month_year)",
                "CREATE INDEX usage_records_unreported ON usage_records (batch_id) WHERE reported_at IS NULL",
                "CREATE UNIQUE INDEX event_is_told_once ON outbox (event_id)",
                "CREATE INDEX outbox_by_batch ON outbox (batch_id)",
                "CREATE INDEX outbox_unsent ON outbox (state) WHERE state <> 'sent'",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["outbox", "usage_records", "batches", "verified_tokens", "digiup_users"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

/// CreatorUp's copies of DigiUp's users.
fn digiup_users(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("digiup_users")
        .col(id())
        .col(uuid("digiup_user_id"))
        .col(text("email", 255))
        .col(text("name", 255).default(""))
        .col(text_or_null("username", 255))
        .col(text("role", 50))
        .col(text("status", 50))
        .col(text_or_null("plan", 255))
        .col(text_or_null("subscription_status", 50))
        .col(time("subscription_ends_at"))
        .col(json_or_null("details"))
        .col(ColumnDef::new("as_of").timestamp_with_time_zone().not_null())
        .col(time_now(manager, "synced_at"))
        .col(time_now(manager, "created_at"))
        .take()
}

/// Digests of tokens the hub found good: who calls is known from these while the hub is away.
fn verified_tokens() -> TableCreateStatement {
    Table::create()
        .table("verified_tokens")
        .col(text("digest", 64).primary_key())
        .col(uuid("user_id"))
        .col(ColumnDef::new("expires_at").timestamp_with_time_zone().not_null())
        .col(ColumnDef::new("verified_at").timestamp_with_time_zone().not_null())
        .foreign_key(&mut belongs_to("verified_token_belongs_to_user", "user_id", "digiup_users"))
        .take()
}

const STATUSES: &[&str] = &["pending", "processing", "completed", "failed", "cancelled"];

/// What users want rendered, and what became of it.
fn batches(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("batches")
        .col(id())
        .col(uuid("user_id"))
        .col(text("name", 255))
        .col(text("batch_type", 50))
        .col(text("usage_type", 50))
        .col(word("status", 50, STATUSES))
        .col(ColumnDef::new("progress").integer().not_null().default(0))
        .col(ColumnDef::new("inputs").json_binary().not_null())
        .col(json_or_null("metadata"))
        .col(ColumnDef::new("videos").json_binary().not_null())
        .col(ColumnDef::new("error").text().null())
        .col(text_or_null("idempotency_key", 255))
        .col(ColumnDef::new("job_id").uuid().null())
        .col(time_now(manager, "created_at"))
        .col(time("started_at"))
        .col(time("finished_at"))
        .foreign_key(&mut belongs_to("batch_belongs_to_user", "user_id", "digiup_users"))
        .take()
}

/// What a batch counts for. `accepted_at` is when the hub counted it first, `reported_at` when the hub knew all of it.
fn usage_records(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("usage_records")
        .col(id())
        .col(uuid("user_id"))
        .col(uuid("batch_id"))
        .col(text("batch_type", 50))
        .col(text("usage_type", 50))
        .col(ColumnDef::new("usage_amount").integer().not_null().check(Expr::col("usage_amount").gte(1)))
        .col(text("month_year", 7))
        .col(time("accepted_at"))
        .col(time("reported_at"))
        .col(time_now(manager, "created_at"))
        .foreign_key(&mut belongs_to("usage_belongs_to_user", "user_id", "digiup_users"))
        .foreign_key(&mut belongs_to("usage_belongs_to_batch", "batch_id", "batches"))
        .take()
}

/// Webhooks for the hub, with the very bytes that are sent.
fn outbox(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("outbox")
        .col(id())
        .col(text("event", 50))
        .col(text("event_id", 255))
        .col(uuid("digiup_user_id"))
        .col(ColumnDef::new("batch_id").uuid().null())
        .col(ColumnDef::new("body").text().not_null())
        .col(word("state", 16, &["pending", "sent", "failed"]))
        .col(ColumnDef::new("attempts").integer().not_null().default(0))
        .col(ColumnDef::new("last_error").text().null())
        .col(text_or_null("receipt", 255))
        .col(time_now(manager, "created_at"))
        .col(time("sent_at"))
        .take()
}

/// A foreign key whose rows go with what they belong to.
fn belongs_to(name: &'static str, column: &'static str, table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().name(name).from_col(column).to(table, "id").on_delete(ForeignKeyAction::Cascade).take()
}
