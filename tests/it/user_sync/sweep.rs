//! Those who were missed.

use std::time::Duration;

use chrono::TimeDelta;
use upbridge_client::v1;

use super::{becomes, status_of, synced, with};
use crate::harness::{Peer, TestDatabase, TestHub, eventually, within};

/// What hundreds of pushes take at most.
const LONG: Duration = Duration::from_secs(60);

/// Adds users whom nobody ever asked to push.
async fn add_users(database: &TestDatabase, count: usize) {
    let users = match database.is_postgres() {
        true => format!("SELECT gen_random_uuid(), n || '@swept.example', 'x' FROM generate_series(1, {count}) AS n"),
        false => format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
             SELECT randomblob(16), n || '@swept.example', 'x' FROM numbers"
        ),
    };
    database.execute(&format!("INSERT INTO users (id, email, password_hash) {users}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_who_are_behind_are_three_batches() {
    let database = TestHub::start().await.stop().await;
    // With the administrator they are 250.
    add_users(&database, 249).await;
    let peer = Peer::start().await;
    let hub =
        with(&peer).set("SYNC_INTERVAL", "3600000").set("QUEUE_REMOVE_ON_COMPLETE", "1000").start_on(database).await;
    let behind = "SELECT COUNT(*) FROM users WHERE sync_status <> 'synced'";
    within(LONG, "everybody is synced", async || hub.database.count(behind).await == 0).await;
    eventually("the queue is empty", async || hub.database.count("SELECT COUNT(*) FROM jobs").await == 0).await;
    let batches = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sweep' AND state = 'done'";
    assert_eq!(hub.database.count(batches).await, 3);
    assert_eq!(peer.heard().len(), 250, "each was pushed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_confirmed_for_a_week_is_pushed_again() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let member = synced(&hub).await;
    let before = status_of(&hub, &member.id).await;
    hub.clock.advance(TimeDelta::days(6));
    let other = synced(&hub).await;
    assert_eq!(peer.heard_of(&member.id).len(), 1, "six days are no week");
    hub.clock.advance(TimeDelta::days(1) + TimeDelta::minutes(1));
    eventually("it is pushed again", async || {
        hub.clock.advance(TimeDelta::milliseconds(100));
        status_of(&hub, &member.id).await.creatorup_synced_at != before.creatorup_synced_at
    })
    .await;
    assert_eq!((peer.heard_of(&member.id).len(), peer.heard_of(&other.id).len()), (2, 1));
    assert_eq!(status_of(&hub, &member.id).await.recent_events.len(), 2, "the refreshment is an event of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_alone_those_whose_push_is_under_way() {
    let (peer, gate) = (Peer::start().await, super::gate());
    let hub = with(&peer).set("QUEUE_REMOVE_ON_COMPLETE", "1000").start().await;
    synced(&hub).await;
    peer.plays([crate::harness::Play::Hold(gate.clone())]);
    let member = hub.member().await;
    eventually("its push is under way", async || peer.heard_of(&member.id).len() == 1).await;
    let sweeps = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sweep' AND state = 'done'";
    let before = hub.database.count(sweeps).await;
    eventually("sweeps come by", async || {
        hub.clock.advance(TimeDelta::milliseconds(100));
        hub.database.count(sweeps).await >= before + 3
    })
    .await;
    gate.add_permits(1);
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    super::settles(&hub, &member.id).await;
    assert_eq!((peer.heard_of(&member.id).len(), status_of(&hub, &member.id).await.recent_events.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_of_all_hubs_together_push_each_stale_user_once() {
    let database = TestHub::start().await.stop().await;
    add_users(&database, 150).await;
    // Confirmed a fortnight ago, which is stale.
    let at = "2026-03-01T12:00:00+00:00";
    database.execute(&format!("UPDATE users SET sync_status = 'synced', creatorup_synced_at = '{at}'")).await;
    let peer = Peer::start().await;
    let hub = |database| with(&peer).set("SYNC_BATCH_SIZE", "20").set("QUEUE_CONCURRENCY", "4").start_on(database);
    let mut hubs = vec![hub(database).await];
    if hubs[0].database.is_postgres() {
        let directory = tempfile::tempdir().unwrap();
        hubs.push(hub(TestDatabase { url: hubs[0].database.url.clone(), directory }).await);
    }
    // Each time that is looked, another sweep is due.
    let stale = format!("SELECT COUNT(*) FROM users WHERE creatorup_synced_at = '{at}'");
    within(LONG, "every copy is fresh", async || {
        hubs.iter().for_each(|hub| hub.clock.advance(TimeDelta::milliseconds(100)));
        hubs[0].database.count(&stale).await == 0
    })
    .await;
    let jobs = "SELECT COUNT(*) FROM jobs";
    eventually("no job is left", async || hubs[0].database.count(jobs).await == 0).await;
    let mut heard: Vec<String> = peer.heard().iter().map(|heard| heard.body["digiup_user_id"].to_string()).collect();
    let pushes = heard.len();
    heard.sort_unstable();
    heard.dedup();
    assert_eq!((pushes, heard.len()), (151, 151), "each once, with the administrator");
}
