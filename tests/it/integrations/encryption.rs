//! Secrets at rest: nothing keeps them readable, and the key they are encrypted with can be changed.

use std::path::Path;

use serde_json::json;
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Client, Code, v1};
use upbridge_server::model::seal::Sealer;
use uuid::Uuid;

use super::{add, new, partner, structure, text};
use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, Setup, TestDatabase, TestHub, refusal};

const OLD: &str = "old-encryption-key-0123456789abcdef0123456789";
const NEW: &str = "new-encryption-key-0123456789abcdef0123456789";
const OTHER: &str = "other-encryption-key-0123456789abcdef0123456";

async fn hub(database: TestDatabase, key: &str, previous: &str) -> TestHub {
    let setup = Setup::default().set("ENCRYPTION_KEY", key).set("ENCRYPTION_KEY_PREVIOUS", previous);
    setup.start_on(database).await
}

async fn rotate(admin: &Client) -> v1::RotateEncryptionResponse {
    admin.integrations().rotate_encryption(v1::RotateEncryptionRequest {}).await.expect("rotated").into_inner()
}

fn smtp(password: &str) -> serde_json::Value {
    json!({
        "host": "mail.example.com", "port": 587, "username": "ana", "password": password,
        "from": "ana@example.com", "security": "tls",
    })
}

/// A UUID as SQL writes it.
fn literal(database: &TestDatabase, id: Uuid) -> String {
    if database.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
}

/// Adds a webhook with a secret and the one before, sealed by `sealer`.
async fn add_webhook(hub: &TestHub, sealer: &Sealer, integration_id: &str) -> Uuid {
    let id = Uuid::now_v7();
    let [row, of] = [id, integration_id.parse().unwrap()].map(|id| literal(&hub.database, id));
    let sealed = sealer.seal("webhook secret", id, b"whsec-now");
    let previous = sealer.seal("previous webhook secret", id, b"whsec-before");
    let sql = format!(
        "INSERT INTO integration_webhooks (id, integration_id, webhook_url, webhook_secret, secret_key_id, \
         secret_masked, previous_secret, events) VALUES ({row}, {of}, 'https://hooks.example.com', '{sealed}', '{key}', \
         '', '{previous}', '[]')",
        key = sealer.key_id(),
    );
    hub.database.execute(&sql).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_anew_and_the_old_key_can_then_be_given_up() {
    let first = hub(TestDatabase::new().await, OLD, "").await;
    let admin = first.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let mail = add(&admin, new(&partner_id, Provider::Smtp, &smtp("the password of mail"))).await;
    let fonnte = json!({ "token": "fonntetoken12345" });
    let chat = add(&admin, new(&partner_id, Provider::Fonnte, &fonnte)).await;
    let webhook = add_webhook(&first, &Sealer::new(OLD, []), &chat.id).await;
    let old_id = mail.encryption_key_id.clone();
    let database = first.stop().await;

    let both = hub(database, NEW, &format!("{OTHER}, {OLD}")).await;
    let admin = both.admin().await;
    let rotated = rotate(&admin).await;
    assert_eq!((rotated.rotated, rotated.remaining), (4, 0));
    assert_ne!(rotated.key_id, old_id);
    let again = rotate(&admin).await;
    assert_eq!((again.rotated, again.remaining, &again.key_id), (0, 0, &rotated.key_id));
    let audited = both.database.texts("SELECT action FROM audit_log WHERE action LIKE 'encryption%'").await;
    assert_eq!(audited.len(), 2, "one a table");
    let database = both.stop().await;

    let new_alone = hub(database, NEW, "").await;
    let admin = new_alone.admin().await;
    for id in [&mail.id, &chat.id] {
        let get = v1::GetIntegrationRequest { integration_id: id.clone() };
        let found = admin.integrations().get_integration(get).await.unwrap().into_inner().integration.unwrap();
        assert_eq!(found.encryption_key_id, rotated.key_id);
        // To make a new path, what is sealed has to be opened.
        let request = v1::RotateCallbackTokenRequest { integration_id: id.clone() };
        admin.integrations().rotate_callback_token(request).await.unwrap();
    }
    let update = v1::UpdateIntegrationRequest {
        integration_id: mail.id.clone(),
        credentials: structure(&smtp("••••mail")),
        ..Default::default()
    };
    admin.integrations().update_integration(update).await.unwrap();
    let sealer = Sealer::new(NEW, []);
    for (column, purpose, plain) in [
        ("webhook_secret", "webhook secret", "whsec-now"),
        ("previous_secret", "previous webhook secret", "whsec-before"),
    ] {
        let sealed = &new_alone.database.texts(&format!("SELECT {column} FROM integration_webhooks")).await[0];
        assert_eq!(sealer.open(purpose, webhook, sealed).unwrap(), plain.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_with_a_lost_key_is_told_apart_and_mended_by_giving_it_anew() {
    let first = hub(TestDatabase::new().await, OLD, "").await;
    let admin = first.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let lost = add(&admin, new(&partner_id, Provider::Smtp, &smtp("the first password"))).await;
    let database = first.stop().await;
    let second = hub(database, OTHER, "").await;
    let admin = second.admin().await;
    let kept = add(&admin, new(&partner_id, Provider::Fonnte, &json!({ "token": "fonntetoken12345" }))).await;
    let database = second.stop().await;

    let third = hub(database, NEW, OTHER).await;
    let admin = third.admin().await;
    for _ in 0..2 {
        let refused = admin.integrations().rotate_encryption(v1::RotateEncryptionRequest {}).await;
        assert_eq!(refusal(refused), (Code::FailedPrecondition, "INVALID_STATE".into()));
    }
    let get = async |id: &str| {
        let get = v1::GetIntegrationRequest { integration_id: id.into() };
        admin.integrations().get_integration(get).await.unwrap().into_inner().integration.unwrap()
    };
    assert_ne!(get(&kept.id).await.encryption_key_id, kept.encryption_key_id, "the others are done");
    assert_eq!(get(&lost.id).await, lost, "what is shown needs no key");
    let request = v1::RotateCallbackTokenRequest { integration_id: lost.id.clone() };
    let refused = admin.integrations().rotate_callback_token(request.clone()).await;
    assert_eq!(refusal(refused), (Code::FailedPrecondition, "INVALID_STATE".into()));
    let change = |credentials: serde_json::Value| v1::UpdateIntegrationRequest {
        integration_id: lost.id.clone(),
        credentials: structure(&credentials),
        ..Default::default()
    };
    let masked = admin.integrations().update_integration(change(smtp("••••word"))).await;
    assert_eq!(refusal(masked).0, Code::InvalidArgument, "nothing is left that it could stand for");
    let rename = v1::UpdateIntegrationRequest { name: Some("Renamed".into()), ..change(json!({})) };
    let rename = v1::UpdateIntegrationRequest { credentials: None, ..rename };
    admin.integrations().update_integration(rename).await.unwrap();
    admin.integrations().update_integration(change(smtp("the second password"))).await.unwrap();
    admin.integrations().rotate_callback_token(request).await.unwrap();
    assert_eq!(rotate(&admin).await.remaining, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_secrets_are_encrypted_anew_a_bounded_number_at_a_time() {
    let first = hub(TestDatabase::new().await, OLD, "").await;
    let admin = first.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let old = Sealer::new(OLD, []);
    let of = literal(&first.database, partner_id.parse().unwrap());
    let rows: Vec<_> = (0..1_050)
        .map(|at| {
            let id = Uuid::now_v7();
            let plain = json!({ "credentials": { "token": format!("token{at:012}") } }).to_string();
            let sealed = old.seal("integration credentials", id, plain.as_bytes());
            let (id, key) = (literal(&first.database, id), old.key_id());
            format!("({id}, {of}, 'whatsapp', 'fonnte', 'n{at}', '{sealed}', '{key}')")
        })
        .collect();
    let columns = "id, partner_id, category, provider, name, credentials, credentials_key_id";
    first.database.execute(&format!("INSERT INTO partner_integrations ({columns}) VALUES {}", rows.join(", "))).await;
    let database = first.stop().await;

    let second = hub(database, NEW, OLD).await;
    let admin = second.admin().await;
    let damaged = "UPDATE partner_integrations SET credentials = credentials || 'A' WHERE name = 'n7'";
    second.database.execute(damaged).await;
    let steps = [rotate(&admin).await, rotate_or_refused(&admin).await];
    assert_eq!((steps[0].rotated, steps[0].remaining, steps[1].rotated), (1_000, 50, -1), "one is damaged");
    second.database.execute("DELETE FROM partner_integrations WHERE name = 'n7'").await;
    let last = rotate(&admin).await;
    assert_eq!((last.rotated, last.remaining), (0, 0));
}

/// The answer, or one that says -1 when it is refused for the state things are in.
async fn rotate_or_refused(admin: &Client) -> v1::RotateEncryptionResponse {
    let answer = admin.integrations().rotate_encryption(v1::RotateEncryptionRequest {}).await;
    answer.map(tonic::Response::into_inner).unwrap_or_else(|status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        v1::RotateEncryptionResponse { rotated: -1, ..Default::default() }
    })
}

/// Whether a file below a directory has these bytes in it; which.
fn found(directory: &Path, secret: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(found(&path, secret));
        } else if std::fs::read(&path).unwrap().windows(secret.len()).any(|bytes| bytes == secret.as_bytes()) {
            files.push(path.display().to_string());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_that_was_given_is_in_the_database_a_log_or_an_answer() {
    let database = TestDatabase::new().await;
    let process = HubProcess::run(HubProcess::command(&database).env("LOG_LEVEL", "trace"));
    let client = process.client().await;
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let admin = client.with_bearer(client.auth().login(login).await.unwrap().into_inner().token);
    let partner_id = partner(&admin, "Ana").await;
    let mut answers = String::new();
    let mut secrets: Vec<String> = Vec::new();
    let mut secret = |name: &str| {
        let secret = format!("{name}-SECRET-{}", Uuid::now_v7().simple());
        secrets.push(secret.clone());
        secret
    };
    // What is taken.
    let key = json!({ "serverKey": secret("midtrans"), "signatureKey": secret("signature") });
    let midtrans = add(&admin, new(&partner_id, Provider::Midtrans, &key)).await;
    let mail = admin.integrations().create_integration(new(&partner_id, Provider::Smtp, &smtp(&secret("smtp")))).await;
    let mail = mail.unwrap().into_inner();
    let change = |credentials: &serde_json::Value| v1::UpdateIntegrationRequest {
        integration_id: midtrans.id.clone(),
        credentials: structure(credentials),
        ..Default::default()
    };
    let changed = admin.integrations().update_integration(change(&json!({ "serverKey": secret("second") }))).await;
    answers += &format!("{midtrans:?} {:?} {changed:?}", mail.integration);
    // What is refused: in the wrong place, of the wrong form, taken.
    for credentials in [
        json!({ "serverKey": secret("good"), secret("swapped"): "serverKey" }),
        json!({ "serverKey": format!("{} ", secret("space")) }),
        json!({ "serverKey": secret("good"), "secretKey": secret("stranger") }),
    ] {
        let refused = admin.integrations().update_integration(change(&credentials)).await;
        answers += &format!("{:?}", refused.unwrap_err());
    }
    let twice = new(&partner_id, Provider::Midtrans, &json!({ "serverKey": secret("twice") }));
    answers += &format!("{:?}", admin.integrations().create_integration(twice).await.unwrap_err());
    let http = reqwest::Client::new().put(process.url(&format!("/api/admin/integrations/{}", midtrans.id)));
    let broken = format!("{{\"credentials\": {{\"serverKey\": \"{}\" ", secret("broken"));
    let answer = http.header("content-type", "application/json").body(broken).send().await.unwrap();
    answers += &answer.text().await.unwrap();
    // What the hub makes: a secret path.
    let token = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let mail_id = mail.integration.unwrap().id;
    let rotated = v1::RotateCallbackTokenRequest { integration_id: mail_id };
    let rotated = admin.integrations().rotate_callback_token(rotated).await.unwrap().into_inner();
    let tokens = [token(&mail.callback_path), token(&rotated.callback_path)];
    let listed = v1::ListIntegrationsRequest { partner_id: partner_id.clone(), ..Default::default() };
    answers += &format!("{:?}", admin.integrations().list_integrations(listed).await.unwrap().into_inner());
    assert_eq!(text(&midtrans.credentials, "serverKey").map(|shown| shown.chars().count()), Some(8));

    let mut kept = String::new();
    if database.is_postgres() {
        for table in ["partner_integrations", "integration_logs", "integration_counts", "audit_log", "jobs", "partners"]
        {
            kept += &database.texts(&format!("SELECT row_to_json({table})::text FROM {table}")).await.concat();
        }
        assert!(kept.contains("midtrans"));
    }
    let said = process.said();
    process.terminate();
    assert!(said.contains("serving"));
    for secret in secrets.iter().chain(&tokens) {
        assert!(!answers.contains(secret), "an answer has {secret}");
        assert!(!said.contains(secret), "standard error has {secret}");
        assert!(!kept.contains(secret), "the database has {secret}");
        assert_eq!(found(database.directory.path(), secret), [""; 0], "{secret}");
    }
    assert_ne!(found(database.directory.path(), "the hub is serving"), [""; 0], "the logs are looked at");
    if !database.is_postgres() {
        assert_ne!(found(database.directory.path(), "••••"), [""; 0], "the database is looked at");
    }
}
