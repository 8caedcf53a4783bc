//! The queue's tables: jobs, who works on them, and the running counts. Every server that has a queue makes them from this
//! one text, in a migration of its own.

use sea_orm_migration::prelude::*;

use crate::table::*;

/// Makes the tables with their indexes; to be called in the `up` of a server's migration.
pub async fn create(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager.create_table(jobs(manager)).await?;
    manager.create_table(finished_jobs(manager)).await?;
    manager.create_table(workers(manager)).await?;
    manager.create_table(paused_kinds(manager)).await?;
    manager.create_table(schedules()).await?;
    manager.create_table(tallies()).await?;
    run(
        manager,
        &[
            // What a claim reads is in the order it is claimed in, and nothing else is in it: its cost does not
            // depend on how much waits, runs or is over.
            "CREATE INDEX jobs_ready ON jobs (kind, priority, turn, id) WHERE state = 'ready'",
            "CREATE INDEX jobs_scheduled ON jobs (run_at) WHERE state = 'scheduled'",
            "CREATE INDEX jobs_held ON jobs (kind, queue_key, priority, turn) WHERE state = 'held'",
            "CREATE INDEX jobs_running ON jobs (kind, queue_key) WHERE state = 'running'",
            "CREATE UNIQUE INDEX waiting_job_is_unique ON jobs (kind, unique_key) \
             WHERE unique_key IS NOT NULL AND state <> 'running'",
            "CREATE INDEX finished_jobs_by_state ON finished_jobs (state, finished_at, id)",
        ],
    )
    .await?;
    // Every job leaves a dead row or two within a second; the defaults would let them pile up to a fifth of a large
    // table before they are swept.
    run_on_postgres(
        manager,
        &["ALTER TABLE jobs SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, \
           autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)"],
    )
    .await
}

/// Removes them with what they hold; to be called in the `down` of that migration.
pub async fn drop(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for table in ["tallies", "schedules", "paused_kinds", "workers", "finished_jobs", "jobs"] {
        manager.drop_table(Table::drop().table(table).to_owned()).await?;
    }
    Ok(())
}

const STATES: &[&str] = &["scheduled", "ready", "held", "running"];

/// What is not over yet. Small on purpose: what is over leaves this table.
fn jobs(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("jobs")
        .col(id())
        .col(text("kind", 50))
        .col(text("queue_key", 255).default(""))
        .col(text_or_null("unique_key", 255))
        .col(word("state", 16, STATES))
        .col(ColumnDef::new("priority").integer().not_null())
        .col(ColumnDef::new("turn").big_integer().not_null())
        .col(time_now(manager, "run_at"))
        .col(json_or_null("payload"))
        .col(ColumnDef::new("event_id").uuid().null())
        .col(ColumnDef::new("attempts").integer().not_null().default(0))
        .col(ColumnDef::new("max_retries").integer().not_null())
        .col(ColumnDef::new("rescues").integer().not_null().default(0))
        .col(ColumnDef::new("lease").big_integer().not_null().default(0))
        .col(ColumnDef::new("worker_id").uuid().null())
        .col(time("started_at"))
        .col(json_or_null("errors"))
        .col(time_now(manager, "created_at"))
        .take()
}

/// The newest of what is over: done, dead (the dead letters) and cancelled.
fn finished_jobs(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("finished_jobs")
        .col(id())
        .col(text("kind", 50))
        .col(text("queue_key", 255).default(""))
        .col(text_or_null("unique_key", 255))
        .col(word("state", 16, &["done", "dead", "cancelled"]))
        .col(ColumnDef::new("priority").integer().not_null())
        .col(json_or_null("payload"))
        .col(ColumnDef::new("event_id").uuid().null())
        .col(ColumnDef::new("attempts").integer().not_null())
        .col(ColumnDef::new("max_retries").integer().not_null())
        .col(ColumnDef::new("rescues").integer().not_null())
        .col(ColumnDef::new("lease").big_integer().not_null())
        .col(json_or_null("errors"))
        .col(time_now(manager, "created_at"))
        .col(time("started_at"))
        .col(time_now(manager, "finished_at"))
        .take()
}

/// One row per start of a hub: identity is per incarnation, so that a restart never revives its predecessor's leases.
fn workers(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("workers")
        .col(id())
        .col(text("name", 255).default(""))
        .col(time_now(manager, "started_at"))
        .col(time_now(manager, "beat_at"))
        .take()
}

fn paused_kinds(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create().table("paused_kinds").col(text("kind", 50).primary_key()).col(time_now(manager, "paused_at")).take()
}

/// The newest slot of each thing that is done at intervals; whoever moves it first does it, on one hub only.
fn schedules() -> TableCreateStatement {
    Table::create()
        .table("schedules")
        .col(text("name", 50).primary_key())
        .col(ColumnDef::new("slot").big_integer().not_null())
        .take()
}

/// Running counts, kept in the transaction of what they count. `starts_at` is unix seconds of the bucket's start.
/// Each hub counts in a shard of its own, so that hubs do not wait for each other's rows; a reader adds them up.
fn tallies() -> TableCreateStatement {
    Table::create()
        .table("tallies")
        .col(text("metric", 24))
        .col(text("span", 8))
        .col(ColumnDef::new("starts_at").big_integer().not_null())
        .col(text("label", 96))
        .col(ColumnDef::new("shard").integer().not_null())
        .col(ColumnDef::new("count").big_integer().not_null())
        .col(ColumnDef::new("amount").big_integer().not_null())
        .primary_key(Index::create().col("metric").col("span").col("starts_at").col("label").col("shard"))
        .take()
}
