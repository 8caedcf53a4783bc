//! The transaction a write is made in, and the only key to events.

use sea_orm::{DatabaseTransaction, DbErr};

use super::dialect::Dialect;
use super::sync_event;
use crate::model::event::NewEvent;

/// A write in progress. It may share its transaction with the writes of other callers.
pub struct WriteTx {
    transaction: DatabaseTransaction,
    dialect: Dialect,
    wrote: bool,
    events: Vec<NewEvent>,
    effects: Vec<Box<dyn FnOnce() + Send + Sync>>,
}

impl WriteTx {
    pub(super) fn new(transaction: DatabaseTransaction, dialect: Dialect) -> WriteTx {
        WriteTx { transaction, dialect, wrote: false, events: Vec::new(), effects: Vec::new() }
    }

    /// The connection, for statements that read.
    pub fn reader(&self) -> &DatabaseTransaction {
        &self.transaction
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The connection, for statements that write. From here on an error must undo the whole transaction.
    pub(super) fn connection(&mut self) -> &DatabaseTransaction {
        self.wrote = true;
        &self.transaction
    }

    /// Records what happened, in this transaction: there is no other way to, so a write and its event commit
    /// together or not at all.
    pub fn emit(&mut self, event: NewEvent) {
        self.wrote = true;
        self.events.push(event);
    }

    /// Runs `effect` after COMMIT and before the caller is answered. It must be quick and cannot fail: forgetting
    /// what a cache held is what it is for.
    pub fn after_commit(&mut self, effect: impl FnOnce() + Send + Sync + 'static) {
        self.effects.push(Box::new(effect));
    }

    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    pub(super) fn forget_wrote(&mut self) {
        self.wrote = false;
    }

    /// Writes the events and commits; answers with what is to be done next.
    pub(super) async fn commit(mut self) -> Result<Vec<Box<dyn FnOnce() + Send + Sync>>, DbErr> {
        let events = std::mem::take(&mut self.events);
        sync_event::insert(&mut self, &events).await?;
        self.transaction.commit().await?;
        Ok(self.effects)
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        self.transaction.rollback().await
    }
}
