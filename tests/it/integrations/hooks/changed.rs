//! Webhooks that are changed while they are told, and places that are shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use upbridge_server::model::hook::DeliveryStatus::Success;
use upbridge_server::model::hook::{Hook, HookChange};
use upbridge_server::model::integration::Provider;

use super::desk::{Desk, Set, ctx, new_hook, orders, told};
use crate::harness::eventually;
use crate::peer::{HttpPeer, Reply};

/// A hub that makes two calls at once, both of which wait for the test at a receiver that is then to say this; ten are
/// to be told.
async fn in_the_middle(reply: Reply) -> (Desk, HttpPeer, Arc<Semaphore>, Hook) {
    let set = Set::default().and("WEBHOOK_ENDPOINT_CONCURRENCY", 2);
    let (desk, peer) = (set.and("WEBHOOK_DISABLE_AFTER", 1).open().await, HttpPeer::start().await);
    let gate = Arc::new(Semaphore::new(0));
    peer.always(reply.held(&gate));
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, 1..=10).await;
    told(&peer, 2).await;
    (desk, peer, gate, hook)
}

async fn is_over(desk: &Desk) {
    let jobs = "SELECT COUNT(*) FROM jobs WHERE kind = 'webhook_delivery'";
    eventually("nothing is left to do", async || desk.database.count(jobs).await == 0).await;
}

#[tokio::test]
async fn what_an_old_address_answers_says_nothing_of_the_new_one_which_is_told_the_rest() {
    let (desk, old, gate, hook) = in_the_middle(Reply::status(410)).await;
    let new = HttpPeer::start().await;
    let change = HookChange { url: Some(new.url()), ..HookChange::default() };
    desk.hub.update_hook(&ctx(), hook.id, change, None).await.expect("moved");
    gate.add_permits(100);
    let mut found = orders(&told(&new, 8).await);
    found.sort_unstable();
    is_over(&desk).await;
    assert_eq!((found.len(), old.count(), new.count()), (8, 2, 8));
    let (hook, _) = desk.get(hook.id).await;
    assert_eq!((hook.is_active, hook.failure_count, hook.disabled_reason), (true, 0, None));
}

#[tokio::test]
async fn a_webhook_that_was_deleted_is_told_nothing_of_what_was_read_for_it() {
    let (desk, peer, gate, hook) = in_the_middle(Reply::status(200)).await;
    desk.hub.delete_hook(&ctx(), hook.id).await.expect("deleted");
    gate.add_permits(100);
    is_over(&desk).await;
    assert_eq!(peer.count(), 2);
}

#[tokio::test]
async fn what_another_hub_changes_is_known_within_its_next_look() {
    let (desk, old, gate, hook) = in_the_middle(Reply::status(200)).await;
    if !desk.database.is_postgres() {
        return;
    }
    let new = HttpPeer::start().await;
    let move_it = format!("UPDATE integration_webhooks SET webhook_url = '{}', generation = 7", new.url());
    desk.database.execute(&move_it).await;
    // It looks while the two calls wait.
    let begun = Instant::now();
    eventually("a look", async || begun.elapsed() > Duration::from_millis(1_500)).await;
    gate.add_permits(100);
    told(&new, 8).await;
    is_over(&desk).await;
    assert_eq!((old.count(), desk.get(hook.id).await.0.generation), (2, 7));
}

#[tokio::test]
async fn a_new_secret_without_an_overlap_signs_whatever_is_sent_from_then_on() {
    let (desk, peer, gate, hook) = in_the_middle(Reply::status(200)).await;
    let (secret, _) = desk.hub.rotate_hook_secret(&ctx(), hook.id, None, 0).await.expect("rotated");
    gate.add_permits(100);
    desk.stand(hook.id, &[Success; 10]).await;
    for (place, asked) in peer.asked().iter().enumerate() {
        assert_eq!(asked.header("webhook-signature") == super::signed::entry(asked, &secret), place >= 2, "{place}");
    }
}

/// Webhooks of one integration that are told of an event each.
async fn crowd(desk: &Desk, peer: &HttpPeer, count: usize) {
    let integration_id = desk.integration(Provider::Midtrans).await;
    for _ in 0..count {
        let mut new = new_hook();
        new.url = peer.url();
        desk.hub.create_hook(&ctx(), integration_id, new).await.expect("a webhook");
    }
    desk.tell(integration_id, [1]).await;
}

#[tokio::test]
async fn an_integration_whose_receivers_all_hang_has_a_quarter_of_the_places() {
    let set = Set::default().and("WEBHOOK_CONCURRENCY", 8);
    let (desk, dead, well) = (set.open().await, HttpPeer::start().await, HttpPeer::start().await);
    dead.always(Reply::Hang);
    crowd(&desk, &dead, 20).await;
    told(&dead, 2).await;
    let hook = desk.hook(&well).await;
    desk.tell(hook.integration_id, 1..=5).await;
    desk.stand(hook.id, &[Success; 5]).await;
    assert_eq!(dead.count(), 2, "two of eight places");
}

#[tokio::test]
async fn whoever_gives_up_a_place_calls_the_next_one_of_its_integration() {
    let (desk, well) = (Set::default().and("WEBHOOK_CONCURRENCY", 4).open().await, HttpPeer::start().await);
    crowd(&desk, &well, 20).await;
    // The clock stands still, so that nothing comes by its time.
    told(&well, 20).await;
    assert_eq!(well.count(), 20);
}

#[tokio::test]
async fn while_every_place_hangs_one_is_free_within_a_turn_and_the_longest_call() {
    let set = Set::default().and("WEBHOOK_TIMEOUT", 2).and("WEBHOOK_CONCURRENCY", 4);
    let (desk, dead, well) = (set.open().await, HttpPeer::start().await, HttpPeer::start().await);
    dead.always(Reply::Hang);
    let hook = desk.hook(&well).await;
    for _ in 0..4 {
        crowd(&desk, &dead, 6).await;
    }
    told(&dead, 4).await;
    let begun = Instant::now();
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Success]).await;
    let came = told(&well, 1).await[0].at;
    // However long the machine takes: whoever was being called already, and each place given away once more at most.
    let before = dead.asked().iter().filter(|asked| asked.at >= begun && asked.at < came).count();
    assert!(before <= 4 + 4, "{before}");
}
