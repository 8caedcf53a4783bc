//! Users with their CreatorUp fields, the usage ledger, and the record of what has to reach the other side.

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
        manager.create_table(users(manager)).await?;
        manager.create_table(creatorup_usage(manager)).await?;
        manager.create_table(usage_revisions(manager)).await?;
        manager.create_table(usage_monthly(manager)).await?;
        manager.create_table(sync_events(manager)).await?;
        let owner = user_in_index(manager);
        run(
            manager,
            &[
                // E-mail addresses are stored in lower case; handles keep the case their owner chose.
                "CREATE UNIQUE INDEX username_is_unique ON users (lower(username)) WHERE username IS NOT NULL",
                // The sweep walks those who are behind by id, and takes the oldest copies first.
                "CREATE INDEX users_by_sync_status ON users (sync_status, id)",
                "CREATE INDEX users_by_creatorup_synced_at ON users (creatorup_synced_at) WHERE sync_status = 'synced'",
                "CREATE INDEX users_by_created_at ON users (created_at)",
                // Keys and names come first: they are made in the order of time, so what is recorded together lies
                // on the same pages whoever it belongs to, and a commit writes a few of them instead of one per user.
                &format!(
                    "CREATE UNIQUE INDEX usage_key_is_unique ON creatorup_usage (idempotency_key, {owner}) \
                     WHERE idempotency_key IS NOT NULL"
                ),
                &format!(
                    "CREATE UNIQUE INDEX usage_name_is_unique_without_key ON creatorup_usage \
                     (batch_name, {owner}, batch_type, usage_type, month_year) WHERE idempotency_key IS NULL"
                ),
                // Only what narrows the search: every record is written here too.
                &format!(
                    "CREATE INDEX usage_by_name_with_key ON creatorup_usage (batch_name, {owner}, month_year) \
                     WHERE idempotency_key IS NOT NULL"
                ),
                "CREATE INDEX usage_by_month ON creatorup_usage (user_id, month_year, id)",
                "CREATE UNIQUE INDEX usage_revision_is_unique ON usage_revisions (usage_id, revision)",
                // Usage has the ledger; what is asked for by user are the events that reach CreatorUp.
                "CREATE INDEX sync_events_by_user ON sync_events (user_id, id) WHERE event_type <> 'usage_sync'",
                "CREATE INDEX sync_events_unfinished ON sync_events (status, created_at) WHERE status <> 'completed'",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["sync_events", "usage_monthly", "usage_revisions", "creatorup_usage", "users"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn users(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("users")
        .col(id())
        .col(text("email", 255).unique_key())
        .col(text("name", 255).default(""))
        .col(text_or_null("username", 64))
        .col(word("role", 16, &["admin", "member", "reseller", "pro_reseller"]).default("member"))
        .col(word("status", 16, &["active", "inactive"]).default("active"))
        .col(text("password_hash", 255))
        .col(ColumnDef::new("purchased_courses").json_binary().not_null().default("[]"))
        .col(time("creatorup_synced_at"))
        .col(text_or_null("creatorup_user_id", 255))
        .col(time("last_creatorup_access"))
        .col(word("sync_status", 50, &["pending", "synced", "error"]).default("pending"))
        .col(json_or_null("creatorup_metadata"))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .take()
}

fn creatorup_usage(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("creatorup_usage")
        .col(id())
        .col(uuid("user_id"))
        .col(text("creatorup_user_id", 255).default(""))
        .col(text("batch_name", 255))
        .col(text("batch_type", 50))
        .col(text("usage_type", 50))
        .col(ColumnDef::new("usage_amount").integer().not_null().default(1).check(Expr::col("usage_amount").gt(0)))
        .col(text("month_year", 7))
        .col(time_now(manager, "completed_at"))
        .col(ColumnDef::new("completion_reported").boolean().not_null().default(true))
        .col(json_or_null("metadata"))
        .col(text_or_null("idempotency_key", 255))
        .col(text("source", 50).default("record_usage"))
        .col(ColumnDef::new("revision").integer().not_null().default(0))
        .col(time_now(manager, "synced_at"))
        .col(time_now(manager, "created_at"))
        .foreign_key(&mut belongs_to_user("usage_belongs_to_user"))
        .take()
}

/// The values a record had before each amendment.
fn usage_revisions(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("usage_revisions")
        .col(id())
        .col(uuid("usage_id"))
        .col(ColumnDef::new("revision").integer().not_null())
        .col(text("batch_name", 255))
        .col(text("batch_type", 50))
        .col(text("usage_type", 50))
        .col(ColumnDef::new("usage_amount").integer().not_null())
        .col(text("month_year", 7))
        .col(time_now(manager, "completed_at"))
        .col(ColumnDef::new("completion_reported").boolean().not_null())
        .col(json_or_null("metadata"))
        .col(text_or_null("idempotency_key", 255))
        .col(time_now(manager, "replaced_at"))
        .foreign_key(
            ForeignKey::create()
                .name("revision_belongs_to_usage")
                .from_col("usage_id")
                .to("creatorup_usage", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .take()
}

/// The ledger's monthly sums: a cache that the ledger alone can rebuild.
fn usage_monthly(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("usage_monthly")
        .col(uuid("user_id"))
        .col(text("month_year", 7))
        .col(text("usage_type", 50))
        .col(text("batch_type", 50))
        .col(ColumnDef::new("amount").big_integer().not_null())
        .col(ColumnDef::new("batches").big_integer().not_null())
        .col(time_now(manager, "updated_at"))
        .primary_key(Index::create().col("user_id").col("month_year").col("usage_type").col("batch_type"))
        .foreign_key(&mut belongs_to_user("monthly_usage_belongs_to_user"))
        .take()
}

/// No foreign key to the user: the record of what happened outlives them.
fn sync_events(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("sync_events")
        .col(id())
        .col(text("event_type", 50))
        .col(ColumnDef::new("user_id").uuid().null())
        .col(word("status", 50, &["pending", "completed", "failed"]).default("pending"))
        .col(json_or_null("payload"))
        .col(json_or_null("response"))
        .col(ColumnDef::new("error_message").text().null())
        .col(ColumnDef::new("retry_count").integer().not_null().default(0))
        .col(ColumnDef::new("max_retries").integer().not_null().default(3))
        .col(time("processed_at"))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .take()
}
