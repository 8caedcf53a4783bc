//! The six providers over HTTP: well, and in every way they fail.

use std::time::{Duration, Instant};

use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::v1::{self};

use super::{LONG, SECRET, SID, Stage, credentials, fault, hasty, near};
use crate::harness::{Setup, TestHub};
use crate::peer::{HttpPeer, Reply};

const ALL: [Provider; 6] =
    [Provider::Midtrans, Provider::Xendit, Provider::Stripe, Provider::Twilio, Provider::Wablas, Provider::Fonnte];

/// An answer, and the class and code it means; none is a success.
type Row = (u16, String, Option<(&'static str, &'static str)>);

const AUTH: Option<(&str, &str)> = Some(("auth", "auth_failed"));
const PERMISSION: Option<(&str, &str)> = Some(("permission", "permission_denied"));
const INACTIVE: Option<(&str, &str)> = Some(("permission", "account_inactive"));
const OFF: Option<(&str, &str)> = Some(("config", "device_disconnected"));
const CONFIG: Option<(&str, &str)> = Some(("config", "configuration"));
const LIMITED: Option<(&str, &str)> = Some(("rate_limited", "rate_limited"));
const DOWN: Option<(&str, &str)> = Some(("provider_down", "provider_unavailable"));
const GARBAGE: Option<(&str, &str)> = Some(("invalid_answer", "unexpected_response"));

/// What providers answer, as the fact sheet has it; where their words are theirs they quote the key, as Stripe does.
fn rows(provider: Provider) -> Vec<Row> {
    let row = |status: u16, body: &str, meaning| (status, body.replace("$KEY", SECRET).replace("$SID", SID), meaning);
    let mut rows = match provider {
        Provider::Midtrans => vec![
            row(
                200,
                r#"{"status_code":"404","status_message":"Transaction doesn't exist.","id":"11111111-2222-3333-4444-555555555555"}"#,
                None,
            ),
            row(401, r#"{"status_code":"401","status_message":"Unknown Merchant server_key/id $KEY","id":"x"}"#, AUTH),
            row(403, r#"{"status_code":"403","status_message":"$KEY"}"#, PERMISSION),
            row(429, r#"{"status_code":"429","status_message":"slow down"}"#, LIMITED),
            row(200, r#"{"status_code":"503","status_message":"bank is down"}"#, DOWN),
        ],
        Provider::Xendit => vec![
            row(200, r#"{"balance":1250000}"#, None),
            row(401, r#"{"error_code":"INVALID_API_KEY","message":"The API key provided is invalid: $KEY"}"#, AUTH),
            row(
                403,
                r#"{"error_code":"REQUEST_FORBIDDEN_ERROR","message":"The API key is forbidden to perform this request $KEY"}"#,
                None,
            ),
            row(403, r#"{"error_code":"ADDRESS_FORBIDDEN","message":"$KEY"}"#, PERMISSION),
            row(429, r#"{"error_code":"RATE_LIMIT_EXCEEDED","message":"x"}"#, LIMITED),
            row(500, r#"{"error_code":"SERVER_ERROR","message":"x"}"#, DOWN),
        ],
        Provider::Stripe => vec![
            row(
                200,
                r#"{"object":"balance","available":[{"amount":0,"currency":"usd","source_types":{"card":0}}],"pending":[],"livemode":false}"#,
                None,
            ),
            row(200, r#"{"object":"balance","available":[],"pending":[],"livemode":true}"#, CONFIG),
            row(
                401,
                r#"{"error":{"message":"Invalid API Key provided: sk_test_$KEY","type":"invalid_request_error"}}"#,
                AUTH,
            ),
            row(
                403,
                r#"{"error":{"message":"The provided key 'rk_test_$KEY' does not have the required permissions","type":"invalid_request_error"}}"#,
                PERMISSION,
            ),
            row(429, r#"{"error":{"message":"x","code":"rate_limit","type":"invalid_request_error"}}"#, LIMITED),
            row(500, r#"{"error":{"message":"x","type":"api_error"}}"#, DOWN),
        ],
        Provider::Twilio => vec![
            row(
                200,
                r#"{"sid":"$SID","friendly_name":"Contoh LMS","status":"active","type":"Full","auth_token":"$KEY"}"#,
                None,
            ),
            row(
                200,
                r#"{"sid":"$SID","friendly_name":"Contoh LMS","status":"suspended","type":"Full","auth_token":"$KEY"}"#,
                INACTIVE,
            ),
            row(
                401,
                r#"{"code":20003,"message":"Authenticate $KEY","more_info":"https://www.twilio.com/docs/errors/20003","status":401}"#,
                AUTH,
            ),
            row(403, r#"{"code":20006,"message":"$KEY","status":403}"#, PERMISSION),
            row(404, r#"{"code":20404,"message":"The requested resource was not found","status":404}"#, CONFIG),
            row(429, r#"{"code":20429,"message":"Too Many Requests","status":429}"#, LIMITED),
            row(500, r#"{"code":20500,"message":"x","status":500}"#, DOWN),
        ],
        Provider::Wablas => vec![
            row(
                200,
                r#"{"status":true,"data":{"name":"Contoh LMS","sender":"6281200000000","quota":4999,"expired_date":"2027-01-05","active":true,"status":"connected","delay_message":"15 seconds"}}"#,
                None,
            ),
            row(
                200,
                r#"{"status":true,"data":{"name":"Contoh LMS","sender":"6281200000000","quota":4999,"expired_date":"2027-01-05","active":true,"status":"disconnected"}}"#,
                OFF,
            ),
            row(200, r#"{"status":false,"message":"token invalid $KEY"}"#, AUTH),
            row(200, r#"{"status":false,"message":"package expired"}"#, INACTIVE),
            row(403, r#"{"message":"$KEY"}"#, PERMISSION),
            row(429, r#"{"status":false,"message":"too many requests"}"#, LIMITED),
            row(503, "", DOWN),
        ],
        Provider::Fonnte => vec![
            row(
                200,
                r#"{"device":"6281200000000","device_status":"connect","expired":"5 January 2027","messages":120,"name":"Contoh LMS","package":"Reguler","quota":"9880","status":true}"#,
                None,
            ),
            row(
                200,
                r#"{"device":"6281200000000","device_status":"disconnect","expired":"5 January 2027","name":"Contoh LMS","quota":"9880","Status":true}"#,
                OFF,
            ),
            row(200, r#"{"reason":"token invalid $KEY","status":false}"#, AUTH),
            row(200, r#"{"Reason":"unknown user","Status":false}"#, AUTH),
            row(403, r#"{"reason":"$KEY"}"#, PERMISSION),
            row(429, r#"{"reason":"rate limit","status":false}"#, LIMITED),
            row(502, "", DOWN),
        ],
        other => panic!("{other:?} is not over HTTP"),
    };
    // What any of them, or whoever sits in between, may answer.
    rows.extend([
        row(200, "<html><body>Welcome to the hotel's network</body></html>", GARBAGE),
        row(401, "<html><body>Proxy authentication $KEY</body></html>", GARBAGE),
        row(200, "\u{fffd}\0 no JSON", GARBAGE),
        row(502, "<html>Bad Gateway</html>", DOWN),
    ]);
    rows
}

async fn every_row(provider: Provider) {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let name = stage.admin.integrations().list_providers(v1::ListProvidersRequest::default()).await.unwrap();
    let name = name.into_inner().providers.into_iter().find(|info| info.provider() == provider).unwrap().name;
    for (place, (status, body, meaning)) in rows(provider).into_iter().enumerate() {
        let id = stage.at(provider, &peer).await;
        peer.plays([Reply::json(status, &body)]);
        let (test, diagnosis) = stage.test(&id).await;
        assert_eq!(fault(&diagnosis), meaning, "{provider:?} {status} {body}");
        assert_eq!(diagnosis.provider_status, Some(status.into()));
        match meaning {
            None => {
                assert_eq!(test.status(), v1::IntegrationOutcome::Success);
                assert_eq!(test.message, format!("{name} connection successful"));
            }
            Some(_) => {
                assert_eq!(test.status(), v1::IntegrationOutcome::Failed);
                assert!(
                    test.message.contains(": ") && !test.message.contains("connection successful"),
                    "{}",
                    test.message
                );
            }
        }
        let shown = format!("{test:?} {diagnosis:?}");
        assert!(!shown.contains(SECRET), "the provider's words are passed on: {shown}");
        let expected = ["Midtrans", "Xendit", "Stripe"].contains(&name.as_str()) || meaning.is_some() || place > 0;
        assert!(expected || diagnosis.account.as_deref() == Some("Contoh LMS"), "{diagnosis:?}");
        peer.plays([Reply::json(status, &body)]);
        let answer = stage.post(&id).await;
        assert_eq!(answer.status(), 200);
        let answer: serde_json::Value = answer.json().await.expect("JSON");
        let word = if meaning.is_none() { "success" } else { "failed" };
        assert_eq!(
            (answer["data"]["status"].as_str(), answer["data"]["message"].as_str()),
            (Some(word), Some(&*test.message))
        );
        let said = &answer["diagnosis"];
        assert_eq!(said["errorClass"].as_str().zip(said["errorCode"].as_str()), meaning);
        let last = stage.get(&id).await.last_test.expect("it is kept");
        assert_eq!(
            (last.status(), &last.message, last.error_class.as_deref()),
            (test.status(), &test.message, meaning.map(|(class, _)| class))
        );
    }
    let asked = peer.asked();
    assert_eq!(asked.len(), 2 * rows(provider).len(), "nothing is asked again by itself");
    told_by_secret_nowhere(&stage.hub).await;
    how_it_was_asked(provider, &asked[0]);
}

/// Each is asked what the fact sheet says, with the key where it belongs.
fn how_it_was_asked(provider: Provider, asked: &crate::peer::Asked) {
    use base64::Engine;
    let basic = |text: String| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    let (line, authorization) = match provider {
        Provider::Midtrans => {
            assert!(asked.path.starts_with("/v2/conn-test-") && asked.path.ends_with("/status"), "{}", asked.path);
            (format!("GET {}", asked.path), basic(format!("SB-Mid-server-{SECRET}:")))
        }
        Provider::Xendit => ("GET /balance".into(), basic(format!("xnd_development_{SECRET}:"))),
        Provider::Stripe => ("GET /v1/balance".into(), format!("Bearer sk_test_{SECRET}")),
        Provider::Twilio => (format!("GET /2010-04-01/Accounts/{SID}.json"), basic(format!("{SID}:{SECRET}"))),
        Provider::Wablas => (format!("GET /api/device/info?token={SECRET}"), String::new()),
        _ => ("POST /device".into(), SECRET.to_owned()),
    };
    assert_eq!((format!("{} {}", asked.method, asked.path), asked.header("authorization")), (line, &*authorization));
    assert!(asked.body.is_empty());
}

/// Neither the log nor the tables nor the log file have the secret.
async fn told_by_secret_nowhere(hub: &TestHub) {
    for (table, columns) in [
        ("integration_logs", &["message", "request_data", "response_data", "error_details"][..]),
        ("partner_integrations", &["credentials", "last_test_message", "credentials_masked"]),
        ("audit_log", &["changes"]),
    ] {
        for column in columns {
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE CAST({column} AS TEXT) LIKE '%{SECRET}%'");
            assert_eq!(hub.database.count(&sql).await, 0, "{table}.{column}");
        }
    }
    let logs = hub.database.directory.path().join("logs");
    for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{:?}", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn midtrans_is_understood_whatever_it_answers() {
    every_row(Provider::Midtrans).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn xendit_is_understood_whatever_it_answers() {
    every_row(Provider::Xendit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_is_understood_whatever_it_answers() {
    every_row(Provider::Stripe).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twilio_is_understood_whatever_it_answers() {
    every_row(Provider::Twilio).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wablas_is_understood_whatever_it_answers() {
    every_row(Provider::Wablas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fonnte_is_understood_whatever_it_answers() {
    every_row(Provider::Fonnte).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_breaks_floods_or_sends_elsewhere_is_told_apart_in_time_for_every_provider() {
    let (patient, hasty) = (Stage::of(near()).await, Stage::of(hasty()).await);
    let elsewhere = HttpPeer::start().await;
    let (late, garbage) = (("timeout", "timeout"), ("invalid_answer", "unexpected_response"));
    let replies = [
        (Reply::Hang, late),
        (Reply::Drip(Duration::from_millis(50)), late),
        (Reply::Half, late),
        (Reply::Close, ("network", "connection")),
        (Reply::Reset, ("network", "connection")),
        (Reply::Flood(1 << 30), garbage),
        (Reply::gzip_bomb(1 << 22), garbage),
        (Reply::redirect(302, &elsewhere.url()), garbage),
        (Reply::redirect(307, "http://169.254.169.254/latest/meta-data"), garbage),
    ];
    let each = ALL.into_iter().flat_map(|provider| replies.clone().map(|(reply, meaning)| (provider, reply, meaning)));
    let each = each.map(async |(provider, reply, meaning)| {
        let peer = HttpPeer::start().await;
        peer.always(reply.clone());
        let stage = if meaning == late { &hasty } else { &patient };
        let id = stage.at(provider, &peer).await;
        let begun = Instant::now();
        let (_, diagnosis) = stage.test(&id).await;
        assert_eq!(fault(&diagnosis), Some(meaning), "{provider:?} {reply:?}");
        assert!(begun.elapsed() < LONG, "{provider:?} {reply:?} took {:?}", begun.elapsed());
        assert_eq!(peer.count(), 1, "{provider:?} {reply:?}: {diagnosis:?}");
    });
    futures::future::join_all(each).await;
    assert_eq!(elsewhere.count(), 0, "no redirect is followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_a_matter_of_the_connection() {
    let stage = Stage::of(near()).await;
    for provider in ALL {
        let gone = HttpPeer::start().await;
        let id = stage.at(provider, &gone).await;
        gone.leave().await;
        let (test, diagnosis) = stage.test(&id).await;
        assert_eq!((fault(&diagnosis), diagnosis.provider_status), (Some(("network", "connection")), None));
        assert!(test.message.starts_with("Connection error: "), "{}", test.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_told_nothing_by_any_provider() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start_tls().await;
    for provider in ALL {
        let id = stage.at(provider, &peer).await;
        let (test, diagnosis) = stage.test(&id).await;
        assert_eq!(fault(&diagnosis), Some(("tls", "tls")), "{provider:?}");
        assert!(test.message.starts_with("TLS error: "), "{}", test.message);
    }
    assert_eq!((peer.count(), peer.connections()), (0, ALL.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_allowed_once_is_not_called_when_it_no_longer_is() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let mut ids = Vec::new();
    for provider in ALL {
        ids.push(stage.at(provider, &peer).await);
    }
    let hub = Setup::default().start_on(stage.hub.stop().await).await;
    let admin = hub.admin().await;
    for id in ids {
        let (test, diagnosis) = super::test(&admin, &id).await;
        assert_eq!(fault(&diagnosis), Some(("blocked_target", "blocked_target")));
        assert!(test.message.contains("is not an address the hub may call"), "{}", test.message);
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wablas_is_asked_once_more_with_the_secret_key_when_it_refuses_the_token_alone() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let ok = &rows(Provider::Wablas)[0].1;
    let no = Reply::json(200, r#"{"status":false,"message":"token invalid"}"#);
    let mut both = credentials(Provider::Wablas);
    both["secretKey"] = "second".into();
    let id = stage.add(Provider::Wablas, &both, Some(&peer.url())).await;
    peer.plays([no.clone(), Reply::json(200, ok)]);
    let (_, diagnosis) = stage.test(&id).await;
    assert_eq!((fault(&diagnosis), diagnosis.warnings.len()), (None, 1), "{diagnosis:?}");
    let paths: Vec<String> = peer.asked().into_iter().map(|asked| asked.path).collect();
    let path = format!("/api/device/info?token={SECRET}");
    assert_eq!(paths, [path.clone(), format!("{path}.second")]);
    // Both refused is refused, and there is no third time.
    peer.always(no);
    assert_eq!(fault(&stage.test(&id).await.1), AUTH);
    assert_eq!(peer.count(), 4);
    // A token that works alone is asked about once.
    peer.always(Reply::json(200, ok));
    assert_eq!((fault(&stage.test(&id).await.1), peer.count()), (None, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_enough_for_now_is_a_warning() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let xendit = stage.at(Provider::Xendit, &peer).await;
    peer.plays([Reply::json(403, r#"{"error_code":"REQUEST_FORBIDDEN_ERROR","message":"x"}"#)]);
    let (test, diagnosis) = stage.test(&xendit).await;
    assert_eq!((test.status(), diagnosis.provider_status), (v1::IntegrationOutcome::Success, Some(403)));
    assert!(diagnosis.warnings[0].contains("no permission to read the balance"), "{diagnosis:?}");
    let twilio = stage.at(Provider::Twilio, &peer).await;
    let trial = rows(Provider::Twilio)[0].1.replace("Full", "Trial");
    peer.plays([Reply::json(200, &trial)]);
    assert!(stage.test(&twilio).await.1.warnings[0].contains("trial"));
    let other = serde_json::json!({ "serverKey": format!("Mid-server-{SECRET}") });
    let midtrans = stage.add(Provider::Midtrans, &other, Some(&peer.url())).await;
    peer.plays([Reply::json(200, &rows(Provider::Midtrans)[0].1)]);
    assert!(stage.test(&midtrans).await.1.warnings[0].contains("production"));
}
