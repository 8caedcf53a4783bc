//! `upbridge integrations`: real processes, a real hub.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use upbridge_client::v1;
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_server::model::seal::Sealer;

use super::{add, new, partner};
use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestHub};

async fn run(hub: &TestHub, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
    command.env_clear().current_dir(hub.database.directory.path()).stdin(Stdio::null());
    command.env("UPBRIDGE_URL", hub.url("")).env("UPBRIDGE_PASSWORD", ADMIN_PASSWORD);
    command.args(["integrations", "--email", ADMIN_EMAIL]).args(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends")).await.expect("no panic")
}

async fn says(hub: &TestHub, arguments: &[&str]) -> String {
    let output = run(hub, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// What is complained about, by a command that fails.
async fn complaint(hub: &TestHub, arguments: &[&str]) -> String {
    let output = run(hub, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_looked_at_from_the_command_line_with_their_secrets_masked() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Toko Ana").await;
    partner(&admin, "Bo").await;
    let key = json!({ "serverKey": "SB-Mid-server-midtranskey1" });
    let made = add(&admin, new(&partner_id, Provider::Midtrans, &key)).await;
    let table = says(&hub, &["providers"]).await;
    assert_eq!(table.lines().count(), 8, "{table}");
    assert!(table.contains("serverKey signatureKey?"), "{table}");
    assert_eq!(says(&hub, &["providers", "--category", "email", "--json"]).await.lines().count(), 1);
    let partners = says(&hub, &["partners", "--query", "toko"]).await;
    assert!(partners.lines().count() == 2 && partners.contains(&partner_id), "{partners}");
    let listed: Value = serde_json::from_str(&says(&hub, &["list", &partner_id, "--json"]).await).unwrap();
    assert_eq!((&listed["id"], &listed["credentials"]["serverKey"]), (&json!(made.id), &json!("••••key1")));
    let table = says(&hub, &["list", &partner_id, "--environment", "sandbox"]).await;
    assert!(table.lines().count() == 2 && table.contains("midtrans"), "{table}");
    assert_eq!(says(&hub, &["list", &partner_id, "--provider", "stripe"]).await.lines().count(), 1);
    let shown = says(&hub, &["get", &made.id]).await;
    assert!(shown.contains("••••key1") && !shown.contains("midtranskey"), "{shown}");
    let one: Value = serde_json::from_str(&says(&hub, &["get", &made.id, "--json"]).await).unwrap();
    assert_eq!(one, listed);
    let logs = says(&hub, &["logs", &made.id, "--action", "config_change"]).await;
    assert!(logs.contains("The integration was added") && logs.ends_with("page 1 of 1, 1 entries"), "{logs}");
    assert_eq!(says(&hub, &["logs", &made.id, "--json"]).await.lines().count(), 1);
    let health = says(&hub, &["health", &made.id]).await;
    assert!(health.starts_with("status        unknown\nrequests      0\n"), "{health}");
    for (arguments, word) in [
        (vec!["get", &partner_id], "NOT_FOUND"),
        (vec!["get", "nonsense"], "UUID"),
        (vec!["list", &made.id], "NOT_FOUND"),
        (vec!["test", &partner_id], "NOT_FOUND"),
        (vec!["logs", &partner_id], "NOT_FOUND"),
        (vec!["health", &partner_id], "NOT_FOUND"),
        (vec!["logs", &made.id, "--limit", "0"], "limit"),
        (vec!["health", &made.id, "--hours", "721"], "hours"),
        (vec!["rotate-encryption"], "--yes"),
    ] {
        let complaint = complaint(&hub, &arguments).await;
        assert!(complaint.to_lowercase().contains(&word.to_lowercase()), "{arguments:?}: {complaint}");
    }
    assert_eq!(run(&hub, &["list", &partner_id, "--provider", "paypal"]).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_anew_from_the_command_line_until_nothing_remains() {
    const KEYS: [&str; 2] =
        ["old-encryption-key-0123456789abcdef0123456789", "new-encryption-key-0123456789abcdef0123456789"];
    let hub = Setup::default().set("ENCRYPTION_KEY", KEYS[0]).start().await;
    let partner_id = partner(&hub.admin().await, "Ana").await;
    let old = Sealer::new(KEYS[0], []);
    let literal = |id: uuid::Uuid| match hub.database.is_postgres() {
        true => format!("'{id}'"),
        false => format!("x'{}'", id.simple()),
    };
    let of = literal(partner_id.parse().unwrap());
    let rows: Vec<_> = (0..1_100)
        .map(|at| {
            let id = uuid::Uuid::now_v7();
            let sealed = old.seal("integration credentials", id, br#"{"credentials":{"token":"0123456789abcdef"}}"#);
            format!("({}, {of}, 'whatsapp', 'fonnte', 'n{at}', '{sealed}', '{}')", literal(id), old.key_id())
        })
        .collect();
    let columns = "id, partner_id, category, provider, name, credentials, credentials_key_id";
    hub.database.execute(&format!("INSERT INTO partner_integrations ({columns}) VALUES {}", rows.join(", "))).await;
    let database = hub.stop().await;
    let setup = Setup::default().set("ENCRYPTION_KEY", KEYS[1]).set("ENCRYPTION_KEY_PREVIOUS", KEYS[0]);
    let hub = setup.start_on(database).await;
    let output = run(&hub, &["rotate-encryption", "--yes"]).await;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("encrypted anew: 1100") && told.contains("remaining: 100"), "{said} {told}");
    let again: Value = serde_json::from_str(&says(&hub, &["rotate-encryption", "--yes", "--json"]).await).unwrap();
    assert_eq!((&again["rotated"], &again["remaining"]), (&json!(0), &json!(0)), "{again}");
    // Every list is whole, however long.
    assert_eq!(says(&hub, &["list", &partner_id]).await.lines().count(), 1_101);
    let request = v1::ListIntegrationsRequest { partner_id, page_size: Some(200), ..Default::default() };
    let page = hub.admin().await.integrations().list_integrations(request).await.unwrap().into_inner();
    assert!(page.integrations.iter().all(|one| one.encryption_key_id == again["key_id"]));
}
