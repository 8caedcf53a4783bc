//! How a receiver knows that it is the hub who tells it something.

use upbridge_server::model::hook::DeliveryStatus::Success;
use upbridge_server::model::signature::{Key, Sent};
use upbridge_server::model::{Clock, Error};

use super::desk::{Desk, SECRET, ctx, told};
use crate::harness::noon;
use crate::peer::{Asked, HttpPeer};

/// The entry of `webhook-signature` that a secret makes for what was asked.
pub fn entry(asked: &Asked, secret: &str) -> String {
    let timestamp = asked.header("webhook-timestamp").parse().expect("unix seconds");
    let key = Key::parse(secret).expect("a secret");
    key.sign_standard(asked.header("webhook-id"), timestamp, &asked.body).expect("a secret of Standard Webhooks")
}

#[tokio::test]
async fn a_delivery_is_signed_by_the_rules_the_hub_itself_judges_webhooks_by() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook(&peer).await;
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Success]).await;
    let asked = told(&peer, 1).await.remove(0);
    assert_eq!(asked.header("webhook-id"), desk.deliveries(hook.id).await[0].id.to_string());
    assert_eq!(asked.header("webhook-timestamp"), noon().timestamp().to_string());
    assert_eq!(asked.header("webhook-signature"), entry(&asked, SECRET));
    let key = Key::parse(SECRET).expect("a secret");
    assert_eq!(asked.header("x-webhook-signature"), key.sign(None, &asked.body));
    // All that was sent together, as the hub's own intake reads it.
    let values = |name: &'static str| {
        asked.headers.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_bytes()).collect()
    };
    let sent = Sent::read(values);
    let proof = upbridge_server::model::signature::verify(&[key], &sent, &asked.body, noon().timestamp(), 300);
    assert!(proof.is_ok(), "{proof:?}");
    for (name, value) in [("content-type", "application/json"), ("accept-encoding", "identity")] {
        assert_eq!(asked.header(name), value);
    }
    assert!(asked.header("user-agent").starts_with("upbridge/") && asked.header("authorization").is_empty());
}

#[tokio::test]
async fn a_secret_that_is_any_text_signs_with_its_bytes() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let secret = "It's a Secret to Everybody";
    let hook = desk.hook_with(|new| (new.url, new.secret) = (peer.url(), Some(secret.to_owned()))).await;
    desk.tell(hook.integration_id, [1]).await;
    let asked = told(&peer, 1).await.remove(0);
    assert_eq!(asked.header("x-webhook-signature"), Key::parse(secret).unwrap().sign(None, &asked.body));
    use base64::Engine;
    let same = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(secret));
    assert_eq!(asked.header("webhook-signature"), entry(&asked, &same));
}

#[tokio::test]
async fn for_the_overlap_both_secrets_sign_and_then_the_new_one_alone() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook(&peer).await;
    let (second, until) = desk.hub.rotate_hook_secret(&ctx(), hook.id, None, 1).await.expect("rotated");
    assert_eq!(until, Some(desk.clock.now() + chrono::TimeDelta::hours(1)));
    desk.tell(hook.integration_id, [1]).await;
    let asked = told(&peer, 1).await.remove(0);
    let both = format!("{} {}", entry(&asked, &second), entry(&asked, SECRET));
    assert_eq!(asked.header("webhook-signature"), both);
    assert_eq!(asked.header("x-webhook-signature"), Key::parse(&second).unwrap().sign(None, &asked.body));
    // A receiver that knows only the first would be told nothing it can prove.
    let again = desk.hub.rotate_hook_secret(&ctx(), hook.id, None, 1).await;
    assert!(matches!(again, Err(Error::State { .. })), "{again:?}");
    desk.advance(3_600);
    desk.tell(hook.integration_id, [2]).await;
    let asked = told(&peer, 2).await.remove(1);
    assert_eq!(asked.header("webhook-signature"), entry(&asked, &second));
    // Without an overlap the one before is worth nothing at once.
    let (third, until) = desk.hub.rotate_hook_secret(&ctx(), hook.id, Some(SECRET), 0).await.expect("rotated");
    assert_eq!((third.as_str(), until), (SECRET, None));
    desk.tell(hook.integration_id, [3]).await;
    let asked = told(&peer, 3).await.remove(2);
    assert_eq!(asked.header("webhook-signature"), entry(&asked, SECRET));
}

#[tokio::test]
async fn no_secret_is_in_the_database_in_the_clear() {
    let (desk, peer) = (Desk::open().await, HttpPeer::start().await);
    let hook = desk.hook_with(|new| (new.url, new.secret) = (peer.url(), Some("hunter2-hunter2".to_owned()))).await;
    let (made, _) = desk.hub.rotate_hook_secret(&ctx(), hook.id, None, 24).await.expect("rotated");
    desk.tell(hook.integration_id, [1]).await;
    desk.stand(hook.id, &[Success]).await;
    let mut said = Vec::new();
    for sql in [
        "SELECT webhook_secret || ' ' || previous_secret || ' ' || secret_masked FROM integration_webhooks",
        "SELECT CAST(request_data AS TEXT) FROM integration_logs",
        "SELECT CAST(changes AS TEXT) FROM audit_log",
        "SELECT payload FROM webhook_deliveries",
    ] {
        said.extend(desk.database.texts(sql).await);
    }
    assert!(said.len() >= 6 && !said.iter().any(|text| text.contains("hunter2") || text.contains(&made)), "{said:?}");
}
