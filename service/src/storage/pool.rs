//! Connections that may never answer again, and what becomes of their places.
//!
//! A network that swallows what is sent to PostgreSQL says nothing of it, and the driver waits for an answer for ever:
//! first whoever asked, and when they have given up, its pool, which asks the connection whether it is well before it
//! takes it back. Its place would never be free again. So after somebody gave up on an answer, connections that come
//! back are asked with an end to the waiting, and one that says nothing is closed.
//!
//! That leaves those that were on their way back when the network fell silent: the driver asks them itself, without an
//! end. When a [`Pool`] has no place left, none comes back, and somebody waited for one in vain, the whole is given up
//! for a new one. Until then a pool may go on with fewer places than it has.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

use sea_orm::{ConnAcquireErr, DatabaseConnection, DbErr};
use sqlx::pool::PoolOptions;
use sqlx::{Connection, Postgres};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::dialect::Dialect;
use crate::model::Result;

/// How long a connection may take to say that it is well.
const ANSWER: Duration = Duration::from_secs(2);
/// How long connections are asked so after somebody gave up on one: whoever waits longest has given up by then.
const SUSPICION: Duration = Duration::from_secs(120);
/// How often a pool is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a pool that has no place left may get none back.
const STARVED: Duration = Duration::from_secs(3);
/// How long closing a pool may take at the end.
const CLOSE: Duration = Duration::from_secs(10);
/// Pools that may be made for one, whose places are cheap. A server that has given up so many is told to be restarted.
const MOST: usize = 256;
/// For how long after a pool was given up the next is given up less readily.
const CALM: Duration = Duration::from_secs(20 * 60);
/// How long a second pool is kept at least. What only takes long, such as a table that is locked, looks like silence,
/// and each pool that is given up leaves its connections behind for as long as it takes.
const KEPT: Duration = Duration::from_secs(20);

/// When somebody last gave up on an answer, in milliseconds since the first look at the clock; 0 is never. Of all pools
/// of the process, because a future that is dropped does not know its own.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
/// When somebody last waited in vain for a connection to write over, and for one to read over; likewise.
static UNSERVED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Somebody waits for an answer; dropped before it came, they gave up on it.
pub(super) struct Waiting(bool);

impl Waiting {
    pub fn begin() -> Waiting {
        Waiting(true)
    }

    /// Something was heard.
    pub fn answered(mut self) {
        self.0 = false;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0 {
            GIVEN_UP.store(now(), Ordering::Relaxed);
        }
    }
}

/// Notes when there was no connection to be had for a query. Only what reads asks a pool with its statement: what
/// writes asks with the beginning of its transaction.
pub(super) fn note_unserved<T>(only_reads: bool, answer: &Result<T, DbErr>) {
    if matches!(answer, Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))) {
        UNSERVED[usize::from(only_reads)].store(now(), Ordering::Relaxed);
    }
}

/// Connections of one sort, in the pool that is good now.
pub(super) struct Pool {
    dialect: Dialect,
    options: Options,
    connections: u32,
    only_reads: bool,
    /// One after the other; only the last is good.
    made: Box<[OnceLock<DatabaseConnection>]>,
    last: AtomicUsize,
    /// Connections that were given back so far.
    returned: Arc<AtomicU64>,
}

impl Pool {
    /// Opens a pool, and sees to it until `stop` that there is one that can be used.
    pub async fn open(
        dialect: Dialect,
        options: &Options,
        only_reads: bool,
        stop: &CancellationToken,
    ) -> Result<Arc<Pool>> {
        let connections = if only_reads { options.read_connections } else { dialect.writers() };
        let returned = Arc::default();
        let first = dialect.connect(options, connections, only_reads, &returned).await?;
        let most = if dialect.is_shared() { MOST } else { 1 };
        let made: Box<[OnceLock<_>]> = (0..most).map(|_| OnceLock::new()).collect();
        let _new = made[0].set(first);
        let last = AtomicUsize::new(0);
        let options = options.clone();
        let pool = Arc::new(Pool { dialect, options, connections, only_reads, made, last, returned });
        if dialect.is_shared() {
            let (pool, stop) = (Arc::downgrade(&pool), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(watch(pool)).await });
        }
        Ok(pool)
    }

    /// The pool that is good now.
    pub fn get(&self) -> &DatabaseConnection {
        self.made[self.last.load(Ordering::Acquire)].get().expect("set before it is the last")
    }

    /// Whether there is no place in it.
    fn is_taken(&self) -> bool {
        let pool = self.get().get_postgres_connection_pool();
        pool.num_idle() == 0 && pool.size() >= self.connections
    }

    /// Gives the pool up for a new one; says whether it did. What is asked on the old one may still be answered there.
    async fn renew(&self) -> Result<bool> {
        let next = self.last.load(Ordering::Acquire) + 1;
        let Some(place) = self.made.get(next) else {
            tracing::error!("connections to the database were lost too often: restart this server");
            return Ok(false);
        };
        let returned = self.returned.load(Ordering::Relaxed);
        let connected = self.dialect.connect(&self.options, self.connections, self.only_reads, &self.returned).await?;
        let one_came_back = self.only_reads && self.returned.load(Ordering::Relaxed) != returned;
        if one_came_back || !self.is_taken() {
            // The server was gone for everybody, and is back for everybody.
            drop(connected.close().await);
            return Ok(false);
        }
        let old = self.get().clone();
        let _new = place.set(connected);
        self.last.store(next, Ordering::Release);
        tracing::warn!(only_reads = self.only_reads, "no connection to the database came back: new ones are made");
        // Without an end, because one that comes back late must not be left open in a pool that nobody uses.
        tokio::spawn(async move { drop(old.close().await) });
        Ok(true)
    }

    /// Closes what can be closed; on PostgreSQL in time, whatever does not answer.
    pub async fn close(&self) {
        let end = if self.dialect.is_shared() { CLOSE } else { Duration::MAX };
        match tokio::time::timeout(end, self.get().clone().close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the database did not close cleanly"),
            Err(_late) => tracing::warn!("connections to the database did not come back to be closed"),
        }
    }
}

/// Gives a pool up when it has no place left, none comes back, and somebody waited for one in vain. Of the writers each
/// has its place, so there that alone is proof.
async fn watch(pool: Weak<Pool>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut returned, mut since, mut tried) = (0, Instant::now(), now());
    let (mut renewed, mut kept) = (None::<Instant>, Duration::ZERO);
    loop {
        look.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        let returned_now = pool.returned.load(Ordering::Relaxed);
        if returned_now != returned || !pool.is_taken() {
            (returned, since) = (returned_now, Instant::now());
        }
        let is_starved = pool.is_taken() && (!pool.only_reads || since.elapsed() >= STARVED);
        let is_unserved = UNSERVED[usize::from(pool.only_reads)].load(Ordering::Relaxed) > tried;
        if !is_starved || !is_unserved || renewed.is_some_and(|at| at.elapsed() < kept) {
            continue;
        }
        match pool.renew().await {
            Ok(true) => {
                let is_soon = renewed.is_some_and(|at| at.elapsed() < CALM);
                kept = if is_soon { (kept * 2).min(CALM / 2) } else { KEPT };
                renewed = Some(Instant::now());
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "no new connections to the database can be made; it is tried again"),
        }
        (since, tried) = (Instant::now(), now());
    }
}

/// Sees to it that a pool takes back only what answers, and that what is given back is counted.
pub(super) fn let_go_of_the_silent(options: PoolOptions<Postgres>, returned: Arc<AtomicU64>) -> PoolOptions<Postgres> {
    options.after_release(move |connection, _| {
        returned.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let given_up = GIVEN_UP.load(Ordering::Relaxed);
            let is_suspect = given_up > 0 && u128::from(now() - given_up.min(now())) < SUSPICION.as_millis();
            // A transaction that was dropped has its ROLLBACK still to be sent.
            if !is_suspect && !connection.should_flush() {
                return Ok(true);
            }
            match tokio::time::timeout(ANSWER, connection.ping()).await {
                Ok(answer) => answer.map(|()| true),
                // As an error it is closed without a word, which nobody would hear.
                Err(_late) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
            }
        })
    })
}
