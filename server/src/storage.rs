//! How the hub's nouns are kept: with the service crate's storage, the only room that knows SeaORM.
//!
//! The store, its writer and the queue's tables are those of [`upbridge_service::storage`], where their essay stands.
//! Here is a file per noun of the hub: its functions take a connection or a `&mut WriteTx` and never open a transaction.
//! [`sync_event`] keeps the record of what has to reach the other side; as the store's companion it has an event commit
//! with the write that caused it, and stand and fall with its job.

pub mod alert;
pub mod analytics;
pub mod archive;
pub mod audit;
pub mod callback;
pub mod connection;
mod entity;
pub mod hook;
pub mod hook_delivery;
pub mod integration;
pub mod integration_count;
pub mod integration_health;
pub mod integration_log;
pub mod partner;
pub mod plan;
pub mod retention;
mod row;
pub mod sealed;
pub mod session;
mod stretch;
pub mod subscription;
pub mod sync_event;
pub mod usage;
pub mod user;
pub mod user_sync;
pub mod webhook;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use upbridge_migrations::{Direction, Migrations, Migrator, Standing};
use upbridge_service::storage as service;
use upbridge_service::storage::rows;
pub use upbridge_service::storage::{Batch, Lane, Options, PATIENCE, Setup, Store, WriteTx, dialect, job, status};
use upbridge_service::storage::{asked, fault, taken};

use crate::model::Result;
use crate::model::kind::KINDS;
pub use sync_event::Emit;

const MIGRATIONS: Migrations = Migrations::of::<Migrator>();

/// Running counts.
pub mod tally {
    pub use super::stretch::over;
    pub use upbridge_service::storage::tally::*;
}

/// Opens the hub's store; see [`Store::open`].
pub async fn open(options: &Options, stop: CancellationToken) -> Result<Store> {
    let companion = Arc::new(sync_event::Companion);
    Store::open(options, Setup { migrations: MIGRATIONS, kinds: &KINDS, companion }, stop).await
}

/// Runs a migration command without opening the store.
pub async fn migrate(options: &Options, direction: Direction) -> Result<()> {
    service::migrate(options, MIGRATIONS, direction).await
}

/// Lists the migrations and whether they are applied.
pub async fn migration_status(options: &Options) -> Result<Vec<Standing>> {
    service::migration_status(options, MIGRATIONS).await
}
