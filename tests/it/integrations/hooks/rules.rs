//! When a delivery counts as received, when it is tried again, and when a webhook is told no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use upbridge_server::model::failure::FailureClass;
use upbridge_server::model::hook::DeliveryStatus::{Failed, Held, Pending, Success};
use upbridge_server::model::hook::{HookChange, Replay};
use upbridge_server::model::integration::{LogStatus, Provider};
use upbridge_server::model::{Clock, Error};

use super::desk::{Desk, Set, ctx, new_hook, orders, payment, told};
use crate::harness::eventually;
use crate::peer::{HttpPeer, Reply};

fn active(is_active: bool) -> HookChange {
    HookChange { is_active: Some(is_active), ..HookChange::default() }
}

fn everything() -> Replay {
    Replay { most: 1_000, ..Replay::default() }
}

#[tokio::test]
async fn an_event_is_delivered_and_its_try_is_logged_with_the_host_of_the_address_alone() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.always(Reply::json(202, r#"{"ok":true}"#));
    let hook = desk.hook_with(|new| new.url = format!("{}/hook/hunter2?token=hunter2", peer.url())).await;
    desk.tell(hook.integration_id, [7]).await;
    desk.stand(hook.id, &[Success]).await;
    let delivery = &desk.deliveries(hook.id).await[0];
    assert_eq!((delivery.attempts, delivery.response_status, delivery.error_class.as_deref()), (1, Some(202), None));
    let asked = told(&peer, 1).await;
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/hook/hunter2?token=hunter2"));
    assert_eq!(String::from_utf8(asked[0].body.clone()).unwrap(), delivery.payload);
    let tries = desk.tries(delivery.id).await;
    let [one] = tries.as_slice() else { panic!("{tries:?}") };
    assert_eq!((one.status, one.message.as_str()), (LogStatus::Success, "payment.success was received by the webhook"));
    assert_eq!((&one.request["attempt"], &one.request["url"]), (&1.into(), &peer.url().into()));
    assert_eq!((&one.response["status"], &one.response["body"]), (&202.into(), &r#"{"ok":true}"#.into()));
    assert_eq!(one.response["remoteAddress"], peer.address.to_string());
    assert!(one.duration > 0 && !format!("{tries:?}").contains("hunter2"));
    let (hook, _) = desk.get(hook.id).await;
    assert_eq!((hook.last_status, hook.failure_count), (Some(LogStatus::Success), 0));
    assert_eq!(hook.last_triggered_at, Some(desk.clock.now()));
}

#[tokio::test]
async fn a_webhook_is_told_of_the_events_it_asks_for_and_of_no_other_integrations() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook(&peer).await;
    let none = desk.hook_with(|new| (new.url, new.events) = (peer.url(), vec![])).await;
    let other = desk.hook_with(|new| (new.url, new.events) = (peer.url(), vec!["payment.failed".to_owned()])).await;
    let event = |id, order, name| upbridge_server::model::hook::IntegrationEvent {
        name,
        ..payment(id, order, desk.clock.now())
    };
    desk.tell_all(vec![
        event(hook.integration_id, 1, "payment.failed"),
        event(hook.integration_id, 2, "payment.success"),
        event(none.integration_id, 3, "payment.success"),
        event(other.integration_id, 4, "payment.failed"),
    ])
    .await;
    let mut found = orders(&told(&peer, 2).await);
    found.sort_unstable();
    assert_eq!(found, [2, 4]);
    assert_eq!(desk.database.count("SELECT COUNT(*) FROM webhook_deliveries").await, 2);
}

#[tokio::test]
async fn what_fails_twice_is_tried_a_third_time_after_waits_that_double() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let tried = std::sync::atomic::AtomicUsize::new(0);
    peer.answers(move |asked| match asked.json()["data"]["order"].as_u64() {
        Some(1) if tried.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 => Reply::status(503),
        _ => Reply::status(200),
    });
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, [1]).await;
    let mut waits = Vec::new();
    for tries in 1..=2 {
        let delivery = desk.settled(hook.id, tries).await.remove(0);
        assert_eq!((delivery.status, delivery.error_class.as_deref()), (Pending, Some("provider_down")));
        let wait = delivery.next_attempt_at.expect("it waits") - desk.clock.now();
        waits.push(wait.num_seconds());
        desk.clock.advance(wait - chrono::TimeDelta::milliseconds(1));
        // Another event is told meanwhile, and this one is not: its time has not come.
        desk.tell(hook.integration_id, [9]).await;
        told(&peer, 2 * tries as usize).await;
        assert_eq!(desk.deliveries(hook.id).await[0].attempts, tries);
        desk.clock.advance(chrono::TimeDelta::milliseconds(1));
        told(&peer, 2 * tries as usize + 1).await;
    }
    assert!((60..=72).contains(&waits[0]) && (120..=144).contains(&waits[1]), "{waits:?}");
    desk.stand(hook.id, &[Success; 3]).await;
    let ids: Vec<String> = peer.asked().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    let first = desk.deliveries(hook.id).await[0].id.to_string();
    assert_eq!(ids.iter().filter(|id| **id == first).count(), 3);
}

#[tokio::test]
async fn of_one_attempt_there_is_no_second_and_the_failure_is_counted_until_a_success() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.plays([Reply::status(500), Reply::status(404)]);
    let hook = desk.hook_with(|new| (new.url, new.retry_attempts) = (peer.url(), Some(1))).await;
    for (order, failures) in [(1, 1), (2, 2), (3, 0)] {
        desk.tell(hook.integration_id, [order]).await;
        eventually("it is settled", async || {
            desk.deliveries(hook.id).await.iter().all(|one| one.finished_at.is_some())
        })
        .await;
        assert_eq!(desk.get(hook.id).await.0.failure_count, failures);
    }
    desk.stand(hook.id, &[Failed, Failed, Success]).await;
    assert_eq!(desk.get(hook.id).await.0.last_status, Some(LogStatus::Success));
}

#[tokio::test]
async fn what_a_receiver_asks_for_is_waited_for_up_to_ten_hours_and_no_less_than_configured() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let date = (desk.clock.now() + chrono::TimeDelta::seconds(600)).to_rfc2822().replace("+0000", "GMT");
    for (asked, least, most) in
        [("300", 300, 300), ("5", 60, 72), (date.as_str(), 600, 600), ("99999999", 36_000, 36_000), ("soon", 60, 72)]
    {
        peer.plays([Reply::status(429).with_header("retry-after", asked)]);
        let hook = desk.hook(&peer).await;
        desk.tell(hook.integration_id, [1]).await;
        let delivery = desk.settled(hook.id, 1).await.remove(0);
        let wait = (delivery.next_attempt_at.expect("it waits") - desk.clock.now()).num_seconds();
        assert!((least..=most).contains(&wait), "{asked}: {wait}");
        assert_eq!(delivery.error_class.as_deref(), Some("rate_limited"));
    }
}

#[tokio::test]
async fn a_webhook_is_disabled_after_so_many_failures_in_a_row_and_said_so_once() {
    let (desk, peer) = (Set::default().and("WEBHOOK_DISABLE_AFTER", 3).open().await, HttpPeer::start().await);
    peer.always(Reply::status(500));
    let hook = desk.hook_with(|new| (new.url, new.retry_attempts) = (peer.url(), Some(1))).await;
    desk.tell(hook.integration_id, 1..=3).await;
    desk.stand(hook.id, &[Failed; 3]).await;
    let (disabled, _) = desk.get(hook.id).await;
    assert!(!disabled.is_active && disabled.disabled_at.is_some(), "{disabled:?}");
    assert_eq!(disabled.disabled_reason.as_deref(), Some("3 deliveries in a row failed for good"));
    let said = "SELECT COUNT(*) FROM integration_logs WHERE action = 'config_change' AND status = 'failed'";
    assert_eq!(desk.database.count(said).await, 1);
    // What happens meanwhile is held, and only what it asks for.
    desk.tell(hook.integration_id, 4..=5).await;
    desk.stand(hook.id, &[Failed, Failed, Failed, Held, Held]).await;
    assert!(matches!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, everything()).await, Err(Error::State { .. })));
    // Made active it begins anew; what was held stays until it is replayed, oldest first and under the same ids.
    peer.always(Reply::status(200));
    let again = desk.hub.update_hook(&ctx(), hook.id, active(true), None).await.expect("active");
    assert_eq!((again.failure_count, again.disabled_at, again.disabled_reason), (0, None, None));
    desk.tell(hook.integration_id, [6]).await;
    desk.stand(hook.id, &[Failed, Failed, Failed, Held, Held, Success]).await;
    let held = Replay { status: Some(Held), most: 1, ..Replay::default() };
    assert_eq!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, held).await.unwrap(), (1, true));
    desk.stand(hook.id, &[Failed, Failed, Failed, Success, Held, Success]).await;
    assert_eq!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, everything()).await.unwrap(), (4, false));
    desk.stand(hook.id, &[Success; 6]).await;
    assert_eq!(orders(&peer.asked())[3..5], [6, 4]);
    assert_eq!(desk.database.count(said).await, 1);
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_switched_off_is_held() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.always(Reply::status(500));
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, 1..=3).await;
    desk.settled(hook.id, 1).await;
    desk.hub.update_hook(&ctx(), hook.id, active(false), None).await.expect("switched off");
    desk.stand(hook.id, &[Held; 3]).await;
    assert_eq!(desk.get(hook.id).await.1.held, 3);
    desk.advance(3_600);
    peer.always(Reply::status(200));
    desk.hub.update_hook(&ctx(), hook.id, active(true), None).await.expect("switched on");
    desk.hub.replay_hook_deliveries(&ctx(), hook.id, everything()).await.expect("replayed");
    desk.stand(hook.id, &[Success; 3]).await;
    assert_eq!(desk.deliveries(hook.id).await[0].attempts, 2);
}

#[tokio::test]
async fn a_receiver_that_is_gone_disables_its_webhook_at_once() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.always(Reply::status(410));
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Failed]).await;
    let (hook, _) = desk.get(hook.id).await;
    assert_eq!((hook.is_active, hook.disabled_reason.as_deref()), (false, Some("the receiver answered 410 Gone")));
    desk.tell(hook.integration_id, [2]).await;
    desk.stand(hook.id, &[Failed, Held]).await;
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn while_most_fails_nothing_is_tried_and_then_one_alone_shows_how_things_are() {
    let (desk, peer) = (Set::default().and("WEBHOOK_ENDPOINT_CONCURRENCY", 1).open().await, HttpPeer::start().await);
    peer.always(Reply::status(500));
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, 1..=15).await;
    let open = async || desk.get(hook.id).await.0.breaker.open(desk.clock.now()).map(|until| until - desk.clock.now());
    eventually("it opens", async || open().await.is_some()).await;
    assert_eq!(open().await.unwrap().num_seconds(), 30);
    eventually("what was on its way is recorded", async || {
        let tried: i32 = desk.deliveries(hook.id).await.iter().map(|one| one.attempts).sum();
        tried as usize == peer.count()
    })
    .await;
    // A slice learns of it with the result that opened it, so that no more than one was on its way.
    let tried = peer.count();
    assert!(tried <= 11, "{tried}");
    // What is told meanwhile waits and spends nothing.
    desk.tell(hook.integration_id, [16]).await;
    desk.advance(29);
    assert_eq!(peer.count(), tried);
    desk.advance(1);
    told(&peer, tried + 1).await;
    eventually("it opens again, for longer", async || open().await.is_some_and(|open| open.num_seconds() == 60)).await;
    assert_eq!(peer.count(), tried + 1);
    peer.always(Reply::status(200));
    desk.advance(60);
    eventually("it closes", async || desk.get(hook.id).await.0.breaker.trips == 0).await;
    desk.advance(200);
    desk.stand(hook.id, &[Success; 16]).await;
}

#[tokio::test]
async fn a_made_up_event_is_tried_once_and_counts_for_nothing() {
    let (desk, peer) = (Set::default().and("WEBHOOK_DISABLE_AFTER", 1).open().await, HttpPeer::start().await);
    peer.plays([Reply::status(500)]);
    let hook = desk.hook_with(|new| (new.url, new.is_active) = (peer.url(), Some(false))).await;
    let test = desk.hub.send_test_event(&ctx(), hook.id, None).await.expect("sent");
    assert!(test.is_test && test.status == Pending);
    desk.stand(hook.id, &[Failed]).await;
    desk.hub.send_test_event(&ctx(), hook.id, Some("payment.failed")).await.expect("sent, though it is switched off");
    desk.stand(hook.id, &[Failed, Success]).await;
    let asked = told(&peer, 2).await;
    assert_eq!(
        (&asked[0].json()["type"], &asked[1].json()["type"]),
        (&"payment.success".into(), &"payment.failed".into())
    );
    assert_eq!(asked[0].json()["data"]["test"], true);
    let (hook, _) = desk.get(hook.id).await;
    assert_eq!((hook.failure_count, hook.disabled_at, hook.last_triggered_at), (0, None, None));
    let wrong = desk.hub.send_test_event(&ctx(), hook.id, Some("message.sent")).await;
    assert!(matches!(wrong, Err(Error::Invalid { field, .. }) if field == "event"));
}

#[tokio::test]
async fn one_delivery_is_sent_again_under_its_id_unless_it_is_on_its_way() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Success]).await;
    let id = desk.deliveries(hook.id).await[0].id;
    let gate = Arc::new(Semaphore::new(0));
    peer.always(Reply::status(200).held(&gate));
    assert_eq!(desk.hub.resend_hook_delivery(&ctx(), id).await.unwrap().status, Pending);
    told(&peer, 2).await;
    assert!(matches!(desk.hub.resend_hook_delivery(&ctx(), id).await, Err(Error::State { .. })));
    assert_eq!(desk.get(hook.id).await.0.last_status, Some(LogStatus::Pending), "while it is on its way");
    gate.add_permits(1);
    desk.stand(hook.id, &[Success]).await;
    let asked = peer.asked();
    assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"));
    assert_eq!(asked[0].body, asked[1].body);
    assert_eq!(desk.tries(id).await.len(), 2);
    desk.hub.update_hook(&ctx(), hook.id, active(false), None).await.expect("switched off");
    assert!(matches!(desk.hub.resend_hook_delivery(&ctx(), id).await, Err(Error::State { .. })));
}

#[tokio::test]
async fn a_rate_limit_is_kept() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook_with(|new| (new.url, new.rate_limit) = (peer.url(), Some(50))).await;
    // The first may be long on its way to the receiver, so it counts from before it was sent.
    let begun = Instant::now();
    desk.tell(hook.integration_id, 1..=26).await;
    let took = told(&peer, 26).await[25].at - begun;
    assert!(took >= Duration::from_millis(480), "{took:?} for 25 steps of 20 ms");
}

#[tokio::test]
async fn receivers_that_hang_take_no_place_from_others_and_none_from_the_queue() {
    let set = Set::default().and("QUEUE_CONCURRENCY", 1).and("WEBHOOK_TIMEOUT", 120).and("WEBHOOK_CONCURRENCY", 3);
    let (desk, dead, well) = (set.open().await, HttpPeer::start().await, HttpPeer::start().await);
    dead.always(Reply::Hang);
    let mut hanging = Vec::new();
    for _ in 0..2 {
        let hook = desk.hook(&dead).await;
        desk.tell(hook.integration_id, 1..=100).await;
        hanging.push(hook);
    }
    told(&dead, 32).await;
    let hook = desk.hook(&well).await;
    desk.tell(hook.integration_id, 1..=50).await;
    desk.stand(hook.id, &[Success; 50]).await;
    // The one slot that the other kinds share is free all the while.
    let drill = upbridge_server::domain::queue::Drill {
        count: 3,
        key: "a".to_owned(),
        delay: Duration::ZERO,
        work: Duration::ZERO,
        failures: 0,
        max_retries: None,
    };
    desk.hub.enqueue_probe(&ctx(), drill).await.expect("enqueued");
    eventually("probes are done", async || {
        desk.database.count("SELECT COUNT(*) FROM finished_jobs WHERE kind = 'probe' AND state = 'done'").await == 3
    })
    .await;
    assert_eq!(dead.count(), 32, "sixteen calls to each at once");
}

#[tokio::test]
async fn what_is_due_is_sent_though_somebody_called_its_job_off() {
    let mut desk = Set::default().open_idle(crate::harness::TestDatabase::new().await).await;
    let peer = HttpPeer::start().await;
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, [1]).await;
    desk.database.execute("DELETE FROM jobs").await;
    desk.work();
    desk.hub.tidy().await.expect("tidied");
    desk.stand(hook.id, &[Success]).await;
}

#[tokio::test]
async fn a_replay_takes_what_its_filter_says() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let integration_id = desk.integration(Provider::Midtrans).await;
    let mut new = new_hook();
    (new.url, new.is_active) = (peer.url(), Some(false));
    new.events.push("payment.failed".to_owned());
    let (hook, _) = desk.hub.create_hook(&ctx(), integration_id, new).await.expect("a webhook");
    let begin = desk.clock.now();
    for (order, name) in ["payment.success", "payment.failed", "payment.success", "payment.failed"].iter().enumerate() {
        let event = payment(integration_id, order, desk.clock.now());
        desk.tell_all(vec![upbridge_server::model::hook::IntegrationEvent { name, ..event }]).await;
        desk.advance(60);
    }
    desk.stand(hook.id, &[Held; 4]).await;
    desk.hub.update_hook(&ctx(), hook.id, active(true), None).await.expect("active");
    let after = |minutes| Some(begin + chrono::TimeDelta::minutes(minutes));
    let failed = Replay { event: Some("payment.failed".to_owned()), since: after(2), ..everything() };
    assert_eq!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, failed).await.unwrap(), (1, false));
    desk.stand(hook.id, &[Held, Held, Held, Success]).await;
    let early = Replay { until: after(1), ..everything() };
    assert_eq!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, early).await.unwrap(), (1, false));
    desk.stand(hook.id, &[Success, Held, Held, Success]).await;
    let none = Replay { status: Some(Failed), ..everything() };
    assert_eq!(desk.hub.replay_hook_deliveries(&ctx(), hook.id, none).await.unwrap(), (0, false));
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_refused_when_it_is_saved_and_in_the_same_words_when_it_is_sent() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook(&peer).await;
    let url = "http://169.254.169.254/latest/meta-data?x=1";
    let refused = HookChange { url: Some(url.to_owned()), ..HookChange::default() };
    let refused = desk.hub.update_hook(&ctx(), hook.id, refused, None).await.expect_err("refused").to_string();
    desk.database.execute(&format!("UPDATE integration_webhooks SET webhook_url = '{url}'")).await;
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Failed]).await;
    let delivery = desk.deliveries(hook.id).await.remove(0);
    assert_eq!((delivery.attempts, delivery.error_class.as_deref()), (1, Some(FailureClass::Blocked.as_str())));
    let tries = desk.tries(delivery.id).await;
    assert!(tries[0].message.contains(&refused), "{} / {refused}", tries[0].message);
}
