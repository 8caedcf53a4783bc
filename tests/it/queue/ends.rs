//! Ends that cannot be recorded, and leases that a worker does not know the end of.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use serde_json::json;
use tokio::sync::Semaphore;
use upbridge_server::model::Clock;
use upbridge_server::model::job::{JobKind, NewJob, Outcome};
use upbridge_server::queue::Options;
use upbridge_server::storage;
use uuid::Uuid;

use super::shop::{Shop, beating, options};
use crate::harness::{TestDatabase, eventually};

/// A worker that fails whatever says so, and does the rest.
fn work(job: upbridge_server::model::job::Job) -> futures::future::BoxFuture<'static, Outcome> {
    async move {
        match job.payload["outcome"].as_str() {
            Some("dead") => Outcome::dead("hopeless"),
            Some("retry") => Outcome::retry("no luck"),
            _ => Outcome::Done(None),
        }
    }
    .boxed()
}

/// Lets nobody write a row of a table that belongs to this key.
async fn curse(database: &TestDatabase, table: &str, key: &str) {
    if database.is_postgres() {
        let refuse =
            "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'cursed'; END $$ LANGUAGE plpgsql";
        database.execute(refuse).await;
        let curse = "FOR EACH ROW WHEN (NEW.queue_key = '{key}') EXECUTE FUNCTION refuse()".replace("{key}", key);
        database.execute(&format!("CREATE TRIGGER curse BEFORE INSERT ON {table} {curse}")).await;
    } else {
        let curse = format!("WHEN NEW.queue_key = '{key}' BEGIN SELECT RAISE(ABORT, 'cursed'); END");
        database.execute(&format!("CREATE TRIGGER curse BEFORE INSERT ON {table} {curse}")).await;
    }
}

async fn lift(database: &TestDatabase, table: &str) {
    let on = if database.is_postgres() { format!(" ON {table}") } else { String::new() };
    database.execute(&format!("DROP TRIGGER curse{on}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_that_the_handler_cannot_bear_is_recorded_without_it_and_stops_nobody_elses() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), work);
    let cursed = json!({ "outcome": "dead", "died": "fails" });
    let dead = |key: &str, payload: serde_json::Value, max_retries| NewJob {
        payload: payload.into(),
        max_retries,
        ..shop.job(JobKind::UserSync, key)
    };
    // The last is tried again before it is given up: a failed try is what is recorded first.
    let mut jobs = vec![dead("a", cursed.clone(), Some(0)), dead("b", cursed, Some(1))];
    jobs.extend((0..20).map(|n| dead(&format!("c{n}"), json!({ "outcome": "dead" }), None)));
    jobs.extend((0..20).map(|n| shop.job(JobKind::Probe, &format!("d{n}"))));
    jobs.push(shop.job(JobKind::UserSync, "a"));
    shop.add(jobs).await;
    shop.becomes("dead", 21).await;
    shop.becomes("done", 21).await;
    shop.becomes("scheduled", 1).await;
    shop.clock.advance(TimeDelta::seconds(1));
    shop.becomes("dead", 22).await;
    shop.is_empty().await;
    // Deaths that shared a transaction with one that failed were told twice.
    let died: HashSet<Uuid> = worker.diary.deaths.lock().unwrap().iter().map(|(id, _)| *id).collect();
    assert_eq!((worker.runs(), died.len()), (44, 20));
    let errors = shop.database.texts("SELECT CAST(errors AS TEXT) FROM finished_jobs WHERE queue_key = 'b'").await;
    assert_eq!(errors[0].matches("could not be recorded").count(), 2, "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_written_at_all_leaves_the_job_to_the_next_heartbeat() {
    let shop = Shop::open().await;
    curse(&shop.database, "finished_jobs", "cursed").await;
    // What was rescued runs until the curse is lifted, so that no rescue too many comes before that.
    let lifted = Arc::new(Semaphore::new(0));
    let worker = shop.worker(beating(), {
        let lifted = lifted.clone();
        move |job| {
            let lifted = lifted.clone();
            async move {
                if job.rescues > 0 {
                    let _lifted = lifted.acquire().await.expect("open");
                }
                work(job).await
            }
            .boxed()
        }
    });
    let cursed = NewJob { max_retries: Some(0), ..shop.job(JobKind::UserSync, "cursed") };
    shop.add(vec![cursed, shop.job(JobKind::UserSync, "blessed")]).await;
    shop.becomes("done", 1).await;
    // The worker lives on and has let go of it.
    worker.has_run(3).await;
    lift(&shop.database, "finished_jobs").await;
    lifted.add_permits(1);
    shop.becomes("done", 2).await;
    shop.is_empty().await;
    let cursed = worker.diary.runs.lock().unwrap().iter().rfind(|job| job.key == "cursed").unwrap().clone();
    // On a machine that stands still for a second the worker's whole lease ends too, which is another rescue.
    assert!(cursed.rescues >= 1 && cursed.attempts == 0, "{cursed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_that_cannot_be_set_aside_keeps_no_other_orphan_from_being_rescued() {
    let shop = Shop::open().await;
    curse(&shop.database, "finished_jobs", "cursed").await;
    shop.add(vec![shop.job(JobKind::Probe, "cursed"), shop.job(JobKind::Probe, "a"), shop.job(JobKind::Probe, "b")])
        .await;
    let gone = "UPDATE jobs SET state = 'running', lease = 1, rescues = CASE queue_key WHEN 'cursed' THEN 3 ELSE 0 END";
    shop.database.execute(gone).await;
    shop.database.execute("UPDATE tallies SET label = 'probe.running' WHERE label = 'probe.ready'").await;
    let worker = shop.worker(beating(), work);
    shop.becomes("done", 2).await;
    assert_eq!(worker.runs(), 2);
    lift(&shop.database, "finished_jobs").await;
    shop.becomes("dead", 1).await;
    shop.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_enqueued_fails_the_write_that_asked_for_it_and_no_other() {
    let shop = Shop::open().await;
    curse(&shop.database, "jobs", "cursed").await;
    // The first occupies the writer, so that the others share a transaction.
    let writes = (0..60).map(|n| {
        let job = shop.job(JobKind::Probe, if n == 30 { "cursed" } else { "a" });
        shop.store.write(job, |tx, job| {
            tx.enqueue(job.clone());
            Box::pin(async { Ok(()) })
        })
    });
    let done = futures::future::join_all(writes).await;
    let failed: Vec<usize> = done.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(n, _)| n).collect();
    assert_eq!(failed, [30]);
    assert_eq!(shop.count("ready").await, 59);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_job_another_hub_called_off_is_stopped_by_the_next_heartbeat() {
    let shop = Shop::open().await;
    let other = shop.beside().await;
    let gate = Arc::new(Semaphore::new(0));
    let slow = Options { concurrency: 2, ..beating() };
    let worker = shop.worker(slow, {
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("open").forget();
                Outcome::Done(None)
            }
            .boxed()
        }
    });
    let jobs = [shop.job(JobKind::UserSync, "a"), shop.job(JobKind::UserSync, "b")];
    shop.add(jobs.to_vec()).await;
    // One slot is left to jobs that need nobody.
    worker.has_run(1).await;
    match &other {
        Some(other) => {
            let input = (jobs[0].id, shop.clock.now());
            let cancel = other.store.write(input, |tx, (id, now)| Box::pin(storage::job::cancel(tx, *id, *now)));
            assert!(cancel.await.unwrap().is_some());
        }
        None => shop.database.execute("DELETE FROM jobs WHERE queue_key = 'a'").await,
    }
    // It never came to its end, and its slot goes to the next.
    worker.has_run(2).await;
    eventually("only the second is left", async || worker.diary.active.load(Ordering::SeqCst) == 1).await;
    gate.add_permits(1);
    shop.becomes("done", 1).await;
    assert_eq!(shop.database.texts("SELECT queue_key FROM finished_jobs WHERE state = 'done'").await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_let_go_by_the_worker_that_made_it() {
    let shop = Shop::open().await;
    let worker = shop.worker(beating(), work);
    shop.add_probes("first", 1).await;
    shop.becomes("done", 1).await;
    // As if it had been claimed for this worker, and the worker had not heard so.
    let later = NewJob { run_at: Some(shop.clock.now() + TimeDelta::hours(1)), ..shop.job(JobKind::Probe, "lost") };
    shop.add(vec![later]).await;
    // It is counted first: a heartbeat finds it as soon as it is there.
    shop.database.execute("DELETE FROM tallies WHERE label = 'probe.running'").await;
    shop.database.execute("UPDATE tallies SET label = 'probe.running' WHERE label = 'probe.scheduled'").await;
    let claim = "UPDATE jobs SET state = 'running', lease = 1, worker_id = (SELECT id FROM workers)";
    shop.database.execute(claim).await;
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, worker.has_run(2)).await.expect("within a few heartbeats");
    shop.is_empty().await;
    let rescued = worker.diary.runs.lock().unwrap()[1].clone();
    assert_eq!((rescued.rescues, rescued.lease), (1, 2));
}
