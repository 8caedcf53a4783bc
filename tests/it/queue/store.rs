//! What the store promises of jobs, on each database: one transition after the other, without a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use upbridge_server::model::event::{EventKind, EventStatus, NewEvent};
use upbridge_server::model::job::{Job, JobFilter, JobKind, JobState, NewJob, Outcome, Redrive};
use upbridge_server::model::tally::{Metric, Span};
use upbridge_server::model::transition::JobStep;
use upbridge_server::model::{Clock, Instant};
use upbridge_server::storage::job::{self, Claim, Keep, Orphans, Settled, Settlement};
use upbridge_server::storage::{Emit, WriteTx, tally};
use uuid::Uuid;

use super::shop::{Shop, options};
use crate::harness::eventually;

const KEEP: Keep = Keep { done: 100, failed: 50 };

impl Shop {
    async fn claim(&self, most: usize) -> Vec<Job> {
        let claim = Claim { worker_id: Uuid::new_v4(), most, most_leaving: most, most_apart: 0 };
        let claimed = self.store.write_last(claim, |tx, claim| Box::pin(job::claim(tx, claim))).await.unwrap();
        self.adds_up().await;
        claimed.jobs
    }

    async fn settle(&self, jobs: &[Job], outcome: Outcome, wait: TimeDelta) -> Vec<Settled> {
        let (took, now) = (Duration::from_millis(3), self.clock.now());
        let settlement = |job: &Job| Settlement { job: job.clone(), outcome: outcome.clone(), took, next: now + wait };
        let settlements: Vec<Settlement> = jobs.iter().map(settlement).collect();
        let settled = self.store.write((settlements, now), |tx, (settlements, now)| {
            Box::pin(async move { job::settle(tx, &settlements.iter().collect::<Vec<_>>(), KEEP, *now).await })
        });
        let settled = settled.await.unwrap();
        self.adds_up().await;
        settled
    }

    async fn done(&self, job: &Job) -> Settled {
        self.settle(std::slice::from_ref(job), Outcome::Done(None), TimeDelta::zero()).await[0]
    }

    async fn rescue(&self) -> job::Rescued {
        let orphans = Orphans::OfTheDead { silence: Duration::from_secs(60) };
        let rescued = self.store.write(orphans, |tx, orphans| Box::pin(job::rescue(tx, orphans))).await.unwrap();
        self.adds_up().await;
        rescued
    }

    async fn cancel(&self, id: Uuid) -> bool {
        let input = (id, self.clock.now());
        let cancelled = self.store.write(input, |tx, (id, now)| Box::pin(job::cancel(tx, *id, *now))).await.unwrap();
        self.adds_up().await;
        cancelled.is_some()
    }

    async fn redrive(&self, which: Redrive, spread: Duration) -> Vec<(Job, Uuid)> {
        let input = (which, spread, self.clock.now());
        let redriven = self.store.write(input, |tx, (which, spread, now)| {
            Box::pin(async move { job::redrive(tx, which, *spread, *now).await })
        });
        let redriven = redriven.await.unwrap();
        self.adds_up().await;
        redriven
    }

    async fn promote(&self) -> u64 {
        let promoted = self.store.write(self.clock.now(), |tx, now| Box::pin(job::promote(tx, *now))).await.unwrap();
        self.adds_up().await;
        promoted
    }

    /// A job with an event that stands and falls with it; answers with the event's id.
    async fn add_with_event(&self, job: NewJob) -> Uuid {
        let event = NewEvent {
            kind: EventKind::UserSync,
            user_id: Uuid::now_v7(),
            status: EventStatus::Pending,
            payload: serde_json::json!({}).into(),
            at: self.clock.now(),
        };
        let add = |tx: &mut WriteTx, (event, job): &(NewEvent, NewJob)| {
            let id = tx.emit(event.clone());
            tx.enqueue(job.clone().for_event(id));
            id
        };
        let added = self.store.write((event, job), move |tx, input| {
            let id = add(tx, input);
            Box::pin(async move { Ok(id) })
        });
        added.await.unwrap()
    }

    /// Status, retries and error of the only event.
    async fn event(&self) -> (String, i64, String) {
        let text = |column: &str| format!("SELECT COALESCE({column}, '') FROM sync_events");
        (
            self.database.texts(&text("status")).await.remove(0),
            self.database.count("SELECT retry_count FROM sync_events").await,
            self.database.texts(&text("error_message")).await.remove(0),
        )
    }

    async fn view(&self, id: Uuid) -> upbridge_server::model::job::JobView {
        job::find(self.store.read(), self.store.dialect(), self.store.kinds(), id)
            .await
            .unwrap()
            .expect("the job is kept")
    }

    /// The running counts are what counting the rows would say.
    async fn adds_up(&self) {
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let sums = tally::sums(read, dialect, (Metric::Jobs, Span::Total), (0, 1), false).await.unwrap();
        let is_over = |label: &str| [".done", ".dead", ".cancelled"].iter().any(|end| label.ends_with(end));
        let counted: BTreeMap<String, i64> = sums
            .into_iter()
            .filter(|sum| sum.count != 0 && !is_over(&sum.label))
            .map(|sum| (sum.label, sum.count))
            .collect();
        let rows: BTreeMap<String, i64> = job::count_waiting(read, dialect).await.unwrap().into_iter().collect();
        assert_eq!(counted, rows);
    }
}

fn keys(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.key.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_go_by_importance_and_keys_of_a_kind_take_turns() {
    let shop = Shop::open().await;
    shop.add_probes("long", 3).await;
    shop.add_probes("short", 1).await;
    shop.add_probes("other", 1).await;
    for kind in [JobKind::UsageSync, JobKind::Cleanup, JobKind::UserSync, JobKind::SubscriptionSync] {
        shop.add(vec![shop.job(kind, kind.as_str())]).await;
    }
    let first = shop.claim(4).await;
    assert_eq!(keys(&first), ["subscription_sync", "user_sync", "usage_sync", "cleanup"]);
    assert!(first.iter().all(|job| job.lease == 1 && job.attempts == 0));
    assert_eq!(keys(&shop.claim(2).await), ["long", "short"]);
    // Who comes now waits for nobody's backlog, and does not overtake those whose turn it is.
    shop.add_probes("late", 1).await;
    assert_eq!(keys(&shop.claim(9).await), ["other", "long", "late", "long"]);
    assert!(shop.claim(9).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_busy_holds_its_next_jobs_and_nobody_elses() {
    let shop = Shop::open().await;
    let user = |key: &str| shop.job(JobKind::UserSync, key);
    shop.add(vec![user("u"), user("u"), user("u"), user("v"), user("w")]).await;
    let first = shop.claim(4).await;
    assert_eq!(keys(&first), ["u", "v", "w"], "what is held is passed by");
    assert_eq!(shop.count("held").await, 2);
    assert_eq!(shop.done(&first[0]).await, Settled::Now(JobState::Done));
    assert_eq!((shop.count("ready").await, shop.count("held").await), (1, 1));
    let second = shop.claim(9).await;
    assert_eq!(keys(&second), ["u"]);
    // Calling off the one that runs lets the next one go; calling off a held one lets nobody go.
    shop.add(vec![user("u")]).await;
    assert!(shop.claim(9).await.is_empty());
    assert_eq!(shop.count("held").await, 2);
    let held = JobFilter { state: Some(JobState::Held), ..JobFilter::default() };
    let held = job::list(shop.store.read(), shop.store.dialect(), shop.store.kinds(), &held, 9).await.unwrap();
    assert!(shop.cancel(held[0].job.id).await);
    assert_eq!((shop.count("ready").await, shop.count("held").await), (0, 1));
    assert!(shop.cancel(second[0].id).await);
    assert_eq!((shop.count("ready").await, shop.count("held").await), (1, 0));
    assert_eq!(shop.claim(9).await[0].id, held[1].job.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_job_of_a_unique_key_is_merged_into_the_one_that_waits() {
    let shop = Shop::open().await;
    let unique = || shop.job(JobKind::UserSync, "u").unique("u");
    shop.add(vec![unique(), unique()]).await;
    shop.add(vec![NewJob { priority: 3, ..unique() }]).await;
    shop.add(vec![NewJob { priority: 99, ..unique() }]).await;
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 1);
    assert_eq!(shop.database.count("SELECT priority FROM jobs").await, 3, "the more urgent of the two");
    shop.adds_up().await;
    // One that runs may have read what has changed since, so it takes no other in.
    let running = shop.claim(9).await;
    shop.add(vec![unique()]).await;
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 2);
    // It fails: the one that waits does its work too.
    let settled = shop.settle(&running, Outcome::retry("no"), TimeDelta::seconds(1)).await;
    assert_eq!(settled, [Settled::Now(JobState::Cancelled)]);
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 1);
    let again = shop.claim(9).await;
    assert_eq!((again.len(), shop.done(&again[0]).await), (1, Settled::Now(JobState::Done)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_try_waits_in_its_row_and_the_last_one_makes_a_dead_letter() {
    let shop = Shop::open().await;
    shop.add_with_event(shop.job(JobKind::Probe, "p")).await;
    for attempt in 1..=3 {
        let claimed = shop.claim(1).await;
        assert_eq!((claimed[0].attempts, claimed[0].lease), (attempt - 1, i64::from(attempt)));
        let failed = shop.settle(&claimed, Outcome::retry(format!("no {attempt}")), TimeDelta::seconds(5)).await;
        assert_eq!(failed, [Settled::Now(JobState::Scheduled)]);
        assert_eq!(shop.event().await, ("pending".into(), attempt.into(), format!("no {attempt}")));
        let view = shop.view(claimed[0].id).await;
        assert_eq!(view.run_at, Some(shop.clock.now() + TimeDelta::seconds(5)));
        shop.clock.advance(TimeDelta::milliseconds(4_999));
        assert_eq!((shop.promote().await, shop.claim(1).await.len()), (0, 0));
        shop.clock.advance(TimeDelta::milliseconds(1));
        assert_eq!(shop.promote().await, 1);
    }
    let last = shop.claim(1).await;
    let dead = shop.settle(&last, Outcome::retry("no 4"), TimeDelta::seconds(5)).await;
    assert_eq!(dead, [Settled::Now(JobState::Dead)]);
    assert_eq!(shop.event().await, ("failed".into(), 3, "no 4".into()));
    let view = shop.view(last[0].id).await;
    let errors: Vec<&str> = view
        .job
        .errors
        .as_ref()
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["error"].as_str().unwrap())
        .collect();
    assert_eq!((view.state, view.job.attempts, errors), (JobState::Dead, 4, vec!["no 1", "no 2", "no 3", "no 4"]));
    let (began, ended): (Option<Instant>, Option<Instant>) = (view.started_at, view.finished_at);
    assert_eq!(ended.unwrap() - began.unwrap(), TimeDelta::milliseconds(3), "how long it took is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_under_an_old_lease_changes_nothing() {
    let shop = Shop::open().await;
    shop.add_with_event(shop.job(JobKind::Probe, "p")).await;
    let first = shop.claim(1).await;
    assert_eq!(shop.rescue().await.ready, 1, "a worker that never signed on is gone");
    let stale = Outcome::retry("late");
    assert_eq!(shop.settle(&first, stale.clone(), TimeDelta::zero()).await, [Settled::Stale], "nobody has it");
    let second = shop.claim(1).await;
    assert_eq!((second[0].id, second[0].lease, second[0].rescues), (first[0].id, 2, 1));
    for outcome in [Outcome::Done(None), stale, Outcome::dead("late"), Outcome::Released] {
        assert_eq!(shop.settle(&first, outcome, TimeDelta::zero()).await, [Settled::Stale], "another has it");
    }
    assert_eq!(shop.event().await, ("pending".into(), 0, String::new()));
    assert_eq!(shop.done(&second[0]).await, Settled::Now(JobState::Done));
    assert_eq!(shop.done(&second[0]).await, Settled::Stale, "it is over");
    assert_eq!(shop.event().await.0, "completed");
    assert_eq!(shop.count("done").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_outlives_three_workers_is_set_aside_with_its_event() {
    let shop = Shop::open().await;
    shop.add_with_event(shop.job(JobKind::UserSync, "u")).await;
    shop.add(vec![shop.job(JobKind::UserSync, "u")]).await;
    for rescues in 0..3 {
        let claimed = shop.claim(1).await;
        assert_eq!((claimed[0].rescues, claimed[0].attempts), (rescues, 0), "a rescue spends no try");
        assert_eq!(shop.rescue().await.ready, 1);
    }
    let poison = shop.claim(1).await;
    assert!(shop.claim(9).await.is_empty());
    assert_eq!(shop.count("held").await, 1);
    let rescued = shop.rescue().await;
    assert_eq!((rescued.ready, rescued.poison.len(), rescued.poison[0].id), (0, 1, poison[0].id));
    let input = (poison[0].clone(), shop.clock.now());
    let set_aside = || {
        let why = "given up: its workers died under it too often";
        shop.store.write(input.clone(), move |tx, (job, now)| Box::pin(job::set_aside(tx, job, why, true, *now)))
    };
    assert!(set_aside().await.unwrap());
    assert!(!set_aside().await.unwrap(), "it is");
    shop.adds_up().await;
    assert_eq!(shop.event().await.0, "failed");
    assert!(shop.event().await.2.contains("workers died"), "{:?}", shop.event().await);
    assert_eq!(shop.view(poison[0].id).await.state, JobState::Dead);
    assert_eq!(shop.claim(9).await.len(), 1, "the next of its key goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_beats_keeps_its_jobs_and_one_that_leaves_gives_them_up() {
    let shop = Shop::open().await;
    let worker = Uuid::new_v4();
    let sign_on = shop.store.write(worker, |tx, id| Box::pin(job::sign_on(tx, *id, "test", false)));
    sign_on.await.unwrap();
    shop.add_probes("p", 1).await;
    let claim = Claim { worker_id: worker, most: 1, most_leaving: 1, most_apart: 0 };
    assert_eq!(shop.store.write(claim, |tx, claim| Box::pin(job::claim(tx, claim))).await.unwrap().jobs.len(), 1);
    assert_eq!(shop.rescue().await.ready, 0);
    assert!(shop.store.write(worker, |tx, id| Box::pin(job::beat(tx, *id))).await.unwrap());
    let listed = job::workers(shop.store.read(), shop.store.dialect()).await.unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].active), (1, worker, 1));
    assert!(listed[0].silent < Duration::from_secs(20), "{listed:?}");
    shop.store.write(worker, |tx, id| Box::pin(job::leave(tx, *id))).await.unwrap();
    assert_eq!(shop.rescue().await.ready, 1);
    assert!(!shop.store.write(worker, |tx, id| Box::pin(job::beat(tx, *id))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_is_handed_back_was_none() {
    let shop = Shop::open().await;
    shop.add_probes("p", 1).await;
    let claimed = shop.claim(1).await;
    let released = shop.settle(&claimed, Outcome::Released, TimeDelta::zero()).await;
    assert_eq!(released, [Settled::Now(JobState::Ready)]);
    let again = shop.claim(1).await;
    assert_eq!((again[0].attempts, again[0].rescues, again[0].lease), (0, 0, 2));
    assert!(again[0].errors.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_driven_again_oldest_first_with_all_their_tries() {
    let shop = Shop::open().await;
    shop.add_with_event(shop.job(JobKind::Probe, "a")).await;
    shop.add(vec![shop.job(JobKind::Probe, "b"), shop.job(JobKind::Probe, "c"), shop.job(JobKind::Cleanup, "d")]).await;
    let letters = shop.claim(9).await;
    let dead = shop.settle(&letters, Outcome::dead("never"), TimeDelta::zero()).await;
    assert_eq!((dead.len(), shop.count("dead").await), (4, 4));
    assert_eq!(shop.event().await.0, "failed");
    let only = |which: Redrive| shop.redrive(Redrive { most: 9, ..which }, Duration::ZERO);
    assert!(only(Redrive { key: Some("x".into()), ..Redrive::default() }).await.is_empty());
    assert_eq!(only(Redrive { kind: Some(JobKind::Cleanup.into()), ..Redrive::default() }).await[0].0.key, "d");
    let spread = shop.redrive(Redrive { most: 2, ..Redrive::default() }, Duration::from_millis(500)).await;
    let driven: Vec<&str> = spread.iter().map(|(letter, _)| letter.key.as_str()).collect();
    assert_eq!((driven, shop.count("dead").await), (vec!["a", "b"], 1));
    assert_eq!(shop.event().await, ("pending".into(), 0, "never".into()));
    let (first, second) = (shop.view(spread[0].1).await, shop.view(spread[1].1).await);
    assert_eq!((first.state, second.state), (JobState::Ready, JobState::Scheduled));
    assert_eq!(second.run_at, Some(shop.clock.now() + TimeDelta::milliseconds(500)));
    assert_eq!((first.job.attempts, first.job.rescues, first.job.lease), (0, 0, 0));
    assert!(letters.iter().all(|letter| letter.id != first.job.id), "a new id, so that no old lease is one of it");
    let again = shop.claim(9).await;
    for job in &again {
        shop.done(job).await;
    }
    assert_eq!(shop.event().await.0, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kind_is_not_claimed_and_the_others_are() {
    let shop = Shop::open().await;
    shop.add(vec![shop.job(JobKind::UsageSync, "u"), shop.job(JobKind::Probe, "p")]).await;
    let pause = || shop.store.write(shop.clock.now(), |tx, now| Box::pin(job::pause(tx, JobKind::UsageSync, *now)));
    assert!(pause().await.unwrap());
    assert!(!pause().await.unwrap(), "it was");
    assert_eq!(keys(&shop.claim(9).await), ["p"]);
    let paused = job::paused(shop.store.read(), shop.store.dialect(), shop.store.kinds()).await.unwrap();
    assert_eq!(paused, [(JobKind::UsageSync.into(), shop.clock.now())]);
    let resume = || shop.store.write((), |tx, ()| Box::pin(job::resume(tx, JobKind::UsageSync)));
    assert!(resume().await.unwrap());
    assert!(!resume().await.unwrap(), "it did");
    assert_eq!(keys(&shop.claim(9).await), ["u"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_called_off_in_any_state_and_its_event_fails_with_it() {
    let shop = Shop::open().await;
    let later = NewJob { run_at: Some(shop.clock.now() + TimeDelta::hours(1)), ..shop.job(JobKind::Probe, "later") };
    shop.add_with_event(later.clone()).await;
    assert!(shop.cancel(later.id).await);
    assert!(!shop.cancel(later.id).await, "it is over");
    assert_eq!(shop.event().await, ("failed".into(), 0, "called off by an administrator".into()));
    shop.add_probes("p", 2).await;
    let running = shop.claim(1).await;
    assert!(shop.cancel(running[0].id).await);
    assert_eq!(shop.done(&running[0]).await, Settled::Stale);
    assert_eq!((shop.count("cancelled").await, shop.count("ready").await, shop.count("running").await), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_job_is_ready_when_an_administrator_says_so() {
    let shop = Shop::open().await;
    let later = NewJob { run_at: Some(shop.clock.now() + TimeDelta::hours(1)), ..shop.job(JobKind::Probe, "later") };
    shop.add(vec![later.clone()]).await;
    let now =
        || shop.store.write((later.id, shop.clock.now()), |tx, (id, now)| Box::pin(job::retry_now(tx, *id, *now)));
    assert!(now().await.unwrap());
    assert!(!now().await.unwrap(), "it is ready");
    shop.adds_up().await;
    assert_eq!(shop.view(later.id).await.run_at, Some(shop.clock.now()));
    assert_eq!(shop.claim(1).await[0].id, later.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_finished_jobs_are_kept_and_every_event_is() {
    let shop = Shop::open().await;
    let worker = shop.worker(options(), |job| {
        Box::pin(async move { if job.key == "bad" { Outcome::dead("bad") } else { Outcome::Done(None) } })
    });
    for _ in 0..80 {
        shop.add_with_event(shop.job(JobKind::Probe, "bad")).await;
    }
    for _ in 0..150 {
        shop.add_with_event(shop.job(JobKind::Probe, "good")).await;
    }
    worker.has_run(230).await;
    shop.is_empty().await;
    shop.becomes("done", 100).await;
    shop.becomes("dead", 50).await;
    let events = async |status: &str| {
        shop.database.count(&format!("SELECT COUNT(*) FROM sync_events WHERE status = '{status}'")).await
    };
    assert_eq!((events("completed").await, events("failed").await), (150, 80));
    let oldest = "SELECT COUNT(*) FROM sync_events WHERE status = 'failed' AND id < (SELECT MIN(event_id) FROM \
                  finished_jobs WHERE state = 'dead')";
    if shop.database.is_postgres() {
        // PostgreSQL has no smallest of UUIDs before version 18.
        return;
    }
    assert_eq!(shop.database.count(oldest).await, 30, "the newest are kept");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_watch_are_told_every_step_in_order() {
    let shop = Shop::open().await;
    let mut watch = shop.store.job_feed().watch();
    let user = || shop.job(JobKind::UserSync, "u");
    shop.add(vec![user(), user()]).await;
    let first = shop.claim(2).await;
    shop.settle(&first, Outcome::retry("no"), TimeDelta::seconds(1)).await;
    shop.clock.advance(TimeDelta::seconds(1));
    shop.promote().await;
    let second = shop.claim(1).await;
    shop.done(&second[0]).await;
    let third = shop.claim(1).await;
    shop.cancel(third[0].id).await;
    let mut steps = Vec::new();
    eventually("all is told", async || {
        if let Ok(Some((missed, told))) = tokio::time::timeout(Duration::from_millis(10), watch.next()).await {
            assert_eq!(missed, 0);
            steps.extend(told.into_iter().map(|one| (one.step, one.lease)));
        }
        steps.last().is_some_and(|(step, _)| *step == JobStep::Cancelled)
    })
    .await;
    let expected = [
        (JobStep::Enqueued, 0),
        (JobStep::Enqueued, 0),
        (JobStep::Held, 0),
        (JobStep::Running, 1),
        (JobStep::Scheduled, 1),
        (JobStep::Ready, 0),
        (JobStep::Ready, 1),
        (JobStep::Running, 2),
        (JobStep::Done, 2),
        (JobStep::Running, 1),
        (JobStep::Cancelled, 1),
    ];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    let sorted = |mut steps: Vec<(JobStep, i64)>| {
        steps.sort_unstable();
        steps
    };
    assert_eq!(sorted(steps.clone()), sorted(expected.to_vec()), "{steps:?}");
    drop(watch);
    assert_eq!(shop.store.job_feed().watchers(), 0);
}
