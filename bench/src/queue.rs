//! The event queue, end to end: a job's enqueue is committed, its handler does nothing, its completion is committed.
//!
//! The store and the worker run in this process, as they do in the hub; what a gRPC call costs is measured elsewhere.
//! Producers and the worker share one database and go on together for as long as the run lasts, and what is done is
//! kept, so that the history grows as it does in life.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use upbridge_server::model;
use upbridge_server::model::Clock;
use upbridge_server::model::clock::SystemClock;
use upbridge_server::model::job::{Backoff, Job, JobKind, NewJob, Outcome};
use upbridge_server::queue::{self, Handler, Options};
use upbridge_server::storage::job::{Claim, Keep, Orphans};
use upbridge_server::storage::{self, Store, WriteTx};
use uuid::Uuid;

use crate::arguments::Arguments;
use crate::hub::Scratch;
use crate::load::median;
use crate::process::cpu_time;
use crate::report::Report;
use crate::target::{self, Target};

/// Jobs the worker runs at once.
const CONCURRENCY: usize = 2_000;
/// Keys the jobs are spread over.
const KEYS: u64 = 1_000;
/// Jobs of one claim whose cost is measured.
const CLAIMED: usize = 100;

/// Measures the queue.
pub async fn run(arguments: &Arguments, scratch: &Scratch, report: &mut Report) -> Result<()> {
    for (producers, least) in [(64, arguments.queue_target(0)), (512, arguments.queue_target(1))] {
        let shop = Shop::open(arguments, scratch).await?;
        let rate = shop.end_to_end(producers, arguments.queue_window()).await?;
        let what = format!("Jobs end to end, {producers} producers, {:?}", arguments.queue_window());
        report.absolute(&what, rate, "jobs/s", least);
        shop.close().await;
    }
    let shop = Shop::open(arguments, scratch).await?;
    let pickup = shop.idle_pickup(200).await?;
    report.absolute(
        "Idle pickup, from the committed enqueue to the handler, p50",
        pickup,
        "ms",
        target::IDLE_PICKUP_MS,
    );
    shop.idle_cpu(report).await?;
    shop.close().await;
    let (few, many, orphans) = arguments.queue_backlogs();
    let mut costs = Vec::new();
    for waiting in [few, many] {
        let shop = Shop::open(arguments, scratch).await?;
        shop.add(waiting).await?;
        let cost = shop.claim_cost().await?;
        report.absolute(&format!("A claim of {CLAIMED} with {waiting} waiting"), cost, "ms", Target::None);
        costs.push(cost);
        shop.close().await;
    }
    report.absolute(
        "Cost of a claim with the long backlog over the short one",
        costs[1] / costs[0],
        "×",
        target::CLAIM,
    );
    let shop = Shop::open(arguments, scratch).await?;
    let seconds = shop.rescue(orphans).await?;
    report.absolute(&format!("Rescue of {orphans} orphaned jobs"), seconds, "s", target::RESCUE_S);
    shop.close().await;
    Ok(())
}

struct Nothing {
    began: mpsc::UnboundedSender<Instant>,
    done: AtomicU64,
    watched: AtomicBool,
}

impl Handler for Nothing {
    fn run<'a>(&'a self, _job: &'a Job) -> BoxFuture<'a, Outcome> {
        Box::pin(async {
            self.done.fetch_add(1, Ordering::Relaxed);
            if self.watched.load(Ordering::Relaxed) {
                let _ = self.began.send(Instant::now()); // nobody may be listening any more
            }
            Outcome::Done(None)
        })
    }

    fn died<'a>(&'a self, _: &'a mut WriteTx, _: &'a Job, _: &'a str) -> BoxFuture<'a, model::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

struct Shop {
    store: Arc<Store>,
    stop: CancellationToken,
}

impl Shop {
    async fn open(arguments: &Arguments, scratch: &Scratch) -> Result<Shop> {
        let url = match &arguments.postgres {
            Some(url) => url.clone(),
            None => format!("sqlite://{}?mode=rwc", scratch.path().join(format!("{}.db", Uuid::now_v7())).display()),
        };
        let stop = CancellationToken::new();
        let options = storage::Options {
            url,
            read_connections: 4,
            wait: Duration::from_secs(5),
            max_retries: 3,
            patience: storage::PATIENCE,
        };
        let store = Arc::new(storage::open(&options, stop.clone()).await.map_err(failed)?);
        let shop = Shop { store, stop };
        shop.clear().await?;
        Ok(shop)
    }

    async fn clear(&self) -> Result<()> {
        self.store.write((), |tx, ()| Box::pin(storage::job::clear(tx))).await.map_err(failed)
    }

    async fn close(self) {
        self.stop.cancel();
        self.store.close().await;
    }

    fn work(&self) -> (Arc<Nothing>, mpsc::UnboundedReceiver<Instant>, CancellationToken, tokio::task::JoinHandle<()>) {
        let (began, beginnings) = mpsc::unbounded_channel();
        let nothing = Arc::new(Nothing { began, done: AtomicU64::new(0), watched: AtomicBool::new(false) });
        let options = Options {
            concurrency: CONCURRENCY,
            apart: 0,
            keep: Keep { done: 100_000_000, failed: 50 },
            heartbeat: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            backoff: Backoff::default(),
            drain: Duration::from_secs(5),
        };
        let stop = CancellationToken::new();
        let running =
            queue::worker::run(self.store.clone(), Arc::new(SystemClock), nothing.clone(), options, stop.clone());
        (nothing, beginnings, stop, tokio::spawn(running))
    }

    async fn enqueue(&self, key: u64) -> Result<()> {
        let job = NewJob::new(JobKind::Probe, key.to_string(), serde_json::json!({}), SystemClock.now());
        self.store
            .write(job, |tx, job| {
                tx.enqueue(job.clone());
                Box::pin(async { Ok(()) })
            })
            .await
            .map_err(failed)
    }

    /// Jobs per second that went all the way, producers and worker together.
    async fn end_to_end(&self, producers: u64, window: Duration) -> Result<f64> {
        eprintln!("Queue, {producers} producers");
        let (nothing, _beginnings, stop, running) = self.work();
        let (enqueued, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        let this = Arc::new(Shop { store: self.store.clone(), stop: self.stop.clone() });
        for producer in 0..producers {
            let (this, enqueued, over) = (this.clone(), enqueued.clone(), over.clone());
            tasks.spawn(async move {
                let mut number = producer;
                while !over.load(Ordering::Relaxed) {
                    this.enqueue(number % KEYS).await?;
                    enqueued.fetch_add(1, Ordering::Relaxed);
                    number += producers;
                }
                anyhow::Ok(())
            });
        }
        tokio::time::sleep(window).await;
        over.store(true, Ordering::Relaxed);
        let handled = nothing.done.load(Ordering::Relaxed);
        let rate = handled as f64 / begun.elapsed().as_secs_f64();
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        let total = enqueued.load(Ordering::Relaxed);
        eprintln!("  {total} enqueued, {handled} handled when the producers stopped");
        while self.waiting().await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ensure!(nothing.done.load(Ordering::Relaxed) == total, "a job was lost, or done twice");
        stop.cancel();
        running.await?;
        Ok(rate)
    }

    async fn waiting(&self) -> Result<i64> {
        let counts = storage::job::count_waiting(self.store.read(), self.store.dialect()).await.map_err(failed)?;
        Ok(counts.iter().map(|(_, count)| count).sum())
    }

    /// Milliseconds from an enqueue that was answered to its handler, on an idle queue.
    async fn idle_pickup(&self, times: usize) -> Result<f64> {
        let (nothing, mut beginnings, stop, running) = self.work();
        nothing.watched.store(true, Ordering::Relaxed);
        let mut took = Vec::with_capacity(times);
        for number in 0..times {
            // Idle is what it is when the last one is settled, which PostgreSQL takes longer for, and a little after.
            while self.waiting().await? > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.enqueue(number as u64).await?;
            let answered = Instant::now();
            let began = beginnings.recv().await.ok_or_else(|| anyhow!("the worker ended"))?;
            took.push(began.saturating_duration_since(answered).as_secs_f64() * 1e3);
        }
        stop.cancel();
        running.await?;
        Ok(median(took))
    }

    async fn idle_cpu(&self, report: &mut Report) -> Result<()> {
        let (_nothing, _beginnings, stop, running) = self.work();
        tokio::time::sleep(Duration::from_secs(1)).await; // past its start
        let (before, begun) = (cpu_time(std::process::id())?, Instant::now());
        tokio::time::sleep(Duration::from_secs(5)).await; // what an idle worker costs shows only in time
        let used = cpu_time(std::process::id())?.saturating_sub(before);
        let share = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
        report.absolute("An idle worker's share of a core", share, "%", target::IDLE_CPU_PERCENT);
        stop.cancel();
        running.await?;
        Ok(())
    }

    async fn add(&self, count: usize) -> Result<()> {
        for first in (0..count).step_by(5_000) {
            let now = SystemClock.now();
            let job = |number: usize| {
                NewJob::new(JobKind::Probe, (number as u64 % KEYS).to_string(), serde_json::json!({}), now)
            };
            let jobs: Vec<NewJob> = (first..count.min(first + 5_000)).map(job).collect();
            let added = self.store.write(jobs, |tx, jobs| {
                jobs.iter().for_each(|job| tx.enqueue(job.clone()));
                Box::pin(async { Ok(()) })
            });
            added.await.map_err(failed)?;
            eprint!("\r  {first} of {count} jobs wait");
        }
        eprint!("\r\x1b[K");
        Ok(())
    }

    /// Milliseconds of one claim, by itself in its transaction, without the commit.
    async fn claim_cost(&self) -> Result<f64> {
        let claim = Claim { worker_id: Uuid::new_v4(), most: CLAIMED, most_leaving: CLAIMED, most_apart: 0 };
        let mut took = Vec::new();
        for _ in 0..9 {
            let claimed = self.store.write(claim, |tx, claim| {
                Box::pin(async move {
                    let begun = Instant::now();
                    let claimed = storage::job::claim(tx, claim).await?;
                    Ok((claimed.jobs.len(), begun.elapsed()))
                })
            });
            let (count, time) = claimed.await.map_err(failed)?;
            ensure!(count == CLAIMED, "{count} jobs were claimed");
            took.push(time.as_secs_f64() * 1e3);
        }
        Ok(median(took))
    }

    /// Seconds until every job of a dead worker can be claimed again.
    async fn rescue(&self, orphans: usize) -> Result<f64> {
        self.add(orphans).await?;
        let dead = Uuid::new_v4();
        let mut left = orphans;
        while left > 0 {
            let claim = Claim { worker_id: dead, most: 500, most_leaving: 500, most_apart: 0 };
            let claimed = self.store.write(claim, |tx, claim| Box::pin(storage::job::claim(tx, claim)));
            left -= claimed.await.map_err(failed)?.jobs.len();
        }
        let begun = Instant::now();
        let mut rescued = 0;
        while rescued < orphans as u64 {
            let silent = Orphans::OfTheDead { silence: Duration::from_secs(30) };
            let found = self.store.write(silent, |tx, silent| Box::pin(storage::job::rescue(tx, silent)));
            rescued += found.await.map_err(failed)?.ready;
        }
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn failed(error: model::Error) -> anyhow::Error {
    anyhow!("{error}: {error:?}")
}
