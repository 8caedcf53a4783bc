//! What a worker promises.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use tokio::sync::Semaphore;
use upbridge_server::model::Error;
use upbridge_server::model::job::{JobKind, NewJob, Outcome};
use upbridge_server::storage;

use super::shop::{Shop, beating, options};
use crate::harness::eventually;

/// A handler that does nothing but succeed.
fn done() -> futures::future::BoxFuture<'static, Outcome> {
    async { Outcome::Done(None) }.boxed()
}

/// A gate that jobs wait at until the test lets so many through.
fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

fn through(gate: &Arc<Semaphore>) -> futures::future::BoxFuture<'static, Outcome> {
    let gate = gate.clone();
    async move {
        gate.acquire().await.expect("open").forget();
        Outcome::Done(None)
    }
    .boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_exists_only_with_its_write_and_is_done_once() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), |_| done());
    let refused = shop
        .store
        .write(shop.job(JobKind::Probe, "never"), |tx, job| {
            Box::pin(async move {
                tx.enqueue(job.clone());
                Err::<(), _>(Error::NotFound { what: "user" })
            })
        })
        .await;
    assert!(refused.is_err());
    shop.add_probes("a", 3).await;
    worker.has_run(3).await;
    shop.is_empty().await;
    let keys: Vec<String> = worker.diary.runs.lock().unwrap().iter().map(|job| job.key.clone()).collect();
    assert_eq!(keys, ["a", "a", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    shop.add_probes("a", 20).await;
    shop.becomes("running", 5).await;
    assert_eq!(shop.count("ready").await, 15);
    // What is claimed begins a moment later.
    eventually("five are at the gate", async || worker.diary.active.load(Ordering::SeqCst) == 5).await;
    gate.add_permits(20);
    shop.is_empty().await;
    assert_eq!(worker.diary.most_active.load(Ordering::SeqCst), 5);
    assert_eq!(worker.runs(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_key_run_one_at_a_time_and_hold_up_nobody_else() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |job| if job.key == "slow" { through(&gate) } else { done() }
    });
    let jobs = (0..50).map(|_| shop.job(JobKind::UserSync, "slow"));
    shop.add(jobs.chain((0..10).map(|n| shop.job(JobKind::UserSync, &format!("quick-{n}")))).collect()).await;
    shop.becomes("done", 10).await;
    assert_eq!(shop.count("running").await, 1, "one of the slow key runs");
    gate.add_permits(50);
    shop.is_empty().await;
    let slow = worker.diary.runs.lock().unwrap().iter().filter(|job| job.key == "slow").count();
    assert_eq!(slow, 50);
    assert_eq!(shop.count("done").await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_slow_the_other_side_is_a_slot_is_left_to_jobs_that_do_not_need_it() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |job| if job.kind == JobKind::UserSync { through(&gate) } else { done() }
    });
    shop.add((0..20).map(|n| shop.job(JobKind::UserSync, &format!("user-{n}"))).collect()).await;
    shop.becomes("running", 4).await;
    shop.add_probes("a", 10).await;
    shop.becomes("done", 10).await;
    assert_eq!(shop.count("running").await, 4);
    gate.add_permits(20);
    shop.is_empty().await;
    assert_eq!(worker.runs(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_does_not_wait_for_anothers_backlog() {
    let (shop, gate) = (Shop::open().await, gate());
    let one = queue_of_one();
    // With one slot each of them is a claim and an end on the disk, so there are no more than the test needs.
    shop.add_probes("busy", 100).await;
    let worker = shop.worker(one, {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    gate.add_permits(10);
    worker.has_run(11).await;
    shop.add_probes("new", 1).await;
    gate.add_permits(5);
    worker.has_run(16).await;
    let place = worker.diary.runs.lock().unwrap().iter().position(|job| job.key == "new");
    assert!(place.is_some_and(|place| place <= 13), "the newcomer ran as number {place:?}");
    gate.add_permits(1_000);
    shop.is_empty().await;
}

fn queue_of_one() -> upbridge_server::queue::Options {
    upbridge_server::queue::Options { concurrency: 1, ..options() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_important_goes_first_though_it_came_later() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(queue_of_one(), {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    shop.add_probes("first", 1).await;
    worker.has_run(1).await;
    let urgent = NewJob { priority: 1, ..shop.job(JobKind::Probe, "urgent") };
    let kinds = [JobKind::UsageSync, JobKind::UserSync, JobKind::SubscriptionSync];
    shop.add(kinds.map(|kind| shop.job(kind, kind.as_str())).into_iter().chain([urgent]).collect()).await;
    gate.add_permits(5);
    shop.is_empty().await;
    let keys: Vec<String> = worker.diary.runs.lock().unwrap().iter().map(|job| job.key.clone()).collect();
    assert_eq!(keys, ["first", "urgent", "subscription_sync", "user_sync", "usage_sync"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_after_a_kept_wait_and_given_up_after_the_last() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), |_| async { Outcome::retry("no luck") }.boxed());
    shop.add_probes("a", 1).await;
    for attempt in 1..=3_i64 {
        let failed = format!("SELECT COUNT(*) FROM jobs WHERE state = 'scheduled' AND attempts = {attempt}");
        eventually("the job has failed once more", async || shop.database.count(&failed).await == 1).await;
        assert_eq!(worker.runs() as i64, attempt, "nothing is tried before its time");
        let ceiling = TimeDelta::seconds(4_i64.pow(attempt as u32 - 1));
        shop.clock.advance(ceiling);
    }
    shop.becomes("dead", 1).await;
    assert_eq!(worker.runs(), 4, "one try and three more");
    let deaths = worker.diary.deaths.lock().unwrap().clone();
    assert_eq!(deaths.len(), 1);
    assert_eq!(deaths[0].1, "no luck");
    let errors = shop.database.texts("SELECT CAST(errors AS TEXT) FROM finished_jobs").await;
    assert_eq!(errors[0].matches("no luck").count(), 4, "{errors:?}");
    shop.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_side_asked_for_is_waited_for() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), |job| {
        let again = Outcome::Retry { error: "busy".into(), after: Some(Duration::from_secs(120)) };
        async move { if job.key == "a" && job.attempts == 0 { again } else { Outcome::Done(None) } }.boxed()
    });
    shop.add_probes("a", 1).await;
    shop.becomes("scheduled", 1).await;
    shop.clock.advance(TimeDelta::seconds(119));
    shop.add_probes("b", 1).await;
    shop.becomes("done", 1).await;
    assert_eq!((worker.runs(), shop.count("scheduled").await), (2, 1));
    shop.clock.advance(TimeDelta::seconds(1));
    shop.becomes("done", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_of_that_job_alone() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), |job| {
        async move {
            assert!(job.key != "poison" || job.attempts > 0, "this one panics");
            Outcome::Done(None)
        }
        .boxed()
    });
    shop.add(vec![shop.job(JobKind::Probe, "poison"), shop.job(JobKind::Probe, "sound")]).await;
    shop.becomes("done", 1).await;
    shop.becomes("scheduled", 1).await;
    shop.clock.advance(TimeDelta::seconds(1));
    shop.becomes("done", 2).await;
    assert_eq!(worker.runs(), 3);
    shop.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_back_what_it_cannot_finish_and_no_try_is_spent() {
    let (shop, gate) = (Shop::open().await, gate());
    let first = shop.worker(options(), {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    shop.add_probes("a", 3).await;
    first.has_run(3).await;
    first.stop().await;
    assert_eq!(shop.count("ready").await, 3);
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM workers").await, 0);
    let second = shop.worker(options(), |_| done());
    shop.is_empty().await;
    assert!(
        second.diary.runs.lock().unwrap().iter().all(|job| job.attempts == 0 && job.rescues == 0 && job.lease == 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_dead_worker_are_rescued_and_poison_is_set_aside() {
    let (shop, gate) = (Shop::open().await, gate());
    shop.add_probes("a", 1).await;
    for rescues in 0..=3 {
        let worker = shop.worker(beating(), {
            let gate = gate.clone();
            move |_| through(&gate)
        });
        worker.has_run(1).await;
        assert_eq!(worker.diary.runs.lock().unwrap()[0].rescues, rescues);
        worker.crash();
    }
    let worker = shop.worker(beating(), |_| done());
    shop.becomes("dead", 1).await;
    assert_eq!(worker.runs(), 0);
    assert_eq!(worker.diary.deaths.lock().unwrap().len(), 1);
    shop.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_taken_for_dead_gives_up_its_jobs_and_starts_anew() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(beating(), {
        let gate = gate.clone();
        move |job| if job.lease == 1 { through(&gate) } else { done() }
    });
    shop.add_probes("a", 2).await;
    worker.has_run(2).await;
    shop.database.execute("DELETE FROM workers").await;
    worker.has_run(4).await;
    shop.is_empty().await;
    assert_eq!(shop.count("done").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_called_off_while_it_runs_is_stopped_and_its_end_is_not_believed() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    let job = shop.job(JobKind::Probe, "a");
    shop.add(vec![job.clone()]).await;
    worker.has_run(1).await;
    let now = job.at;
    let cancelled = shop.store.write(job.id, move |tx, id| Box::pin(storage::job::cancel(tx, *id, now))).await;
    assert_eq!(cancelled.expect("cancelled").map(|job| job.lease), Some(1));
    gate.add_permits(1);
    shop.add_probes("b", 1).await;
    gate.add_permits(1);
    shop.becomes("done", 1).await;
    assert_eq!(shop.count("cancelled").await, 1);
    shop.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_unique_key_one_waits_and_a_change_while_it_runs_makes_another() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |_| through(&gate)
    });
    let sync = || shop.job(JobKind::UserSync, "u").unique("u");
    shop.add(vec![sync()]).await;
    worker.has_run(1).await;
    shop.add(vec![sync(), sync()]).await;
    shop.add(vec![NewJob { priority: 10, ..sync() }]).await;
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 2);
    assert_eq!(shop.database.count("SELECT priority FROM jobs WHERE state <> 'running'").await, 10);
    gate.add_permits(2);
    shop.is_empty().await;
    assert_eq!(worker.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_gives_way_to_a_newer_one_of_its_unique_key() {
    let (shop, gate) = (Shop::open().await, gate());
    let worker = shop.worker(options(), {
        let gate = gate.clone();
        move |job| {
            let passed = through(&gate);
            async move {
                passed.await;
                if job.payload["first"] == true { Outcome::retry("too late") } else { Outcome::Done(None) }
            }
            .boxed()
        }
    });
    let first = NewJob { payload: serde_json::json!({"first": true}).into(), ..shop.job(JobKind::UserSync, "u") };
    shop.add(vec![first.unique("u")]).await;
    worker.has_run(1).await;
    shop.add(vec![shop.job(JobKind::UserSync, "u").unique("u")]).await;
    gate.add_permits(2);
    shop.is_empty().await;
    assert_eq!(worker.runs(), 2);
    assert_eq!((shop.count("done").await, shop.count("dead").await), (1, 0));
}
