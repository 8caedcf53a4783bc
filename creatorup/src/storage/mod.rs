//! How things are kept: the only room that knows the database. The store, its one writer and the queue's rows are the
//! house's ([`upbridge_service::storage`]); the tables here are CreatorUp's own.
//!
//! Functions take a connection, or a [`WriteTx`] when they write, and never open a transaction. Whoever decides over a
//! batch in a transaction holds its row first, because several servers may share a PostgreSQL database.

pub mod batch;
mod entity;
pub mod outbox;
pub mod token;
pub mod usage;
pub mod user;

use sea_orm::ConnectionTrait;
use upbridge_service::storage::asked;
pub use upbridge_service::storage::{Companion, Setup, Store, WriteTx, job};
use uuid::Uuid;

use crate::model::{Error, Result};

/// Holds a row until the transaction ends, where somebody else could change it meanwhile.
async fn hold(tx: &mut WriteTx, table: &str, column: &str, id: Uuid) -> Result<()> {
    let dialect = tx.dialect();
    let Some(clause) = dialect.hold_rows() else { return Ok(()) };
    let query = dialect.statement(format!("SELECT {column} FROM {table} WHERE {column} = $1 {clause}"), [id.into()]);
    asked(tx.reader().query_one_raw(query)).await.map(drop)
}

fn word<T>(column: &str, word: &str, parse: fn(&str) -> Option<T>) -> Result<T> {
    parse(word).ok_or_else(|| Error::internal(format!("column {column} holds the unknown word {word:?}")))
}
