//! A push and a webhook that pass each other on the way: whichever came last, both sides end with the same subscription.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use upbridge_client::v1;
use upbridge_server::model::Clock;

use super::{SUBSCRIPTION, deliver, outcome};
use crate::harness::{Member, Peer, Play, Setup, TestHub, eventually};

async fn start(peer: &Peer) -> (TestHub, Member) {
    // A push that is held waits for the test, and is not given up before.
    let setup = Setup::default().set("CREATORUP_API_URL", peer.url()).set("SYNC_TIMEOUT", "60000");
    let hub = setup.set("QUEUE_POLL_INTERVAL", "20").set("SYNC_INTERVAL", "86400000").start().await;
    let member = hub.subscriber(1).await;
    rests(&hub, &member).await;
    // The administrator's push and the first sweep are over too: what is pushed from now on is what the test asks for.
    let swept = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sweep' AND state = 'done'";
    eventually("the first sweep is over", async || hub.database.count(swept).await > 0).await;
    let jobs = "SELECT COUNT(*) FROM jobs";
    eventually("nobody's push waits", async || hub.database.count(jobs).await == 0).await;
    (hub, member)
}

/// No push of the member waits or runs, and CreatorUp has confirmed the newest.
async fn rests(hub: &TestHub, member: &Member) {
    eventually("the copy is right and no push waits", async || {
        let request = v1::GetSyncStatusRequest { digiup_user_id: Some(member.id.clone()) };
        let standing = hub.service().await.user_sync().get_sync_status(request).await.unwrap().into_inner();
        let jobs = format!("SELECT COUNT(*) FROM jobs WHERE queue_key = '{}'", member.id);
        hub.database.count(&jobs).await == 0 && standing.sync_status == i32::from(v1::SyncStatus::Synced)
    })
    .await;
}

async fn rename(hub: &TestHub, member: &Member, name: &str) {
    let renamed = v1::UpdateUserRequest { user_id: member.id.clone(), name: Some(name.into()), ..Default::default() };
    hub.admin().await.users().update_user(renamed).await.unwrap();
}

/// CreatorUp changes the member's subscription; says what that did here.
async fn change(hub: &TestHub, member: &Member, status: &str, ago: TimeDelta) -> Value {
    let occurred_at = hub.clock.now() - ago;
    let body = json!({
        "digiup_user_id": member.id,
        "event_id": format!("{status}-{occurred_at}"),
        "occurred_at": occurred_at,
        "subscription_data": { "plan": "Pro", "status": status, "end_date": "2026-06-15T00:00:00.000Z" },
    });
    outcome(hub, &deliver(hub, SUBSCRIPTION, &body).await).await["change"].clone()
}

/// The plans and statuses that CreatorUp was pushed.
fn told(peer: &Peer, member: &Member) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let heard = peer.heard_of(&member.id).into_iter();
    heard.map(|heard| (text(&heard.body["plan"]["name"]), text(&heard.body["subscription"]["status"]))).collect()
}

fn is(plan: &str, status: &str) -> (String, String) {
    (plan.to_owned(), status.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_under_way_that_carries_an_older_subscription_is_followed_by_one_more() {
    let (peer, gate) = (Peer::start().await, Arc::new(Semaphore::new(0)));
    let (hub, member) = start(&peer).await;
    let before = told(&peer, &member).len();
    peer.plays([Play::Hold(gate.clone())]);
    rename(&hub, &member, "Budi").await;
    eventually("the push is under way", async || told(&peer, &member).len() == before + 1).await;
    hub.clock.advance(TimeDelta::seconds(1));
    assert_eq!(change(&hub, &member, "active", TimeDelta::zero()).await, "created");
    gate.add_permits(1);
    eventually("the newer is pushed", async || told(&peer, &member).len() > before + 1).await;
    rests(&hub, &member).await;
    assert_eq!(told(&peer, &member)[before..], [is("Starter", "active"), is("Pro", "active")]);

    // What CreatorUp repeats while it is told, because it was told, is no change and comes back to it no more.
    peer.plays([Play::Hold(gate.clone())]);
    rename(&hub, &member, "Ani").await;
    eventually("the push is under way", async || told(&peer, &member).len() == before + 3).await;
    hub.clock.advance(TimeDelta::seconds(1));
    assert_eq!(change(&hub, &member, "active", TimeDelta::zero()).await, "none");
    gate.add_permits(1);
    rests(&hub, &member).await;
    assert_eq!(told(&peer, &member).len(), before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_applied_after_a_push_confirmed_later_than_it_is_pushed_once_more() {
    let peer = Peer::start().await;
    let (hub, member) = start(&peer).await;
    hub.clock.advance(TimeDelta::seconds(10));
    rename(&hub, &member, "Budi").await;
    rests(&hub, &member).await;
    let before = told(&peer, &member).len();
    hub.clock.advance(TimeDelta::seconds(10));
    // It happened after the push was confirmed: CreatorUp has it.
    assert_eq!(change(&hub, &member, "active", TimeDelta::seconds(5)).await, "created");
    rests(&hub, &member).await;
    assert_eq!(told(&peer, &member).len(), before);
    rename(&hub, &member, "Ani").await;
    rests(&hub, &member).await;
    hub.clock.advance(TimeDelta::seconds(1));
    // It happened before: the push may have come after it.
    assert_eq!(change(&hub, &member, "canceled", TimeDelta::seconds(3)).await, "updated");
    rests(&hub, &member).await;
    assert_eq!(told(&peer, &member)[before..], [is("Pro", "active"), is("Pro", "canceled")]);
    let events = "SELECT COUNT(*) FROM sync_events WHERE status <> 'completed'";
    assert_eq!(hub.database.count(events).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creatorup_that_answers_every_push_with_a_change_is_not_pushed_to_for_ever() {
    let (peer, gate) = (Peer::start().await, Arc::new(Semaphore::new(0)));
    let (hub, member) = start(&peer).await;
    let before = told(&peer, &member).len();
    peer.plays((0..9).map(|_| Play::Hold(gate.clone())));
    rename(&hub, &member, "Budi").await;
    for round in 1..=4 {
        eventually("a push is under way", async || told(&peer, &member).len() == before + round).await;
        hub.clock.advance(TimeDelta::seconds(1));
        let status = if round % 2 == 0 { "canceled" } else { "active" };
        change(&hub, &member, status, TimeDelta::zero()).await;
        gate.add_permits(1);
    }
    let jobs = format!("SELECT COUNT(*) FROM jobs WHERE queue_key = '{}'", member.id);
    eventually("no push waits", async || hub.database.count(&jobs).await == 0).await;
    assert_eq!(told(&peer, &member).len(), before + 4, "the push and three more");
    let behind = hub.database.texts("SELECT sync_status FROM users WHERE sync_status <> 'synced'").await;
    assert!(behind.contains(&"pending".to_owned()), "the sweep will find them: {behind:?}");
}
