//! One of the two is not there.

use std::time::{Duration, Instant};

use upbridge_client::v1;
use upbridge_server::config::Config;
use upbridge_server::model::clock::SystemClock;

use super::{becomes, gate, settles, status_of, synced, with};
use crate::harness::{HubProcess, Peer, Play, Setup, TestDatabase, TestHub, eventually, register, variables};

#[tokio::test(flavor = "multi_thread")]
async fn a_creatorup_that_goes_and_comes_back_misses_nothing() {
    let peer = Peer::start().await;
    // However often it is tried in the dark, the next try is not long in coming.
    let hub = with(&peer).set("MAX_SYNC_RETRIES", "100").set("QUEUE_BACKOFF_BASE", "1").start().await;
    let known = synced(&hub).await;
    let address = peer.leave().await;
    let member = hub.member().await;
    super::rename(&hub.admin().await, &known.id, "renamed in the dark").await;
    eventually("it was tried", async || {
        hub.clock.advance(chrono::TimeDelta::seconds(1));
        let event = status_of(&hub, &member.id).await.recent_events.remove(0);
        event.retry_count >= 2 && event.error_message.as_deref() == Some("network: there is no connection")
    })
    .await;
    let dark = status_of(&hub, &known.id).await;
    assert_eq!(dark.sync_status, i32::from(v1::SyncStatus::Pending));
    assert!(dark.creatorup_user_id.is_some(), "what was confirmed once stays");
    let peer = Peer::at(address).await;
    for id in [&member.id, &known.id] {
        becomes(&hub, id, v1::SyncStatus::Synced).await;
    }
    assert_eq!(peer.heard_of(&known.id).pop().unwrap().body["user"]["name"], "renamed in the dark");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creatorup_that_hangs_holds_up_no_caller() {
    let peer = Peer::start().await;
    let hub = with(&peer).set("SYNC_TIMEOUT", "100000").start().await;
    synced(&hub).await;
    peer.plays((0..64).map(|_| Play::Hang));
    let begun = Instant::now();
    for _ in 0..8 {
        hub.member().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(90), "answered without CreatorUp: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_during_a_push_pushes_again_and_ends_up_right() {
    let (peer, gate) = (Peer::start().await, gate());
    let database = TestDatabase::new().await;
    let start = || {
        let mut command = HubProcess::command(&database);
        command.envs([
            ("CREATORUP_API_URL", &*peer.url()),
            // Short, for the second hub must find the first dead; and longer than a busy machine holds its breath, for a
            // hub that is taken for dead while it lives pushes once more.
            ("QUEUE_HEARTBEAT_INTERVAL", "1000"),
            ("QUEUE_POLL_INTERVAL", "20"),
        ]);
        HubProcess::run(&mut command)
    };
    let hub = start();
    eventually("the administrator is pushed", async || peer.heard().len() == 1).await;
    let pushes = "SELECT COUNT(*) FROM jobs WHERE kind = 'user_sync'";
    eventually("and that is noted", async || database.count(pushes).await == 0).await;
    peer.plays([Play::Hold(gate.clone())]);
    let member = register(&hub.client().await, Some(2)).await;
    eventually("the push is under way", async || peer.heard_of(&member.id).len() == 1).await;
    hub.kill();
    // CreatorUp had it, and nobody heard its answer.
    gate.add_permits(1);
    let hub = start();
    let client = hub.client().await.with_bearer(&member.token);
    let standing = async || {
        let status = client.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await;
        status.expect("a status").into_inner()
    };
    eventually("the user is synced", async || standing().await.sync_status == i32::from(v1::SyncStatus::Synced)).await;
    let after = standing().await;
    assert_eq!(after.creatorup_user_id, Some(format!("c-{}", member.id)));
    assert!(
        after.recent_events.iter().all(|event| (&*event.status, event.retry_count) == ("completed", 0)),
        "{after:?}"
    );
    let heard = peer.heard_of(&member.id);
    assert_eq!(heard.len(), 2, "once before the kill and once after");
    assert_eq!(heard[0].headers["idempotency-key"], heard[1].headers["idempotency-key"], "CreatorUp can tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_creatorup_the_hub_is_quiet_and_one_that_comes_later_is_told_everything() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let jobs = "SELECT COUNT(*) FROM jobs WHERE kind = 'user_sync'";
    assert_eq!(hub.database.count(jobs).await, 0, "nothing waits for what may never be");
    let peer = Peer::start().await;
    let hub = with(&peer).start_on(hub.stop().await).await;
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    let status = status_of(&hub, &member.id).await;
    assert_eq!(status.recent_events.len(), 2, "registered and subscribed, and nothing besides");
    assert!(status.recent_events.iter().all(|event| event.status == "completed"));
    super::nobody_waits(&hub).await;

    // The address is taken away with a push still to be made: it waits, and spends no try.
    peer.plays([Play::Say(500, "", String::new())]);
    super::rename(&hub.admin().await, &member.id, "again").await;
    eventually("the first try failed", async || peer.heard_of(&member.id).len() == 2).await;
    let quiet = Setup::default().set("QUEUE_POLL_INTERVAL", "20");
    let hub = quiet.start_on(hub.stop().await).await;
    hub.clock.advance(chrono::TimeDelta::minutes(1));
    eventually("the push is put off", async || {
        let put_off = format!(
            "SELECT COUNT(*) FROM jobs WHERE queue_key = '{}' AND attempts = 0 AND lease = 0 AND state = 'scheduled'",
            member.id
        );
        hub.database.count(&put_off).await == 1
    })
    .await;
    let status = status_of(&hub, &member.id).await;
    assert_eq!((status.sync_status, &*status.recent_events[0].status), (v1::SyncStatus::Pending.into(), "pending"));
    let hub = with(&peer).start_on(hub.stop().await).await;
    hub.clock.advance(chrono::TimeDelta::minutes(10));
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    settles(&hub, &member.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_creatorup_is_there_is_known_within_the_timeout() {
    /// More than a busy machine takes for what takes no time.
    const LONG: u64 = 60_000;
    let peer = Peer::start().await;
    let database = TestDatabase::new().await;
    let open = async |url: Option<String>, timeout_ms: u64| {
        let mut variables = variables(&database);
        variables.insert("SYNC_TIMEOUT".into(), timeout_ms.to_string());
        variables.extend(url.map(|url| ("CREATORUP_API_URL".to_owned(), url)));
        let config = Config::read(&variables, database.directory.path()).expect("a good configuration");
        let stop = tokio_util::sync::CancellationToken::new();
        let hub = upbridge_server::open(&config, std::sync::Arc::new(SystemClock), stop.clone()).await.unwrap();
        let health = hub.creatorup_health().await;
        stop.cancel();
        hub.store().close().await;
        health
    };
    assert_eq!(open(None, LONG).await, None);
    let health = open(Some(peer.url()), LONG).await.unwrap();
    assert!(health.is_reachable() && health.latency.unwrap() < Duration::from_millis(LONG), "{health:?}");
    assert_eq!((&*peer.probed()[0].path, peer.probed()[0].headers.contains_key("x-api-key")), ("/healthz", true));

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let health = open(Some(format!("http://{}", silent.local_addr().unwrap())), 300).await.unwrap();
    assert_eq!(health.problem.as_deref(), Some("timeout: there was no whole answer in time"));
    let gone = peer.leave().await;
    let health = open(Some(format!("http://{gone}")), LONG).await.unwrap();
    assert!(!health.is_reachable());
    assert_eq!(health.problem.as_deref(), Some("network: there is no connection"));
}
