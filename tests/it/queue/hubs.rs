//! Several hubs at the same keys of one queue. On SQLite there is one hub, and nothing to show.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sea_orm::ConnectionTrait;
use upbridge_server::model::job::{JobKind, NewJob, Outcome};
use upbridge_server::queue::Options;
use upbridge_server::storage::job::{self, Claim, Claimed};
use uuid::Uuid;

use super::shop::{Shop, options};
use crate::harness::{eventually, within};

impl Shop {
    async fn claim_of(&self, most: usize) -> Claimed {
        let claim = Claim { worker_id: Uuid::new_v4(), most, most_leaving: most, most_apart: 0 };
        let claimed = self.store.write_last(claim, |tx, claim| Box::pin(job::claim(tx, claim)));
        tokio::time::timeout(Duration::from_secs(5), claimed).await.expect("it waits for nobody").expect("claimed")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_passes_by_the_keys_that_another_hub_is_at_and_waits_for_nobody() {
    let shop = Shop::open().await;
    if shop.beside().await.is_none() {
        return;
    }
    let users = ["a", "b", "c"].map(|key| shop.job(JobKind::UserSync, key));
    shop.add(users.to_vec()).await;
    // What another hub does while it claims or ends jobs of this user.
    let other = shop.database.connect().await;
    other.execute_unprepared("BEGIN").await.unwrap();
    other.execute_unprepared("SELECT pg_advisory_xact_lock(hashtextextended('user_sync/b', 0))").await.unwrap();
    let claimed = shop.claim_of(9).await;
    let keys: Vec<&str> = claimed.jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!((keys, claimed.passed_by), (vec!["a", "c"], true));
    assert_eq!((shop.count("ready").await, shop.count("held").await), (1, 0));
    other.execute_unprepared("COMMIT").await.unwrap();
    let claimed = shop.claim_of(9).await;
    assert_eq!((claimed.jobs.len(), claimed.passed_by), (1, false));
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_merged_into_is_claimed_by_nobody_before_the_merge_is_committed() {
    let shop = Arc::new(Shop::open().await);
    let Some(other) = shop.beside().await else { return };
    let unique = || shop.job(JobKind::UserSync, "u").unique("u");
    shop.add(vec![unique()]).await;
    // A transaction with a job of this key does not commit before it is let through.
    let gate = shop.database.connect().await;
    let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN PERFORM pg_advisory_xact_lock(7, 7); RETURN NULL; END $$; \
                CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
                WHEN (NEW.queue_key = 'gate') EXECUTE FUNCTION wait()";
    gate.execute_unprepared(wait).await.unwrap();
    gate.execute_unprepared("BEGIN; SELECT pg_advisory_xact_lock(7, 7)").await.unwrap();
    let merging = {
        let (shop, jobs) = (shop.clone(), vec![unique(), shop.job(JobKind::Probe, "gate")]);
        tokio::spawn(async move { shop.add(jobs).await })
    };
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("it is about to commit", async || shop.database.count(waiting).await == 1).await;
    let keys = |claimed: Claimed| claimed.jobs.into_iter().map(|job| job.key).collect::<Vec<_>>();
    assert_eq!(keys(other.claim_of(9).await), [""; 0], "whoever looks now sees nothing of what is merged");
    // Others merge into it without waiting for anybody.
    other.add(vec![unique()]).await;
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 1);
    gate.execute_unprepared("COMMIT").await.unwrap();
    merging.await.unwrap();
    let mut claimed = keys(other.claim_of(9).await);
    claimed.sort();
    assert_eq!(claimed, ["gate", "u"]);
    gate.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_another_hub_is_about_to_claim_is_not_waited_for_and_not_merged_into() {
    let shop = Shop::open().await;
    if shop.beside().await.is_none() {
        return;
    }
    let unique = |priority: i32| NewJob { priority, ..shop.job(JobKind::UserSync, "u").unique("u") };
    shop.add(vec![unique(50)]).await;
    let other = shop.database.connect().await;
    for lock in ["FOR UPDATE", "FOR SHARE"] {
        other.execute_unprepared(&format!("BEGIN; SELECT id FROM jobs {lock}")).await.unwrap();
        // Of the second, it is the priority that cannot be given to the one that waits.
        let add = shop.add(vec![unique(if lock == "FOR SHARE" { 3 } else { 50 })]);
        tokio::time::timeout(Duration::from_secs(5), add).await.expect("it waits for nobody");
        other.execute_unprepared("ROLLBACK").await.unwrap();
    }
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs").await, 3);
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs WHERE unique_key IS NULL").await, 2);
    shop.add(vec![unique(3)]).await;
    assert_eq!(shop.database.count("SELECT COUNT(*) FROM jobs WHERE priority = 3").await, 2, "one was raised");
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hubs_that_claim_and_end_jobs_of_the_same_keys_never_wait_for_each_other_in_a_circle() {
    let shop = Arc::new(Shop::open().await);
    let Some(other) = shop.beside().await else { return };
    let other = Arc::new(other);
    let work = |_| async { Outcome::Done(None) }.boxed();
    let workers = [shop.worker(options(), work), other.worker(options(), work)];
    // Keys of two kinds, so that a transaction has several; and jobs enqueued meanwhile share transactions with claims
    // and ends.
    let producers = [&shop, &other].map(|shop| {
        let shop = shop.clone();
        tokio::spawn(async move {
            for round in 0..60 {
                let jobs = (0..8).map(|n| {
                    let kind = if n % 2 == 0 { JobKind::UserSync } else { JobKind::SubscriptionSync };
                    let key = format!("key-{}", (n * 7 + round) % 6);
                    let job = shop.job(kind, &key);
                    if n < 4 { job.unique(key) } else { job }
                });
                shop.add(jobs.collect()).await;
            }
        })
    });
    for producer in producers {
        producer.await.unwrap();
    }
    let left = "SELECT COUNT(*) FROM jobs";
    within(Duration::from_secs(60), "no job is left", async || shop.database.count(left).await == 0).await;
    shop.is_empty().await;
    for worker in workers {
        worker.stop().await;
    }
    // The sessions end, and with them their last figures are told.
    for shop in [&shop, &other] {
        shop.close().await;
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(shop.database.count(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_seldom_claims_gives_new_work_no_earlier_turn_than_what_others_have_claimed() {
    let shop = Shop::open().await;
    let Some(idle) = shop.beside().await else { return };
    // All slots of its worker are taken, so it claims nothing and sees what others do by looking alone.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let full = idle.worker(Options { concurrency: 1, ..options() }, {
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
    shop.add(vec![shop.job(JobKind::UsageSync, "slow")]).await;
    full.has_run(1).await;
    shop.add_probes("busy", 500).await;
    assert_eq!(shop.claim_of(300).await.jobs.len(), 300);
    let turn = "SELECT MAX(turn) FROM jobs WHERE queue_key LIKE 'new%'";
    let mut newcomers = 0;
    eventually("a newcomer's turn is after those that were claimed", async || {
        newcomers += 1;
        idle.add_probes(&format!("new-{newcomers}"), 1).await;
        shop.database.count(turn).await > 300
    })
    .await;
    // And it waits for nobody's backlog: it comes right after what was claimed.
    assert!(shop.database.count(turn).await <= 302, "{}", shop.database.count(turn).await);
    gate.add_permits(1);
}
