//! Receivers that misbehave: each a clear result, bounded in time and memory.

use std::time::{Duration, Instant};

use upbridge_server::model::hook::DeliveryStatus::Success;
use upbridge_server::model::hook::{HookDelivery, HookTry};

use super::desk::{Desk, Set, told};
use crate::peer::{HttpPeer, Reply};

/// What a receiver's behaviour comes to.
async fn tried(desk: &Desk, peer: &HttpPeer) -> (HookDelivery, HookTry) {
    let hook = desk.hook(peer).await;
    desk.tell(hook.integration_id, [1]).await;
    let delivery = desk.settled(hook.id, 1).await.remove(0);
    let tries = desk.tries(delivery.id).await;
    (delivery, tries[0].clone())
}

#[tokio::test]
async fn a_receiver_that_hangs_halves_or_drips_ends_at_the_timeout() {
    let desk = Set::default().and("WEBHOOK_TIMEOUT", 1).open().await;
    for reply in [Reply::Hang, Reply::Half, Reply::Drip(Duration::from_millis(50))] {
        let peer = HttpPeer::start().await;
        peer.always(reply.clone());
        let begun = Instant::now();
        let (delivery, one) = tried(&desk, &peer).await;
        assert_eq!(delivery.error_class.as_deref(), Some("timeout"), "{reply:?}");
        assert!(one.duration >= 900 && begun.elapsed() < Duration::from_secs(15), "{reply:?}: {one:?}");
    }
}

#[tokio::test]
async fn of_a_body_of_a_gigabyte_four_kibibytes_are_read() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.always(Reply::Flood(1 << 30));
    let (delivery, one) = tried(&desk, &peer).await;
    assert_eq!(delivery.status, Success);
    assert_eq!(one.response["body"].as_str().map(str::len), Some(4096));
}

#[tokio::test]
async fn what_comes_compressed_is_never_unpacked() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    peer.always(Reply::gzip_bomb(64 << 20));
    let (delivery, one) = tried(&desk, &peer).await;
    assert_eq!((delivery.status, one.response.get("body")), (Success, None));
    assert_eq!(told(&peer, 1).await[0].header("accept-encoding"), "identity");
}

#[tokio::test]
async fn a_body_that_is_no_text_is_left_out_and_one_with_a_nul_too() {
    let desk = Desk::open().await;
    for body in [b"\xff\xfe\x00\x01".to_vec(), b"a\0b".to_vec()] {
        let peer = HttpPeer::start().await;
        peer.always(Reply::status(200).with_body(body));
        let (delivery, one) = tried(&desk, &peer).await;
        assert_eq!((delivery.status, one.response.get("body")), (Success, None));
    }
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let (desk, peer, elsewhere) = (Desk::open().await, HttpPeer::start().await, HttpPeer::start().await);
    for (status, location) in [(301, elsewhere.url()), (308, "http://169.254.169.254/latest/meta-data".to_owned())] {
        peer.always(Reply::redirect(status, &location));
        let (delivery, _) = tried(&desk, &peer).await;
        assert_eq!(
            (delivery.response_status, delivery.error_class.as_deref()),
            (Some(status.into()), Some("redirect"))
        );
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_and_a_broken_connection_are_told_apart() {
    let (desk, unvouched, closing) = (Desk::open().await, HttpPeer::start_tls().await, HttpPeer::start().await);
    closing.always(Reply::Close);
    let gone = HttpPeer::start().await;
    let (delivery, one) = tried(&desk, &unvouched).await;
    assert_eq!(delivery.error_class.as_deref(), Some("tls"));
    assert!(one.message.contains("could not be secured"), "{}", one.message);
    assert_eq!(tried(&desk, &closing).await.0.error_class.as_deref(), Some("network"));
    let hook = desk.hook(&gone).await;
    gone.leave().await;
    desk.tell(hook.integration_id, [1]).await;
    assert_eq!(desk.settled(hook.id, 1).await[0].error_class.as_deref(), Some("network"));
}
