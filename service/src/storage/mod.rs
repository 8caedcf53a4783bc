//! How things are kept: the only room that knows SeaORM.
//!
//! The cast: [`Store`] holds a pool of readers and the one [`Writer`]; [`WriteTx`] is
//! what a write is made in, and the only key to jobs; [`dialect`] is the only place that asks which database it is.
//! Functions of the other files take a connection or a `&mut WriteTx` and never open a transaction. The tables here are
//! the queue's; a server has a storage room of its own for its nouns, on the same tools.
//!
//! Guaranteed: a write that was answered is on disk (SQLite `synchronous=FULL`, PostgreSQL `synchronous_commit`);
//! a write, its jobs and what stands and falls with them ([`Companion`]) commit together or not at all; a read made
//! after an answer sees the write.
//! Not guaranteed: that what several servers on one database keep at hand is as new as each other's newest writes.

mod companion;
pub mod dialect;
mod hint;
pub mod job;
mod pool;
pub mod rows;
pub mod status;
pub mod tally;
pub mod tx;
pub mod writer;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rand::Rng;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, RuntimeErr, SqlErr};
use tokio_util::sync::CancellationToken;
use upbridge_migrations::{Direction, Migrations, Standing};
use uuid::Uuid;

use crate::model::job::{Kind, Kinds};
use crate::model::{Error, Result};
pub use companion::Companion;
use dialect::{Dialect, FileLock};
use job::turn::Turns;
use pool::Pool;
use tx::Common;
pub use tx::WriteTx;
use writer::Writer;
pub use writer::{Batch, Lane};

/// How long a transaction may take, of those that a server makes while it serves.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a statement may take, whoever waits for it: for what runs unattended, which nothing else would end.
const LONGEST: Duration = Duration::from_secs(600);

/// The database of one server.
pub struct Store {
    dialect: Dialect,
    read: Arc<Pool>,
    write: Arc<Pool>,
    writer: Writer,
    common: Arc<Common>,
    _lock: Option<FileLock>,
}

/// How to open a [`Store`].
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite://path?mode=rwc` or `postgres://…`.
    pub url: String,
    /// Connections for reading, at most.
    pub read_connections: u32,
    /// How long to wait for a connection, or for a locked database.
    pub wait: Duration,
    /// Tries after the first of a job that does not say (`MAX_SYNC_RETRIES`).
    pub max_retries: i32,
    /// How long a transaction on PostgreSQL may take before its connection is given up: what is on its way through a
    /// network that swallows it is never answered.
    pub patience: Duration,
}

/// What a server brings to its store, the same at every start.
#[derive(Clone)]
pub struct Setup {
    /// Its schema. The queue's tables are part of it; `upbridge_migrations::queue` makes them.
    pub migrations: Migrations,
    /// Its kinds of job; a stored word that is none of them is a fault.
    pub kinds: Kinds,
    /// What keeps the records that stand and fall with jobs.
    pub companion: Arc<dyn Companion>,
}

impl Store {
    /// Connects, brings the schema up to date, and starts the writer, which ends with `stop` after its queue is empty.
    ///
    /// On SQLite the file is claimed for this process, the pragmas are read back and the library's version is
    /// checked: a server that could lose an acknowledged write does not start.
    pub async fn open(options: &Options, setup: Setup, stop: CancellationToken) -> Result<Store> {
        check_kinds(setup.kinds)?;
        let dialect = Dialect::of(&options.url)?;
        let lock = dialect.claim(&options.url)?;
        let write = Pool::open(dialect, options, false, &stop).await?;
        dialect.migrate(write.get(), options, setup.migrations, Direction::Up).await?;
        let read = Pool::open(dialect, options, true, &stop).await?;
        dialect.check(read.get()).await?;
        dialect.check(write.get()).await?;
        let common = Arc::new(Common {
            dialect,
            kinds: setup.kinds,
            companion: setup.companion,
            candidates: job::candidates_sql(dialect, setup.kinds),
            shard: rand::rng().random_range(0..tally::SHARDS),
            max_retries: options.max_retries,
            patience: (dialect == Dialect::Postgres).then_some(options.patience),
            turns: Turns::default(),
            ready: tokio::sync::Notify::new(),
            announce: tokio::sync::Notify::new(),
            changed: tokio::sync::watch::Sender::new(()),
            cancelled: Mutex::default(),
            feed: job::Feed::default(),
            listeners: job::Listeners::default(),
        });
        let writer = Writer::start(write.clone(), common.clone(), stop)?;
        let store = Store { dialect, read, write, writer, common, _lock: lock };
        store.learn_turns().await?;
        Ok(store)
    }

    /// Learns which turns the queue has come to, by whichever hub's claims.
    pub async fn learn_turns(&self) -> Result<()> {
        for (kind, turn) in job::turns_reached(self.read(), self.dialect, self.common.kinds).await? {
            self.common.turns.reached(kind, turn);
        }
        Ok(())
    }

    /// The readers.
    pub fn read(&self) -> &DatabaseConnection {
        self.read.get()
    }

    /// How long a transaction may take before its connection is given up; `None` where no network is in between.
    pub fn patience(&self) -> Option<Duration> {
        self.common.patience
    }

    /// Which database this is, for people.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The kinds of job there are.
    pub fn kinds(&self) -> Kinds {
        self.common.kinds
    }

    /// Makes a write: runs `work` in a transaction it may share with other callers, and answers after COMMIT.
    ///
    /// `work` may run more than once, each time on a transaction that has nothing of it, so it must do nothing but
    /// read and write through its [`WriteTx`]. An error undoes it.
    pub async fn write<A, T, W>(&self, input: A, work: W) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.writer.write(input, work).await
    }

    /// Makes a write like [`Store::write`], after every other that shares its transaction: for one that takes locks
    /// which nothing may wait under.
    pub async fn write_last<A, T, W>(&self, input: A, work: W) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.writer.write_last(input, work).await
    }

    /// Waits until a write of this server may have made a job ready. A hint: it may come for nothing, and what others on
    /// the database make ready is not in it.
    pub async fn job_ready(&self) {
        self.common.ready.notified().await;
    }

    /// Changes whenever a write of this server has made or moved something that people watch. A hint, like [`Store::job_ready`].
    pub fn activity(&self) -> tokio::sync::watch::Receiver<()> {
        self.common.changed.subscribe()
    }

    /// Jobs that were called off since the last call and may be running here.
    pub fn take_cancelled(&self) -> Vec<Uuid> {
        std::mem::take(&mut self.common.cancelled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this server does to jobs from now on, for those who watch.
    pub fn job_feed(&self) -> &job::Feed {
        &self.common.feed
    }

    /// Hears of what this server enqueues for a key, from now on.
    pub fn listen(&self, kind: impl Into<Kind>, key: &str) -> job::Listener {
        self.common.listeners.listen(kind.into(), key)
    }

    /// Opens a lane: writes of one kind that are made as a set, whoever asked for them.
    pub fn lane<B: Batch>(&self, batch: B) -> Lane<B> {
        Lane::new(batch, &self.writer)
    }

    /// Asks the database for one row and says how long it took, or that it is gone.
    pub async fn ping(&self) -> Result<Duration> {
        let begun = Instant::now();
        let ping = asked(self.read().query_one_raw(self.dialect.statement("SELECT 1", [])));
        tokio::time::timeout(Duration::from_secs(2), ping)
            .await
            .map_err(|_| Error::unavailable("the database did not answer within 2 s"))??;
        Ok(begun.elapsed())
    }

    /// Closes every connection, after the writer has ended.
    pub async fn close(&self) {
        self.writer.ended().await;
        for pool in [&self.read, &self.write] {
            pool.close().await;
        }
    }
}

/// Kinds are quoted in statements and name parts of them, so their words must be plain and tell them apart.
fn check_kinds(kinds: Kinds) -> Result<()> {
    let is_plain = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for (place, kind) in kinds.iter().enumerate() {
        if !is_plain(kind.as_str()) || kinds[..place].contains(kind) {
            return Err(Error::internal(format!("{:?} cannot be a kind of job", kind.as_str())));
        }
    }
    if kinds.is_empty() { Err(Error::internal("a store needs a kind of job")) } else { Ok(()) }
}

/// Runs a migration command without opening the store.
pub async fn migrate(options: &Options, migrations: Migrations, direction: Direction) -> Result<()> {
    let dialect = Dialect::of(&options.url)?;
    let _lock = dialect.claim(&options.url)?;
    let write = dialect.connect(options, dialect.writers(), false, &Arc::default()).await?;
    dialect.migrate(&write, options, migrations, direction).await
}

/// Lists the migrations and whether they are applied.
pub async fn migration_status(options: &Options, migrations: Migrations) -> Result<Vec<Standing>> {
    let dialect = Dialect::of(&options.url)?;
    let write = dialect.connect(options, dialect.writers(), false, &Arc::default()).await?;
    migrations.status(&write).await.map_err(fault)
}

/// What a database error means: 503 for a database that is locked, full or gone, 500 for our own mistake.
pub fn fault(error: DbErr) -> Error {
    if dialect::is_unavailable(&error) { Error::unavailable(&error) } else { Error::internal(&error) }
}

/// What a transaction fails with that would have to wait while it has locks that others may wait for.
const WOULD_WAIT: &str = "a key of jobs is locked by another server";

/// A deadlock or a serialization failure with another server, one that was avoided, or a job that became ready as another
/// enqueued its unique key: the same transaction may succeed at once.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Unavailable { context } => {
            ["deadlock detected", "could not serialize", WOULD_WAIT].iter().any(|conflict| context.contains(conflict))
        }
        Error::Internal { context } => context.contains("waiting_job_is_unique"),
        _ => false,
    }
}

/// What a failed insert or update means: a broken unique constraint is the field it protects.
///
/// `fields` are the candidates; the one whose name the database's message contains is meant.
pub fn taken(error: DbErr, fields: &[&'static str]) -> Error {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(message)) => {
            match fields.iter().find(|field| message.contains(**field)) {
                Some(field) => Error::Taken { field },
                None => Error::internal(message),
            }
        }
        _ => fault(error),
    }
}

/// Awaits a query and gives its error a meaning.
pub async fn asked<T>(query: impl Future<Output = Result<T, DbErr>>) -> Result<T> {
    let waiting = pool::Waiting::begin();
    let answer = tokio::time::timeout(LONGEST, query).await;
    match answer {
        Ok(answer) => {
            waiting.answered();
            pool::note_unserved(true, &answer);
            answer.map_err(fault)
        }
        Err(_late) => Err(Error::unavailable("the database did not answer a statement")),
    }
}

/// The database's own error code, when the error came from the database.
fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner))
    | DbErr::Query(RuntimeErr::SqlxError(inner))
    | DbErr::Conn(RuntimeErr::SqlxError(inner))) = error
    else {
        return None;
    };
    Some(inner.as_database_error()?.code()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::KindSpec;
    use crate::model::job::tests::{CLEANUP, PROBE};

    #[test]
    fn kinds_that_statements_could_not_tell_apart_keep_a_store_from_opening() {
        assert!(check_kinds(&[CLEANUP, PROBE]).is_ok());
        let odd = |word| Kind::new(Box::leak(Box::new(KindSpec { word, rule: PROBE.rule() })));
        for kinds in [vec![], vec![PROBE, odd("probe")], vec![odd("")], vec![odd("it's")], vec![odd("a.b")]] {
            assert!(check_kinds(kinds.leak()).is_err());
        }
    }
}
