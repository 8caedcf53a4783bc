//! A store with workers whose handlers the test holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upbridge_server::model::clock::HeldClock;
use upbridge_server::model::job::{Backoff, Job, JobKind, NewJob, Outcome};
use upbridge_server::model::{Clock, Error, Result};
use upbridge_server::queue::{self, Handler, Options};
use upbridge_server::storage::job::Keep;
use upbridge_server::storage::{self, Store, WriteTx};
use uuid::Uuid;

use crate::harness::{TestDatabase, eventually, noon};

type Work = dyn Fn(Job) -> BoxFuture<'static, Outcome> + Send + Sync;

/// What handlers did.
#[derive(Default)]
pub struct Diary {
    /// Each run, in the order it began.
    pub runs: Mutex<Vec<Job>>,
    /// Each job that was given up, with its error.
    pub deaths: Mutex<Vec<(Uuid, String)>>,
    pub active: AtomicUsize,
    pub most_active: AtomicUsize,
}

struct Hand {
    work: Box<Work>,
    diary: Arc<Diary>,
}

impl Handler for Hand {
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Outcome> {
        self.diary.runs.lock().unwrap().push(job.clone());
        Box::pin(async move {
            let active = self.diary.active.fetch_add(1, Ordering::SeqCst) + 1;
            self.diary.most_active.fetch_max(active, Ordering::SeqCst);
            // Counts down even when the worker drops the handler.
            let _leaving = Leaving(&self.diary.active);
            (self.work)(job.clone()).await
        })
    }

    fn died<'a>(&'a self, _tx: &'a mut WriteTx, job: &'a Job, error: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if job.payload["died"] == "fails" {
                return Err(Error::internal("this death cannot be borne"));
            }
            self.diary.deaths.lock().unwrap().push((job.id, error.to_owned()));
            Ok(())
        })
    }
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A store that jobs are put into.
pub struct Shop {
    pub database: TestDatabase,
    pub store: Arc<Store>,
    pub clock: Arc<HeldClock>,
    stop: CancellationToken,
}

/// A worker of a shop.
pub struct Worker {
    pub diary: Arc<Diary>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

pub fn options() -> Options {
    Options {
        apart: 0,
        concurrency: 5,
        keep: Keep { done: 100, failed: 50 },
        // Three of them without a word are a death: longer than a busy machine holds its breath.
        heartbeat: Duration::from_secs(10),
        poll: Duration::from_millis(50),
        backoff: Backoff::default(),
        drain: Duration::from_millis(200),
    }
}

/// The same for what a heartbeat does.
pub fn beating() -> Options {
    Options { heartbeat: Duration::from_millis(500), ..options() }
}

impl Shop {
    pub async fn open() -> Shop {
        Shop::open_on(TestDatabase::new().await).await
    }

    async fn open_on(database: TestDatabase) -> Shop {
        let stop = CancellationToken::new();
        let options = storage::Options {
            url: database.url.clone(),
            read_connections: 4,
            wait: Duration::from_secs(5),
            max_retries: 3,
            patience: storage::PATIENCE,
        };
        let store = Arc::new(storage::open(&options, stop.clone()).await.expect("a store"));
        Shop { database, store, clock: Arc::new(HeldClock::at(noon())), stop }
    }

    /// Another hub's store on the same database; `None`, and a word about it, where there cannot be another.
    pub async fn beside(&self) -> Option<Shop> {
        if !self.database.is_postgres() {
            eprintln!("not shown: one hub has a SQLite file for itself; set TEST_POSTGRES_URL");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        Some(Shop::open_on(TestDatabase { url: self.database.url.clone(), directory }).await)
    }

    /// Closes the store; nothing can be done with the shop any more but to look at its database.
    pub async fn close(&self) {
        self.stop.cancel();
        self.store.close().await;
    }

    pub async fn add(&self, jobs: Vec<NewJob>) {
        let add = |tx: &mut WriteTx, jobs: &Vec<NewJob>| jobs.iter().for_each(|job| tx.enqueue(job.clone()));
        self.store
            .write(jobs, move |tx, jobs| {
                add(tx, jobs);
                Box::pin(async { Ok(()) })
            })
            .await
            .expect("enqueued");
    }

    pub fn job(&self, kind: JobKind, key: &str) -> NewJob {
        NewJob::new(kind, key, serde_json::json!({}), self.clock.now())
    }

    /// Adds jobs of the kind that has no rule of its own.
    pub async fn add_probes(&self, key: &str, count: usize) {
        self.add((0..count).map(|_| self.job(JobKind::Probe, key)).collect()).await;
    }

    pub fn worker<F>(&self, options: Options, work: F) -> Worker
    where
        F: Fn(Job) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    {
        let diary = Arc::new(Diary::default());
        let hand = Arc::new(Hand { work: Box::new(work), diary: diary.clone() });
        let stop = CancellationToken::new();
        let running = queue::worker::run(self.store.clone(), self.clock.clone(), hand, options, stop.clone());
        Worker { diary, stop, running: tokio::spawn(running) }
    }

    /// Jobs in a state, by counting rows.
    pub async fn count(&self, state: &str) -> i64 {
        let table = if ["done", "dead", "cancelled"].contains(&state) { "finished_jobs" } else { "jobs" };
        self.database.count(&format!("SELECT COUNT(*) FROM {table} WHERE state = '{state}'")).await
    }

    pub async fn becomes(&self, state: &str, count: i64) {
        eventually(&format!("{count} jobs are {state}"), async || self.count(state).await == count).await;
    }

    /// No job is left, and the running counts say so too.
    pub async fn is_empty(&self) {
        eventually("no job is left", async || self.database.count("SELECT COUNT(*) FROM jobs").await == 0).await;
        let counted = "SELECT COALESCE(CAST(SUM(ABS(total)) AS BIGINT), 0) FROM (SELECT SUM(count) AS total FROM tallies \
                       WHERE metric = 'jobs' AND (label LIKE '%.ready' OR label LIKE '%.running' OR label LIKE '%.held' \
                       OR label LIKE '%.scheduled') GROUP BY label) AS totals";
        assert_eq!(self.database.count(counted).await, 0, "the running counts drifted from the rows");
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Worker {
    pub fn runs(&self) -> usize {
        self.diary.runs.lock().unwrap().len()
    }

    pub async fn has_run(&self, count: usize) {
        eventually(&format!("{count} runs"), async || self.runs() >= count).await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("the worker does not panic");
    }

    /// Ends as a crash does: nothing is handed back, nobody signs off.
    pub fn crash(self) {
        self.running.abort();
    }
}
