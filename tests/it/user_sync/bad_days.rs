//! A CreatorUp that is not well.

use chrono::TimeDelta;
use upbridge_client::v1;
use upbridge_server::model::Clock;

use super::{becomes, settles, status_of, synced, with};
use crate::harness::{Peer, Play, eventually};

fn say(status: u16, headers: &'static str, body: &str) -> Play {
    Play::Say(status, headers, body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_pass_is_tried_again_and_said_why() {
    let flood = format!("{{\"id\": \"{}\"}}", "x".repeat(70_000));
    let answers = vec![
        (say(500, "", ""), "provider_down"),
        (say(503, "retry-after: 1\r\n", ""), "provider_down"),
        (say(408, "", ""), "provider_down"),
        (say(425, "", ""), "provider_down"),
        (say(429, "", ""), "rate_limited"),
        (say(401, "", ""), "auth"),
        (say(403, "", ""), "auth"),
        (say(302, "location: http://127.0.0.1:1/elsewhere\r\n", ""), "redirect"),
        (say(307, "location: /api/v1/digiup/user/sync\r\n", ""), "redirect"),
        (say(200, "", "<html>welcome</html>"), "invalid_answer"),
        (say(200, "", r#"{"success":false}"#), "invalid_answer"),
        (say(204, "", ""), "invalid_answer"),
        (say(200, "", &flood), "invalid_answer"),
        (say(200, "content-encoding: gzip\r\n", "\u{1f}\u{8b}"), "invalid_answer"),
        (Play::Half, "network"),
        (Play::Close, "network"),
    ];
    is_tried_again("60000", answers).await;
    // The second try must come through in the time that the first waits for in vain.
    is_tried_again("2000", vec![(Play::Hang, "timeout"), (Play::Drip, "timeout")]).await;
}

/// A push that is answered like this fails with this class, waits, and comes through with its second try.
async fn is_tried_again(timeout_ms: &str, answers: Vec<(Play, &str)>) {
    let peer = Peer::start().await;
    let hub = with(&peer).set("SYNC_TIMEOUT", timeout_ms).start().await;
    synced(&hub).await;
    for (play, class) in answers {
        let what = format!("{play:?} is {class}").chars().take(90).collect::<String>();
        peer.plays([play]);
        let member = hub.member().await;
        eventually(&what, async || {
            let event = status_of(&hub, &member.id).await.recent_events.remove(0);
            event.retry_count == 1 && event.error_message.is_some_and(|error| error.starts_with(class))
        })
        .await;
        let failed = status_of(&hub, &member.id).await;
        assert_eq!((failed.creatorup_user_id, failed.creatorup_synced_at), (None, None), "{what}");
        becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
        settles(&hub, &member.id).await;
        let heard = peer.heard_of(&member.id);
        assert_eq!(heard.len(), 2, "{what}");
        assert_eq!(heard[0].headers["idempotency-key"], heard[1].headers["idempotency-key"], "{what}");
        let event = status_of(&hub, &member.id).await.recent_events.remove(0);
        assert_eq!((&*event.status, event.retry_count), ("completed", 1), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_and_the_next_change_is_pushed_all_the_same() {
    let peer = Peer::start().await;
    let hub = with(&peer).set("SYNC_INTERVAL", "86400000").start().await;
    synced(&hub).await;
    for status in [400, 404, 409, 422] {
        peer.plays([say(status, "", r#"{"error":"secret of CreatorUp"}"#)]);
        let member = hub.member().await;
        becomes(&hub, &member.id, v1::SyncStatus::Error).await;
        settles(&hub, &member.id).await;
        let refused = status_of(&hub, &member.id).await;
        let event = &refused.recent_events[0];
        assert_eq!((peer.heard_of(&member.id).len(), &*event.status), (1, "failed"), "{status}");
        assert_eq!(event.error_message, Some(format!("refused: CreatorUp answered {status}")));
        assert_eq!((refused.creatorup_user_id, refused.creatorup_synced_at), (None, None));
        super::rename(&hub.admin().await, &member.id, "mended").await;
        becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_four_tries_all_that_waited_has_failed_and_the_sweep_begins_anew_with_the_same_event() {
    let peer = Peer::start().await;
    let hub = with(&peer).set("SYNC_INTERVAL", "3600000").start().await;
    synced(&hub).await;
    peer.plays((0..4).map(|_| say(500, "", "")));
    let member = hub.subscriber(2).await;
    becomes(&hub, &member.id, v1::SyncStatus::Error).await;
    settles(&hub, &member.id).await;
    let failed = status_of(&hub, &member.id).await;
    assert_eq!((peer.heard_of(&member.id).len(), failed.recent_events.len()), (4, 2));
    for event in &failed.recent_events {
        assert_eq!((&*event.status, event.retry_count), ("failed", 3), "{event:?}");
        assert_eq!(event.error_message.as_deref(), Some("provider_down: CreatorUp answered 500"));
    }
    assert_eq!((failed.creatorup_user_id, failed.creatorup_synced_at), (None, None));
    let dead = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sync' AND state = 'dead'";
    assert_eq!(hub.database.count(dead).await, 1, "a dead letter");

    // An hour later the sweep comes by, and CreatorUp is well again.
    let other = with(&peer).set("SYNC_INTERVAL", "100").start_on(hub.stop().await).await;
    other.clock.advance(TimeDelta::hours(1));
    becomes(&other, &member.id, v1::SyncStatus::Synced).await;
    let mended = status_of(&other, &member.id).await;
    assert_eq!(mended.recent_events.len(), 2, "no event was added");
    assert_eq!(mended.recent_events[0].status, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_waited_for() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    synced(&hub).await;
    for (header, seconds) in [("retry-after: 60\r\n", 60), ("", 0)] {
        peer.plays([say(429, header, "")]);
        let member = hub.member().await;
        let asked_at = hub.clock.now();
        let waits = format!("SELECT COUNT(*) FROM jobs WHERE queue_key = '{}' AND state = 'scheduled'", member.id);
        eventually("the first try is over", async || {
            status_of(&hub, &member.id).await.recent_events[0].retry_count == 1
        })
        .await;
        if seconds > 0 {
            // Others are pushed meanwhile, so the queue was looked at, up to a second before the time.
            hub.clock.advance(TimeDelta::seconds(seconds - 5) - (hub.clock.now() - asked_at));
            let other = hub.member().await;
            eventually("another is pushed", async || peer.heard_of(&other.id).len() == 1).await;
            assert_eq!((peer.heard_of(&member.id).len(), hub.database.count(&waits).await), (1, 1));
            hub.clock.advance(TimeDelta::seconds(6));
        }
        becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    }
}
