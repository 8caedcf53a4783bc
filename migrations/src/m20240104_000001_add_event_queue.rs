//! The event queue: what is remembered for later, who works on it, and the running counts of everything.

use sea_orm_migration::prelude::*;

use crate::queue;
use crate::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        queue::create(manager).await?;
        // Made in the order of time, so that a feed of what changed is a range of it.
        run(manager, &["CREATE INDEX sync_events_by_change ON sync_events (updated_at, id)"]).await?;
        count_what_is_there(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP INDEX sync_events_by_change"]).await?;
        queue::drop(manager).await
    }
}

/// What was written before there were running counts. Shard 0 counts it; any shard would do.
async fn count_what_is_there(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let insert = "INSERT INTO tallies (metric, span, starts_at, label, shard, count, amount)";
    let users =
        format!("{insert} SELECT 'users', 'total', 0, sync_status, 0, COUNT(*), 0 FROM users GROUP BY sync_status");
    let mut statements = vec![users];
    let (created_at, completed_at) = (unix_seconds(manager, "created_at"), unix_seconds(manager, "completed_at"));
    let month = unix_month(manager, "month_year");
    for (span, seconds) in [("minute", 60), ("hour", 3_600), ("day", 86_400)] {
        statements.push(format!(
            "{insert} SELECT 'events', '{span}', {created_at} / {seconds} * {seconds} AS starts_at, \
             event_type || '.' || status AS label, 0, COUNT(*), 0 FROM sync_events GROUP BY 3, 4"
        ));
    }
    // A record whose month is not that of its completion counts at the first instant of its month.
    let completed_month = month_of(manager, "completed_at");
    let at = format!("CASE WHEN {completed_month} = month_year THEN {completed_at} ELSE {month} END");
    for (span, starts_at) in [
        ("hour", format!("({at}) / 3600 * 3600")),
        ("day", format!("({at}) / 86400 * 86400")),
        ("month", month.clone()),
    ] {
        statements.push(format!(
            "{insert} SELECT 'usage', '{span}', {starts_at} AS starts_at, usage_type, 0, COUNT(*), \
             CAST(SUM(usage_amount) AS BIGINT) FROM creatorup_usage GROUP BY 3, 4"
        ));
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    run(manager, &statements).await
}
