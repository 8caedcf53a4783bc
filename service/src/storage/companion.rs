//! What a server records beside its jobs, and what becomes of it with them.

use futures::future::BoxFuture;
use sea_orm::DbErr;
use uuid::Uuid;

use super::WriteTx;
use crate::model::job::Fate;
use crate::model::{Instant, Result};

/// Keeps the records that stand and fall with jobs: a job names one by its `event_id`, and the record completes, fails
/// and is opened again with the job, in the same transaction.
///
/// The queue knows nothing of a record but its id. It says what became of records in sets, so an implementation owes each
/// call a bounded number of statements, however many ids it is given. A record that does not stand where the call expects
/// it (one that completed before, or was removed) stays as it is.
pub trait Companion: Send + Sync + 'static {
    /// Has its turn before COMMIT, when something was collected with [`WriteTx::extra`]: takes it out with
    /// [`WriteTx::take_extra`] and writes it. The jobs of the transaction are written after it.
    fn write<'a>(&'a self, tx: &'a mut WriteTx) -> BoxFuture<'a, Result<(), DbErr>>;

    /// Moves pending records on: each completes, fails, or stays pending with one more try noted.
    fn settle<'a>(&'a self, tx: &'a mut WriteTx, fates: &'a [Fate], now: Instant) -> BoxFuture<'a, Result<()>>;

    /// Makes failed records pending again, with all their tries, because their dead letters are driven again.
    fn reopen<'a>(&'a self, tx: &'a mut WriteTx, ids: &'a [Uuid], now: Instant) -> BoxFuture<'a, Result<()>>;
}

/// For a server whose jobs have no records.
impl Companion for () {
    fn write<'a>(&'a self, _: &'a mut WriteTx) -> BoxFuture<'a, Result<(), DbErr>> {
        Box::pin(async { Ok(()) })
    }

    fn settle<'a>(&'a self, _: &'a mut WriteTx, _: &'a [Fate], _: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn reopen<'a>(&'a self, _: &'a mut WriteTx, _: &'a [Uuid], _: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
