//! The program: what it says, how it starts, and how it ends.

use std::process::Stdio;

use serde_json::{Value, json};
use upbridge_proto::creatorup::v1::GetHealthRequest;

use crate::harness::{Setup, TestCreatorUp};

#[tokio::test(flavor = "multi_thread")]
async fn it_explains_itself() {
    let setup = Setup::new().await;
    let say = |arguments: &[&str]| {
        let said = setup.command().args(arguments).stderr(Stdio::piped()).output().expect("creatorup runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text")
    };
    let help = say(&["--help"]);
    for word in ["serve", "migrate", "openapi", "reference CreatorUp service"] {
        assert!(help.contains(word), "{help}");
    }
    let document: Value = serde_json::from_str(&say(&["openapi"])).expect("JSON");
    assert!(document["paths"]["/api/v1/video/process"]["post"].is_object());
    assert!(document["paths"]["/api/v1/client/auth/login"].is_null(), "the hub's paths are not CreatorUp's");
    assert!(say(&["migrate", "status"]).contains("pending "));
    say(&["migrate", "up"]);
    let after = say(&["migrate", "status"]);
    assert!(after.contains("applied ") && !after.contains("pending "), "{after}");
    say(&["migrate", "down", "--steps", "2", "--yes"]);
    assert!(!say(&["migrate", "status"]).contains("applied "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_variable_ends_the_start_and_is_named() {
    for (name, value) in
        [("PORT", "many"), ("DIGIUP_API_URL", "nonsense"), ("CREATORUP_TYPO", "1"), ("MEDIA_ROOT", "/dev/null")]
    {
        let setup = Setup::new().await.set(name, value);
        let said = setup.command().output().expect("creatorup runs");
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && error.contains(name), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_set_it_comes_up_and_makes_the_secrets_both_sides_need() {
    let setup = Setup::new().await.set("CREATORUP_API_KEY", "").set("WEBHOOK_SECRET", "").set("MEDIA_ROOT", "");
    let setup = setup.set("LOG_DIR", "").set("CREATORUP_DATABASE_URL", "");
    let creatorup = setup.start().await;
    let directory = creatorup.database().directory.path();
    let secrets = std::fs::read_to_string(directory.join("data/secrets.env")).unwrap();
    assert!(secrets.contains("CREATORUP_API_KEY=") && secrets.contains("WEBHOOK_SECRET="), "{secrets}");
    let key = secrets.lines().find_map(|line| line.strip_prefix("CREATORUP_API_KEY=")).unwrap();
    let gone = json!({"digiup_user_id": "018f3c1e-0000-7000-8000-000000000001", "deleted": true});
    let (status, _) = creatorup.http("/api/v1/digiup/user/sync", Some(("x-api-key", key)), Some(gone)).await;
    assert_eq!(status, 404, "the key is good, and there is nobody");
    assert!(directory.join("data/creatorup.db").exists() && directory.join("data/media").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_how_it_is() {
    let creatorup = TestCreatorUp::start().await;
    let (status, health) = creatorup.http("/healthz", None, None).await;
    assert_eq!((status, &health["status"]), (200, &json!("serving")));
    let api = creatorup.service().await;
    let health = api.health().get_health(GetHealthRequest {}).await.unwrap().into_inner();
    assert!(health.database.unwrap().works && health.hub.unwrap().works);
    assert_eq!((health.unsent_webhooks, health.failed_webhooks, health.unreported_batches), (0, 0, 0));
    creatorup.hub().close().await;
    let (status, health) = creatorup.http("/api/v1/health", None, None).await;
    assert_eq!(
        (status, &health["data"]["status"], &health["data"]["hub"]["works"]),
        (200, &json!("degraded"), &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_order_when_it_is_told_to() {
    let creatorup = TestCreatorUp::start().await;
    assert_eq!(creatorup.process.terminate(), Some(0));
}
