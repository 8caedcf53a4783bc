//! The sources' ten requests and their four curl checks, run with curl as they are printed: host, id and credentials
//! apart. The answers have the printed members with the printed types, and no others.

use std::process::Command;

use reqwest::Client as Http;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestHub, have};
use crate::peer::{HttpPeer, Reply};

/// What Midtrans says of an order that does not exist to one whose key is good.
const NO_SUCH_ORDER: &str = r#"{"status_code":"404","status_message":"Transaction doesn't exist.","id":"11111111-2222-3333-4444-555555555555"}"#;

/// A page, the hub behind it, and the provider behind that.
struct Stage {
    hub: TestHub,
    provider: HttpPeer,
    cookie: String,
    partner: String,
}

impl Stage {
    async fn set() -> Stage {
        let provider = HttpPeer::start().await;
        provider.always(Reply::json(404, NO_SUCH_ORDER));
        let hub = Setup::default()
            .set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8")
            .set("INTEGRATION_TEST_INTERVAL", "0")
            .start()
            .await;
        let login = json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD });
        let answer =
            Http::new().post(hub.url("/api/v1/client/auth/login")).json(&login).send().await.expect("an answer");
        let cookie = answer.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("one").to_owned();
        let mut stage = Stage { hub, provider, cookie, partner: String::new() };
        let made =
            stage.curl(r#"curl -X POST /api/admin/partners -H "Content-Type: application/json" -d '{"name":"Ana"}'"#);
        stage.partner = made["data"]["id"].as_str().expect("an id").to_owned();
        stage
    }

    /// Runs a line of the sources: with this host, and with the session's cookie where it names one or none.
    fn curl(&self, line: &str) -> Value {
        let cookie = format!("Cookie: {}", self.cookie);
        let line = match line.contains("Cookie: your-session-cookie") {
            true => line.replace("Cookie: your-session-cookie", &cookie),
            false => format!("{line} -H \"{cookie}\""),
        };
        let host = self.hub.url("");
        let line = line.replace("http://localhost:3001", "").replace(" /api/", &format!(" {host}/api/"));
        let line = line.replacen("curl", "curl -sS", 1);
        let output = Command::new("/bin/sh").arg("-c").arg(&line).output().expect("a shell");
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{line}\n{}", String::from_utf8_lossy(&output.stdout)));
        assert_eq!(answer["success"], true, "{line}\n{answer}");
        answer
    }

    /// Adds the integration of the provider.
    fn integration(&self) -> String {
        let body = json!({
            "category": "payment_gateway", "provider": "midtrans", "name": "Midtrans", "environment": "sandbox",
            "credentials": { "serverKey": "SB-Mid-server-abc123cde456" }, "baseUrl": self.provider.url(),
        });
        let path = format!("/api/admin/partners/{}/integrations", self.partner);
        let made = self.curl(&format!(r#"curl -X POST {path} -H "Content-Type: application/json" -d '{body}'"#));
        made["data"]["id"].as_str().expect("an id").to_owned()
    }
}

/// What differs between an answer and its printed form, where `:kind` stands for anything of a kind.
fn differences(wanted: &Value, found: &Value, path: &str) -> Vec<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let missing =
                wanted.keys().filter(|key| !found.contains_key(*key)).map(|key| format!("{path}.{key} is missing"));
            let more = found
                .keys()
                .filter(|key| !wanted.contains_key(*key))
                .map(|key| format!("{path}.{key} is one too many"));
            let within = wanted.iter().filter_map(|(key, wanted)| Some((key, wanted, found.get(key)?)));
            let within = within.flat_map(|(key, wanted, found)| differences(wanted, found, &format!("{path}.{key}")));
            missing.chain(more).chain(within).collect()
        }
        // One item stands for any number of its like, but not for none.
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == 1 && !found.is_empty() => {
            found.iter().flat_map(|found| differences(&wanted[0], found, &format!("{path}[]"))).collect()
        }
        (Value::String(kinds), found) if kinds.starts_with(':') => {
            let is = kinds[1..].split('|').any(|kind| is_a(kind, found));
            (!is).then(|| format!("{path} is {found}, not {kinds}")).into_iter().collect()
        }
        (wanted, found) => (wanted != found).then(|| format!("{path} is {found}, not {wanted}")).into_iter().collect(),
    }
}

fn is_a(kind: &str, found: &Value) -> bool {
    let text = found.as_str();
    match kind {
        "uuid" => text.is_some_and(|text| Uuid::parse_str(text).is_ok()),
        // To the second, as it is printed.
        "time" => text.is_some_and(|text| text.len() == "2026-02-21T10:00:00Z".len() && text.ends_with('Z')),
        "moment" => text.is_some_and(|text| chrono::DateTime::parse_from_rfc3339(text).is_ok() && text.ends_with('Z')),
        "text" => text.is_some_and(|text| !text.is_empty()),
        "int" => found.is_i64(),
        "number" => found.is_number(),
        "object" => found.is_object(),
        "null" => found.is_null(),
        "action" => {
            text.is_some_and(|word| ["test", "webhook", "transaction", "error", "config_change"].contains(&word))
        }
        "outcome" => text.is_some_and(|word| ["success", "failed", "pending"].contains(&word)),
        other => panic!("{other} is no kind"),
    }
}

fn same(answer: &Value, member: &str, wanted: Value) {
    let found = differences(&wanted, &answer[member], member);
    assert!(found.is_empty(), "{found:#?}\n{answer:#}");
}

/// `POST …/test`, as it is printed.
fn tested(answer: &Value) {
    let details = json!({ "environment": "sandbox" });
    let wanted = json!({
        "status": "success", "message": "Midtrans connection successful", "details": details, "testedAt": ":time",
    });
    same(answer, "data", wanted);
}

/// `GET …/logs`, as it is printed.
fn logged(answer: &Value, limit: i64) {
    let entry = json!({
        "id": ":uuid", "integrationId": ":uuid", "action": ":action", "status": ":outcome", "message": ":text",
        "requestData": ":object|null", "responseData": ":object|null", "errorDetails": ":object|null",
        "duration": ":int|null", "ipAddress": ":text|null", "userAgent": ":text|null", "userId": ":uuid|null",
        "createdAt": ":moment",
    });
    same(answer, "data", json!([entry]));
    same(answer, "stats", json!([{ "action": ":action", "status": ":outcome", "count": ":int" }]));
    same(answer, "pagination", json!({ "total": ":int", "page": 1, "limit": limit, "totalPages": ":int" }));
    let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 4, "{members:?}");
}

/// A webhook, as its schema is printed.
fn webhook() -> Value {
    json!({
        "id": ":uuid", "integrationId": ":uuid", "webhookUrl": ":text", "webhookSecret": ":text", "events": [":text"],
        "isActive": true, "retryAttempts": 3, "retryDelay": 60, "lastTriggeredAt": ":moment|null",
        "lastStatus": ":outcome|null", "failureCount": 0,
    })
}

/// `GET …/health`, as it is printed.
fn healthy(answer: &Value) {
    let metrics = json!({
        "totalRequests": ":int", "successCount": ":int", "failedCount": ":int", "successRate": ":number",
        "avgResponseTime": ":int", "uptime": ":number",
    });
    let test = json!({ "testedAt": ":time", "status": "success", "message": ":text", "daysSinceLastTest": ":int" });
    let wanted = json!({
        "integrationId": ":uuid", "healthStatus": "healthy", "healthScore": ":int", "metrics": metrics, "lastTest": test,
        "errorDistribution": [], "recommendations": ["✅ Integration is healthy. No action required."],
        "checkedAt": ":time",
    });
    same(answer, "data", wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ten_requests_of_the_endpoint_table_answer_as_they_are_printed() {
    if !have("curl") {
        return;
    }
    let stage = Stage::set().await;
    let id = stage.integration();
    let (one, partner) = (format!("/api/admin/integrations/{id}"), &stage.partner);
    let listed = stage.curl(&format!("curl /api/admin/partners/{partner}/integrations"));
    assert_eq!(listed["data"][0]["id"], json!(id));
    let found = stage.curl(&format!("curl {one}"));
    assert_eq!((&found["data"]["id"], &found["data"]["provider"]), (&json!(id), &json!("midtrans")));
    assert!(!found.to_string().contains("abc123"), "the key is masked: {found}");
    let body = json!({ "name": "Midtrans, shop" });
    let changed = stage.curl(&format!(r#"curl -X PUT {one} -H "Content-Type: application/json" -d '{body}'"#));
    assert_eq!(changed["data"]["name"], "Midtrans, shop");
    tested(&stage.curl(&format!("curl -X POST {one}/test")));
    assert_eq!(stage.provider.count(), 1);
    let query = "page=1&limit=50&action=test&status=success";
    let answer = stage.curl(&format!("curl '{}{one}/logs?{query}'", stage.hub.url("")));
    logged(&answer, 50);
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(1));
    let entry = &answer["data"][0];
    assert_eq!(entry["ipAddress"], "127.0.0.1");
    assert!(entry["userAgent"].as_str().is_some_and(|agent| agent.starts_with("curl/")), "{entry}");
    assert!(!entry["duration"].is_null() && !entry["userId"].is_null(), "{entry}");
    // Beside the test there are two changes of the configuration: added, and renamed.
    assert_eq!((answer["stats"].as_array().map(Vec::len), &answer["pagination"]["total"]), (Some(2), &json!(1)));
    let body = json!({
        "webhookUrl": "https://yourdomain.com/webhooks/payment", "webhookSecret": "your_secret_key",
        "events": ["payment.success", "payment.failed"], "isActive": true, "retryAttempts": 3, "retryDelay": 60,
    });
    let line = format!(r#"curl -X POST {one}/webhooks -H "Content-Type: application/json" -d '{body}'"#);
    let made = stage.curl(&line);
    same(&made, "data", webhook());
    assert_eq!(made["data"]["events"], json!(["payment.success", "payment.failed"]));
    let listed = stage.curl(&format!("curl {one}/webhooks"));
    same(&listed, "data", json!([webhook()]));
    assert!(!listed.to_string().contains("your_secret_key"), "a secret is shown once: {listed}");
    healthy(&stage.curl(&format!("curl {one}/health")));
    stage.curl(&format!("curl -X DELETE {one}"));
    assert_eq!(stage.hub.database.count("SELECT COUNT(*) FROM integration_logs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_curl_checks_run_as_they_are_printed() {
    if !have("curl") {
        return;
    }
    let stage = Stage::set().await;
    let id = stage.integration();
    let check = |text: &str| stage.curl(&text.replace("[id]", &id));
    tested(&check(
        r#"curl -X POST http://localhost:3001/api/admin/integrations/[id]/test \
  -H "Cookie: your-session-cookie""#,
    ));
    logged(&check("curl http://localhost:3001/api/admin/integrations/[id]/logs?limit=10"), 10);
    let made = check(
        r#"curl -X POST http://localhost:3001/api/admin/integrations/[id]/webhooks \
  -H "Content-Type: application/json" \
  -d '{
    "webhookUrl": "https://example.com/webhook",
    "events": ["payment.success"]
  }'"#,
    );
    same(&made, "data", webhook());
    healthy(&check("curl http://localhost:3001/api/admin/integrations/[id]/health"));
}
