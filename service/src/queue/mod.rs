//! What is remembered for later, and how it gets done.
//!
//! The cast: a write enqueues a job in its own transaction ([`WriteTx::enqueue`](crate::storage::WriteTx::enqueue),
//! there is no other way); the [worker] of some hub claims it, which makes it that worker's *lease*; the
//! [`Handler`] does it; the [settlement](settle) records how it ended. The rows and every transition between their
//! states are in [`storage::job`](crate::storage::job); this room decides when.
//!
//! Guaranteed:
//! - A job exists if and only if the write that caused it is committed, and is handed to a handler at least once.
//! - At most one lease of a job is alive. The lease is a counter that each claim increments; what a worker says about
//!   a job is believed only with the counter it was given, whatever happened to the worker meanwhile.
//! - A failed try is tried again after a wait that is kept in the job's row, `max_retries` times; then the job is a
//!   dead letter. A try that was interrupted, by a shutdown or a crash, is not counted as failed; a job that was
//!   rescued three times is set aside when a fourth worker dies under it.
//! - No more jobs of one key run at once than their kind allows, over all hubs; keys take turns; one key's backlog
//!   delays no other key by more than one job of it.
//! - The jobs of a worker that died are claimable within four heartbeats; on an embedded database at once. A job whose
//!   end cannot be recorded, or that a living worker has lost sight of, is claimable within two.
//! - A handler whose lease is over, because its job was called off or taken, is stopped: on its own hub at once, from
//!   another within a heartbeat.
//!
//! Not guaranteed: that a handler runs only once (it may have done its work when its hub died), nor any order between
//! jobs of different turns. So every handler's effect is idempotent. Wake-ups are hints: a poll each second finds what
//! they miss.

mod books;
mod lease;
mod settle;
pub mod worker;

use std::time::Duration;

pub use lease::POISON;

use futures::future::BoxFuture;

use crate::model::Result;
use crate::model::job::{Backoff, Job, Outcome};
use crate::storage::WriteTx;
use crate::storage::job::Keep;

/// Does jobs.
pub trait Handler: Send + Sync + 'static {
    /// Does a job, within its kind's deadline. It may be run more than once: its effect must be idempotent. It may be
    /// dropped at any await, when the lease is lost or the hub stops.
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Outcome>;

    /// Called in the transaction that gives a job up: after its last try, a permanent failure, or the fourth worker
    /// that died under it.
    fn died<'a>(&'a self, tx: &'a mut WriteTx, job: &'a Job, error: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// How the queue is worked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `QUEUE_CONCURRENCY`: jobs of this hub that run at once.
    pub concurrency: usize,
    /// Jobs of this server that run at once beside those, of the kinds that have slots of their own.
    pub apart: usize,
    /// `QUEUE_REMOVE_ON_COMPLETE` and `QUEUE_REMOVE_ON_FAIL`.
    pub keep: Keep,
    /// `QUEUE_HEARTBEAT_INTERVAL`: how often a worker says that it lives. After three without a word it is taken for
    /// dead, by itself a little earlier than by others.
    pub heartbeat: Duration,
    /// `QUEUE_POLL_INTERVAL`: how often the queue is looked at without a hint.
    pub poll: Duration,
    /// `QUEUE_BACKOFF_BASE`: how long a failed job waits.
    pub backoff: Backoff,
    /// How long running jobs may go on after the hub was told to stop.
    pub drain: Duration,
}

impl Options {
    /// How long others wait for a worker's heartbeat before they take its jobs.
    fn silence(&self) -> Duration {
        self.heartbeat * 3
    }
}
