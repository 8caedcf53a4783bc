//! Sessions that can be ended, and the append-only record of what administrators changed.

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
        manager.create_table(sessions(manager)).await?;
        manager.create_table(audit_log(manager)).await?;
        run(
            manager,
            &[
                "CREATE INDEX sessions_by_user ON sessions (user_id, id)",
                "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
                "CREATE INDEX audit_log_by_target ON audit_log (target_kind, target_id, id)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("audit_log").to_owned()).await?;
        manager.drop_table(Table::drop().table("sessions").to_owned()).await
    }
}

/// A session's id is the `jti` of its token; the token itself is kept nowhere.
fn sessions(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("sessions")
        .col(id())
        .col(uuid("user_id"))
        .col(time_now(manager, "created_at"))
        .col(ColumnDef::new("expires_at").timestamp_with_time_zone().not_null())
        .col(time("revoked_at"))
        .col(text("ip_address", 64).default(""))
        .col(text("user_agent", 255).default(""))
        .foreign_key(&mut belongs_to_user("session_belongs_to_user"))
        .take()
}

/// No foreign keys: the record outlives those it is about.
fn audit_log(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("audit_log")
        .col(id())
        .col(ColumnDef::new("actor_id").uuid().null())
        .col(text("actor_kind", 16))
        .col(text("action", 64))
        .col(text("target_kind", 32))
        .col(text("target_id", 64))
        .col(json_or_null("changes"))
        .col(text("ip_address", 64).default(""))
        .col(text("request_id", 64).default(""))
        .col(time_now(manager, "created_at"))
        .take()
}
