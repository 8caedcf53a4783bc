//! `upbridge sign` and the curl lines it prints, run as they stand; and the documentation's examples.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use upbridge_client::v1;
use upbridge_server::model::signature::Key;

use super::{batch, subscription_body, usage_body};
use crate::harness::{HubProcess, Member, TestDatabase, WEBHOOK_SECRET, eventually, have, register, total};

/// What `upbridge sign` prints: the signature and the curl line.
fn sign(directory: &Path, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
    command.env_clear().env("WEBHOOK_SECRET", WEBHOOK_SECRET).current_dir(directory).arg("sign").args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(WEBHOOK_SECRET) && output.stderr.is_empty());
    let (signature, curl) = text.split_once('\n').unwrap();
    (signature.to_owned(), curl.trim_end().to_owned())
}

fn run(directory: &Path, line: &str) -> Value {
    let output = Command::new("/bin/sh").arg("-c").arg(line).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
}

async fn subscription(member: &Member) -> Option<v1::Subscription> {
    let held = member.client.membership().get_subscription(v1::GetSubscriptionRequest::default()).await.ok()?;
    held.into_inner().subscription
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_the_sources_signed_and_sent_with_curl_do_what_they_say() {
    if !have("curl") {
        return;
    }
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, None).await;
    let directory = database.directory.path();
    std::fs::write(directory.join("usage.json"), usage_body(&member.id)).unwrap();
    std::fs::write(directory.join("subscription.json"), subscription_body(&member.id)).unwrap();
    let usage_url = hub.url("/api/v1/creatorup/webhook/usage-update");
    let subscription_url = hub.url("/api/v1/creatorup/webhook/subscription-update");

    let (signature, curl) = sign(directory, &["usage.json", "--url", &usage_url]);
    assert!(curl.contains(&format!("X-Webhook-Signature: {signature}")), "{curl}");
    let answer = run(directory, &curl);
    assert_eq!(
        (&answer["success"], &answer["data"]["received"], &answer["data"]["duplicate"]),
        (&json!(true), &json!(true), &json!(false)),
        "{answer}"
    );
    let again = run(directory, &curl);
    assert_eq!((&again["success"], &again["data"]["duplicate"]), (&json!(true), &json!(true)), "the same twice");
    assert_eq!(again["data"]["event_id"], answer["data"]["event_id"]);
    eventually("the ledger has it", async || total(&member.client, "2024-01").await == 1).await;
    assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, 1);

    let (_, curl) = sign(directory, &["subscription.json", "--form", "timestamped", "--url", &subscription_url]);
    let answer = run(directory, &curl);
    assert_eq!(answer["success"], true, "{answer}");
    eventually("the subscription is so", async || {
        subscription(&member).await.is_some_and(|held| held.plan == "Pro" && held.source == "creatorup")
    })
    .await;
    let held = subscription(&member).await.unwrap();
    assert_eq!(held.end_date, crate::harness::at("2024-02-15T00:00:00Z"));
    let stored = database.texts("SELECT status FROM user_subscriptions").await;
    // Its end is long past, and the hub may have found that out already.
    assert!(stored == ["active"] || stored == ["expired"], "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_that_is_printed_is_taken() {
    if !have("curl") {
        return;
    }
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let directory = database.directory.path();
    for (at, form) in ["header", "timestamped", "standard", "body"].into_iter().enumerate() {
        let mut body = batch(&member.id, &format!("it's {form}"));
        body["usage_data"]["metadata"] = json!({ "note": "a \"quoted\" $HOME `word` \\ é" });
        std::fs::write(directory.join("body.json"), serde_json::to_string_pretty(&body).unwrap() + "\n").unwrap();
        let url = hub.url("/api/v1/creatorup/webhook/usage-update");
        let (signature, curl) = sign(directory, &["body.json", "--form", form, "--url", &url]);
        assert!(curl.contains(&signature), "{curl}");
        assert_eq!(curl.lines().count(), 1, "a line is a line, whatever the body has: {curl}");
        let answer = run(directory, &curl);
        assert_eq!(answer["data"]["duplicate"], false, "{form}: {answer}");
        eventually("it is in the ledger", async || total(&member.client, "2024-01").await == at as i64 + 1).await;
    }
}

#[test]
fn the_command_signs_as_openssl_does_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body.json"), "Hello, World!").unwrap();
    let secret = ["--secret", "It's a Secret to Everybody"];
    let (signature, curl) = sign(directory.path(), &["body.json", secret[0], secret[1]]);
    assert_eq!(signature, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    assert!(curl.ends_with("--data-binary '@body.json'"), "{curl}");
    let (at_one, _) = sign(directory.path(), &["body.json", "--form", "timestamped", "--timestamp", "1700000000"]);
    assert_eq!(at_one, Key::parse(WEBHOOK_SECRET).unwrap().sign(Some(1_700_000_000), b"Hello, World!"));
    for wrong in [
        &["missing.json"][..],
        &["body.json", "--form", "standard", "--secret", "plain"],
        &["body.json", "--form", "body"],
        &["body.json", "--form", "timestamped", "--timestamp", "yesterday"],
        &["body.json", "--secret", "whsec_hunter2"],
        &["body.json", "--secret-env", "NO_SUCH_VARIABLE"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
        let command = command.env_clear().env("WEBHOOK_SECRET", WEBHOOK_SECRET).current_dir(directory.path());
        let output = command.arg("sign").args(wrong).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
        assert!(!said.contains("hunter2") && !said.contains(WEBHOOK_SECRET), "{said}");
    }
}

#[test]
fn the_line_goes_to_the_hub_that_the_variables_describe() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body.json"), "{}").unwrap();
    for (variables, hub) in [
        (&[][..], "http://127.0.0.1:3345"),
        (&[("PORT", "8080")], "http://127.0.0.1:8080"),
        (&[("PORT", "8080"), ("HOST", "0.0.0.0")], "http://127.0.0.1:8080"),
        (&[("HOST", "::")], "http://[::1]:3345"),
        (&[("HOST", "10.1.2.3"), ("TLS_CERT_FILE", "hub.pem")], "https://10.1.2.3:3345"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
        command.env_clear().env("WEBHOOK_SECRET", WEBHOOK_SECRET).envs(variables.iter().copied());
        let output = command.current_dir(directory.path()).args(["sign", "body.json"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("'{hub}/api/v1/creatorup/webhook/usage-update'")), "{variables:?}: {text}");
    }
}

#[test]
fn the_documentation_signs_its_examples_rightly() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/webhooks.md")).unwrap();
    let secret = "whsec_ZG9jcy93ZWJob29rcy5tZC1leGFtcGxlLTE=";
    let key = Key::parse(secret).unwrap();
    let body = br#"{"digiup_user_id":"018f3c1e-0000-7000-8000-000000000001","usage_data":{"batch_name":"batch-001","batch_type":"video","usage_type":"local_rendering"}}"#;
    let at = 1_773_576_000;
    let inside = String::from_utf8(key.sign_body(body).unwrap()).unwrap();
    for figure in [
        secret.to_owned(),
        String::from_utf8(body.to_vec()).unwrap(),
        format!("X-Webhook-Signature: {}", key.sign(None, body)),
        format!("X-Webhook-Signature: {}", key.sign(Some(at), body)),
        format!("webhook-signature: {}", key.sign_standard("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", at, body).unwrap()),
        inside,
    ] {
        assert!(page.contains(&figure), "docs/webhooks.md does not have {figure}");
    }
}
