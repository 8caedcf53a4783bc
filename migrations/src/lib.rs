//! The hub's schema, and the queue's tables, which every server of the house has. Every migration is one text for SQLite
//! and PostgreSQL, additive and reversible.
//!
//! Times are written by the application, in UTC, cut to microseconds, because the two databases disagree on what
//! `CURRENT_TIMESTAMP` is; the column defaults exist for rows made by hand and use the same format.
//! Constraints are named after the invariant they keep.

mod m20240101_000001_add_creatorup_integration;
mod m20240102_000001_add_membership_and_batch_models;
mod m20240103_000001_add_sessions_and_audit;
mod m20240104_000001_add_event_queue;
mod m20240105_000001_add_webhooks_and_alerts;
mod m20260221_000001_create_integrations;
mod m20260221_000002_create_integration_enhancements;
mod m20261121_000001_find_webhooks_once_settled;
pub mod queue;
pub mod table;

use std::pin::Pin;

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

/// Every migration, oldest first.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20240101_000001_add_creatorup_integration::Migration),
            Box::new(m20240102_000001_add_membership_and_batch_models::Migration),
            Box::new(m20240103_000001_add_sessions_and_audit::Migration),
            Box::new(m20240104_000001_add_event_queue::Migration),
            Box::new(m20240105_000001_add_webhooks_and_alerts::Migration),
            Box::new(m20260221_000001_create_integrations::Migration),
            Box::new(m20260221_000002_create_integration_enhancements::Migration),
            Box::new(m20261121_000001_find_webhooks_once_settled::Migration),
        ]
    }
}

/// Which way to migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Apply whatever is pending.
    Up,
    /// Undo the newest `n`.
    Down(u32),
}

/// A migration and whether it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The migration's name.
    pub name: String,
    /// Whether it is applied.
    pub applied: bool,
}

/// Any number nobody else uses: it names the lock that servers starting at once on one database take in turn.
const ADVISORY_LOCK: i64 = 0x0075_7062_7269_6467;

type Done<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'a>>;

/// The migrations of one server, as a value.
#[derive(Clone, Copy)]
pub struct Migrations {
    go: for<'a> fn(&'a DatabaseConnection, Direction) -> Done<'a, ()>,
    applied: for<'a> fn(&'a DatabaseConnection) -> Done<'a, Vec<String>>,
    all: fn() -> Vec<Box<dyn MigrationTrait>>,
}

impl Migrations {
    /// Those of a migrator.
    pub const fn of<M: MigratorTrait>() -> Migrations {
        Migrations { go: go::<M>, applied: applied::<M>, all: M::migrations }
    }

    /// Migrates, one process at a time.
    ///
    /// `lock` must be a second connection to the same database, of exactly one session. PostgreSQL holds the advisory
    /// lock on it, because concurrent `CREATE TABLE` statements fail there even with `IF NOT EXISTS`. SQLite needs no
    /// lock here: its caller holds one on the file.
    pub async fn run(
        &self,
        db: &DatabaseConnection,
        lock: &DatabaseConnection,
        direction: Direction,
    ) -> Result<(), DbErr> {
        let postgres = lock.get_database_backend() == DbBackend::Postgres;
        let call = |function: &str| {
            Statement::from_string(DbBackend::Postgres, format!("SELECT {function}({ADVISORY_LOCK})::text"))
        };
        if postgres {
            lock.query_one_raw(call("pg_advisory_lock")).await?;
        }
        let result = (self.go)(db, direction).await;
        if postgres {
            lock.query_one_raw(call("pg_advisory_unlock")).await?;
        }
        result
    }

    /// Lists every migration and whether it is applied, without changing anything.
    pub async fn status(&self, db: &DatabaseConnection) -> Result<Vec<Standing>, DbErr> {
        // On an untouched database even the table of migrations is missing, and asking must not create it.
        let exists = SchemaManager::new(db).has_table("seaql_migrations").await?;
        let applied = if exists { (self.applied)(db).await? } else { Vec::new() };
        let standing = |name: &str| Standing { name: name.to_owned(), applied: applied.iter().any(|one| one == name) };
        Ok((self.all)().iter().map(|migration| standing(migration.name())).collect())
    }
}

fn go<M: MigratorTrait>(db: &DatabaseConnection, direction: Direction) -> Done<'_, ()> {
    Box::pin(async move {
        match direction {
            Direction::Up => M::up(db, None).await,
            Direction::Down(steps) => M::down(db, Some(steps)).await,
        }
    })
}

fn applied<M: MigratorTrait>(db: &DatabaseConnection) -> Done<'_, Vec<String>> {
    Box::pin(async move { Ok(M::get_applied_migrations(db).await?.iter().map(|one| one.name().to_owned()).collect()) })
}
