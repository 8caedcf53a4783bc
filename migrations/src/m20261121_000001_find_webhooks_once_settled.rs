//! Webhooks are found by their user from when they are settled.
//!
//! An index that a user leads has another page for almost every webhook of a commit, and writing those pages was a
//! quarter of what a commit costs. What was received and is not settled yet is in an index by time, whose newest page
//! takes all of a commit; whoever looks for a user's walks through what waits, which is little or soon will be. Settling
//! moves them to the index by user, in the large sets that jobs are settled in, and nobody waits for that.

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
        run(
            manager,
            &[
                "CREATE INDEX webhook_logs_received ON webhook_logs (id, user_id) WHERE status = 'received'",
                "CREATE INDEX webhook_logs_settled_by_user ON webhook_logs (user_id, id) \
                 WHERE user_id IS NOT NULL AND status <> 'received'",
                "DROP INDEX webhook_logs_by_user",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "CREATE INDEX webhook_logs_by_user ON webhook_logs (user_id, id) WHERE user_id IS NOT NULL",
                "DROP INDEX webhook_logs_settled_by_user",
                "DROP INDEX webhook_logs_received",
            ],
        )
        .await
    }
}
