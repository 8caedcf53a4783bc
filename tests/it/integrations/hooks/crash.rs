//! Hubs that die, stop or work side by side in the middle of deliveries: nothing is lost, and nothing that was recorded
//! is sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use upbridge_server::model::hook::DeliveryStatus::Success;
use upbridge_server::model::hook::Hook;
use upbridge_server::model::{Clock, clock::SystemClock};

use super::desk::{Set, everywhere, orders};
use crate::harness::{HubProcess, TestDatabase, eventually, within};
use crate::peer::{Asked, HttpPeer, Reply};

const EVENTS: usize = 400;

/// A database in which two webhooks wait for half of the events each, and nobody works.
async fn waiting(peer: &HttpPeer) -> (TestDatabase, Vec<Hook>) {
    let desk = Set::default().at(SystemClock.now()).open_idle(TestDatabase::new().await).await;
    let mut hooks = Vec::new();
    for half in 0..2 {
        let hook = desk.hook_with(|new| (new.url, new.retry_delay) = (peer.url(), Some(1))).await;
        desk.tell(hook.integration_id, half * EVENTS / 2..(half + 1) * EVENTS / 2).await;
        hooks.push(hook);
    }
    (desk.stop().await, hooks)
}

fn start(database: &TestDatabase) -> HubProcess {
    // What a hub had when it died is another's soon, but nobody is taken for dead who only had to wait for the machine.
    let few = ("WEBHOOK_ENDPOINT_CONCURRENCY", "4");
    let soon = [("QUEUE_HEARTBEAT_INTERVAL", "3000"), few];
    HubProcess::run(HubProcess::command(database).envs(everywhere()).envs(soon))
}

/// The orders whose delivery is recorded as received.
async fn recorded(database: &TestDatabase) -> BTreeSet<usize> {
    let payloads = database.texts("SELECT payload FROM webhook_deliveries WHERE status = 'success'").await;
    let order = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap()["data"]["order"].as_u64();
    payloads.iter().filter_map(order).map(|order| order as usize).collect()
}

/// How often each order came.
fn counts(asked: &[Asked]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    orders(asked).into_iter().for_each(|order| *counts.entry(order).or_default() += 1);
    counts
}

/// Every order came under one id.
fn one_id_each(asked: &[Asked]) {
    let ids: BTreeSet<(u64, &str)> =
        asked.iter().map(|one| (one.json()["data"]["order"].as_u64().unwrap(), one.header("webhook-id"))).collect();
    assert_eq!(ids.len(), EVENTS);
}

// The receiver answers while the test waits for a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_killed_loses_no_delivery_and_repeats_none_that_it_had_recorded() {
    let peer = HttpPeer::start().await;
    // So many are answered, so that it cannot be done before it is killed.
    let gate = Arc::new(Semaphore::new(EVENTS * 3 / 4));
    peer.always(Reply::status(200).held(&gate));
    let (database, _) = waiting(&peer).await;
    let hub = start(&database);
    eventually("it is in the middle of it", async || peer.count() >= EVENTS / 4).await;
    hub.kill();
    let at_the_kill = recorded(&database).await;
    let before = peer.asked();
    assert!(before.len() < EVENTS, "it was killed too late to show anything");
    gate.add_permits(10 * EVENTS);
    let hub = start(&database);
    within(Duration::from_secs(60), "everything is recorded", async || recorded(&database).await.len() == EVENTS).await;
    let asked = peer.asked();
    let counts = counts(&asked);
    assert_eq!(counts.len(), EVENTS, "none is lost");
    let again = asked[before.len()..].iter().filter(|one| at_the_kill.contains(&orders(std::slice::from_ref(one))[0]));
    assert_eq!(again.count(), 0, "what was recorded is not sent again");
    let repeated = asked.len() - EVENTS;
    assert!(repeated <= 2 * 2 * 4, "of each webhook no more than was on its way or received just now: {repeated}");
    one_id_each(&asked);
    drop(hub);
}

// The receiver answers while the test waits for a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_stopped_repeats_nothing() {
    let peer = HttpPeer::start().await;
    let (database, _) = waiting(&peer).await;
    let hub = start(&database);
    eventually("it is in the middle of it", async || peer.count() >= EVENTS / 4).await;
    assert_eq!(hub.terminate(), Some(0));
    assert_eq!(recorded(&database).await.len(), peer.count(), "what was sent is recorded");
    let hub = start(&database);
    within(Duration::from_secs(60), "everything is recorded", async || recorded(&database).await.len() == EVENTS).await;
    let asked = peer.asked();
    assert_eq!((asked.len(), counts(&asked).len()), (EVENTS, EVENTS));
    one_id_each(&asked);
    drop(hub);
}

#[tokio::test]
async fn a_database_that_is_away_in_the_middle_has_nothing_sent_twice() {
    let set = Set::default().and("WEBHOOK_ENDPOINT_CONCURRENCY", 4);
    let (desk, peer) = (set.open().await, HttpPeer::start().await);
    if !desk.database.is_postgres() {
        return;
    }
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, 0..EVENTS).await;
    let cut = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // A job that was cut off while it read is tried again later by the hub's clock, which stands otherwise.
    let later = || desk.clock.advance(chrono::TimeDelta::milliseconds(500));
    for part in 1..=4 {
        within(Duration::from_secs(60), "it is in the middle of it", async || {
            later();
            peer.count() >= part * EVENTS / 6
        })
        .await;
        desk.database.texts(cut).await;
    }
    within(Duration::from_secs(60), "everything is recorded", async || {
        later();
        recorded(&desk.database).await.len() == EVENTS
    })
    .await;
    let counts = counts(&peer.asked());
    assert_eq!((counts.len(), counts.values().copied().max()), (EVENTS, Some(1)));
    one_id_each(&peer.asked());
}

#[tokio::test]
async fn two_hubs_on_one_database_send_each_delivery_once() {
    let (desk, peer) = (Set::default().open().await, HttpPeer::start().await);
    if !desk.database.is_postgres() {
        return;
    }
    let other = desk.another().await;
    let mut hooks = Vec::new();
    for _ in 0..4 {
        hooks.push(desk.hook(&peer).await);
    }
    for round in 0..50 {
        let (one, two) = (&hooks[round % 4], &hooks[(round + 1) % 4]);
        desk.tell(one.integration_id, round * 20..round * 20 + 10).await;
        other.tell(two.integration_id, round * 20 + 10..round * 20 + 20).await;
    }
    for hook in &hooks {
        eventually("all are received", async || {
            let found = desk.deliveries(hook.id).await;
            !found.is_empty() && found.iter().all(|one| one.status == Success)
        })
        .await;
    }
    eventually("every event", async || peer.count() >= 1_000).await;
    let counts = counts(&peer.asked());
    assert_eq!((counts.len(), counts.values().copied().max()), (1_000, Some(1)));
    other.stop().await;
}
