//! What the DevOps module is told, and that nobody waits for it.

use std::str::FromStr;

use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use upbridge_server::model::hook::secret::{Secret, sign};
use uuid::Uuid;

use crate::harness::{self, Setup, TestHub, eventually};
use crate::peer::{Asked, HttpPeer, Reply};

const SECRET: &str = "the-secret-of-the-devops-module-01234567";
const NOTICES: &str = "SELECT (SELECT COUNT(*) FROM jobs WHERE kind = 'devops_notice') + \
                       (SELECT COUNT(*) FROM finished_jobs WHERE kind = 'devops_notice')";

fn told(module: &HttpPeer) -> Setup {
    Setup::default()
        .set("DEVOPS_MODULE_URL", format!("{}/hook", module.url()))
        .set("DEVOPS_WEBHOOK_SECRET", SECRET)
        .set("QUEUE_POLL_INTERVAL", "20")
}

/// Notices of a name that came, in their order.
fn of(module: &HttpPeer, name: &str) -> Vec<Asked> {
    module.asked().into_iter().filter(|asked| asked.json()["type"] == name).collect()
}

async fn one(module: &HttpPeer, name: &str) -> Asked {
    eventually(name, async || !of(module, name).is_empty()).await;
    of(module, name).remove(0)
}

/// A notice is signed as webhooks of integrations are.
fn is_proved(module: &HttpPeer, asked: &Asked) {
    let secrets = [Secret::parse(SECRET).unwrap()];
    let id = Uuid::from_str(asked.header("webhook-id")).expect("an id");
    let timestamp = asked.header("webhook-timestamp").parse().expect("seconds");
    let post = sign(&secrets, &module.url(), id, timestamp, String::from_utf8(asked.body.clone()).unwrap());
    assert_eq!(asked.header("webhook-signature"), post.signatures);
    assert_eq!(asked.header("x-webhook-signature"), post.body_signature);
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/hook"));
}

/// An integration at Midtrans, and a payment it calls back.
async fn pay(hub: &TestHub, key: &str) {
    let token = hub.another_admin().await.token;
    let post = async |path: &str, body: Value| {
        let request = reqwest::Client::new().post(hub.url(path)).bearer_auth(&token).json(&body);
        let (code, answer) = harness::json(request).await;
        assert!(code < 300, "{answer}");
        answer["data"].clone()
    };
    let partner = post("/api/admin/partners", json!({ "name": "Toko" })).await;
    let path = format!("/api/admin/partners/{}/integrations", partner["id"].as_str().unwrap());
    let integration = post(
        &path,
        json!({ "category": "payment_gateway", "provider": "midtrans", "name": "Main", "credentials": { "serverKey": key } }),
    )
    .await;
    let signature = hex::encode(Sha512::digest(format!("A-1200150000.00{key}")));
    let body = json!({
        "status_code": "200", "transaction_id": "t-1", "order_id": "A-1", "gross_amount": "150000.00",
        "currency": "IDR", "transaction_status": "settlement", "fraud_status": "accept", "signature_key": signature,
    });
    for _ in 0..2 {
        post(&format!("/api/webhooks/integrations/{}", integration["id"].as_str().unwrap()), body.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devops_module_is_told_of_users_payments_and_alerts_each_once_and_signed() {
    let (module, creatorup) = (HttpPeer::start().await, HttpPeer::start().await);
    let setup = told(&module).set("HEALTH_CHECK_INTERVAL", "30").set("CREATORUP_API_URL", creatorup.url());
    let address = creatorup.leave().await;
    let hub = setup.start().await;
    let member = hub.member().await;
    pay(&hub, "SB-Mid-server-TESTKEY0000000000000000").await;
    let is_them = |asked: &Asked| asked.json()["data"]["userId"] == member.id.as_str();
    eventually("the user", async || of(&module, "user.created").iter().any(is_them)).await;
    let user = of(&module, "user.created").into_iter().find(is_them).unwrap();
    let data = &user.json()["data"];
    assert_eq!((&data["email"], &data["role"]), (&json!(member.email), &json!("member")));
    let paid = one(&module, "payment.success").await;
    assert_eq!((&paid.json()["data"]["orderId"], &paid.json()["data"]["amount"]), (&json!("A-1"), &json!("150000.00")));
    let opened = one(&module, "alert.opened").await;
    assert_eq!(opened.json()["data"]["code"], "creatorup_unreachable");
    let _back = HttpPeer::at(address, None).await;
    let cleared = one(&module, "alert.cleared").await;
    assert_eq!(cleared.json()["data"]["alertId"], opened.json()["data"]["alertId"]);
    assert!(cleared.json()["data"]["clearedAt"].is_string() && opened.json()["data"]["clearedAt"].is_null());
    for asked in [&user, &paid, &opened, &cleared] {
        is_proved(&module, asked);
    }
    assert_eq!(
        (of(&module, "user.created").iter().filter(|one| is_them(one)).count(), of(&module, "payment.success").len()),
        (1, 1)
    );
    let waiting = "SELECT COUNT(*) FROM jobs WHERE kind = 'devops_notice'";
    eventually("nothing waits", async || hub.database.count(waiting).await == 0).await;
    assert!(!hub.database.texts("SELECT CAST(payload AS TEXT) FROM finished_jobs").await.concat().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_away_holds_up_nobody_and_is_told_the_same_when_it_is_back() {
    let module = HttpPeer::start().await;
    module.plays([Reply::Close]);
    module.always(Reply::status(503));
    let hub = told(&module).start().await;
    let member = hub.member().await;
    // That of the first administrator and that of the member.
    let failed = "SELECT COUNT(*) FROM jobs WHERE kind = 'devops_notice' AND attempts = 1";
    eventually("both were tried", async || hub.database.count(failed).await == 2).await;
    module.always(Reply::status(204));
    hub.clock.advance(chrono::TimeDelta::minutes(5));
    let is_them = |asked: &&Asked| asked.json()["data"]["userId"] == member.id.as_str();
    let done = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'devops_notice' AND state = 'done'";
    eventually("both are told", async || hub.database.count(done).await == 2).await;
    let asked = module.asked();
    assert!(asked.iter().any(|asked| is_them(&asked)), "{asked:?}");
    let mut bodies: Vec<_> =
        asked.iter().map(|asked| (asked.header("webhook-id").to_owned(), asked.body.clone())).collect();
    let tries = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), tries), (2, 4), "two notices, each with one id and one body");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_no_notice_is_made() {
    let hub = TestHub::start().await;
    hub.member().await;
    assert_eq!(hub.database.count(NOTICES).await, 0);
}
