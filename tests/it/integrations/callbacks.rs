//! What providers call back: whom the hub believes, what it keeps, and what it answers.

mod abused;
mod crash;
mod managed;
mod refused;
mod taken;

use std::path::Path;
use std::time::Instant;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sea_orm::{ConnectionTrait, Statement, Value as Cell};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use upbridge_server::model::seal::Sealer;
use upbridge_server::storage::integration::CREDENTIALS;
use uuid::Uuid;

use crate::harness::{self, Setup, TestDatabase, TestHub};

const ENCRYPTION_KEY: &str = "test-encryption-key-0123456789abcdef";
/// The instant of the test hub's clock, in unix seconds.
const NOON: i64 = 1_773_576_000;
/// The secret at the end of paths.
const TOKEN: &str = "path-secret-0123456789abcdef0123456789abcdef";
const MIDTRANS: &str = "/api/payments/webhook/midtrans";
const PUBLIC: &str = "https://hub.example";

/// What is kept to tell a repeated callback, without what signatures were given for.
const RECEIPTS: &str = "integration_receipts WHERE callback_key NOT LIKE 'signature:%'";

type Headers = Vec<(&'static str, String)>;

async fn start() -> TestHub {
    setup().start().await
}

fn setup() -> Setup {
    Setup::default().set("ENCRYPTION_KEY", ENCRYPTION_KEY).set("PUBLIC_URL", PUBLIC)
}

/// Whose integration it is to be.
struct Wanted {
    provider: &'static str,
    environment: &'static str,
    credentials: Value,
    partner: Uuid,
    is_active: bool,
}

impl Wanted {
    fn at(provider: &'static str, credentials: Value) -> Wanted {
        Wanted { provider, environment: "sandbox", credentials, partner: Uuid::now_v7(), is_active: true }
    }

    /// Adds it behind the hub's back, with a partner of its own.
    async fn add(&self, database: &TestDatabase) -> Uuid {
        let id = Uuid::now_v7();
        let signs = ["midtrans", "xendit", "stripe", "twilio"].contains(&self.provider);
        let mut sealed = json!({ "credentials": self.credentials });
        if !signs {
            sealed["callbackToken"] = json!(TOKEN);
        }
        let digest = (!signs).then(|| hex::encode(Sha256::digest(TOKEN)));
        let sealer = Sealer::new(ENCRYPTION_KEY, []);
        let sealed = sealer.seal(CREDENTIALS, id, sealed.to_string().as_bytes());
        let category = match self.provider {
            "midtrans" | "xendit" | "stripe" => "payment_gateway",
            "smtp" => "email",
            _ => "whatsapp",
        };
        let connection = database.connect().await;
        let backend = connection.get_database_backend();
        let run = async |sql: &str, cells: Vec<Cell>| {
            connection.execute_raw(Statement::from_sql_and_values(backend, sql, cells)).await.expect(sql)
        };
        run(
            "INSERT INTO partners (id, name) VALUES ($1, $2)",
            vec![self.partner.into(), self.partner.to_string().into()],
        )
        .await;
        run(
            "INSERT INTO partner_integrations (id, partner_id, category, provider, name, environment, credentials, \
             credentials_key_id, callback_digest, is_active) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            vec![
                id.into(),
                self.partner.into(),
                category.into(),
                self.provider.into(),
                id.to_string().into(),
                self.environment.into(),
                sealed.into(),
                sealer.key_id().into(),
                digest.into(),
                self.is_active.into(),
            ],
        )
        .await;
        connection.close().await.expect("closed");
        id
    }
}

/// Sends bytes to a path; the status, and the JSON of the answer.
async fn send(hub: &TestHub, path: &str, headers: &Headers, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let mut request = reqwest::Client::new().post(hub.url(path)).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    harness::json(request).await
}

/// Sends what is refused before all of it is read. Whoever is still writing then may find the connection broken, and
/// has the answer all the same.
async fn send_unread(hub: &TestHub, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(hub.address).await.expect("a connection");
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: hub\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).expect("text");
    let (head, json) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), serde_json::from_str(json).expect("JSON"))
}

/// The most of what proves nothing about one integration that can have been logged since it began: twelve at once, and
/// then one more every five seconds.
fn most_logged(begun: Instant) -> i64 {
    13 + begun.elapsed().as_secs() as i64 / 5
}

/// Sends what is taken; the receipt.
async fn deliver(hub: &TestHub, path: &str, headers: &Headers, body: impl Into<Vec<u8>>) -> Value {
    let (code, answer) = send(hub, path, headers, body).await;
    assert_eq!((code, &answer["success"], &answer["data"]["received"]), (200, &json!(true), &json!(true)), "{answer}");
    answer["data"].clone()
}

/// A callback of one provider: where it goes, what proves a body, and a body.
struct Call {
    provider: &'static str,
    credentials: Value,
    headers: fn(path: &str, body: &[u8]) -> Headers,
    /// Whether its path ends with the secret.
    has_token: bool,
    body: Vec<u8>,
    /// What it becomes.
    event: &'static str,
    /// Whether what proves it covers the body.
    covers_body: bool,
}

impl Call {
    fn path(&self, id: Uuid) -> String {
        let path = format!("/api/webhooks/integrations/{id}");
        if self.has_token { format!("{path}/{TOKEN}") } else { path }
    }
}

const MIDTRANS_KEY: &str = "SB-Mid-server-TESTKEY0000000000000000";
const XENDIT_TOKEN: &str = "test-callback-token-0001";
const STRIPE_SECRET: &str = "whsec_test_secret_0123456789";
const TWILIO_TOKEN: &str = "test_auth_token";

fn json_only(_: &str, _: &[u8]) -> Headers {
    vec![("content-type", "application/json".to_owned())]
}

fn xendit(_: &str, _: &[u8]) -> Headers {
    vec![("content-type", "application/json".to_owned()), ("x-callback-token", XENDIT_TOKEN.to_owned())]
}

fn stripe(_: &str, body: &[u8]) -> Headers {
    let key = hmac::Key::new(hmac::HMAC_SHA256, STRIPE_SECRET.as_bytes());
    let signed = [format!("{NOON}.").as_bytes(), body].concat();
    let signature = format!("t={NOON},v1={}", hex::encode(hmac::sign(&key, &signed)));
    vec![("content-type", "application/json".to_owned()), ("stripe-signature", signature)]
}

/// Signs a form whose fields stand in order and are written without escapes but `%3A` and `%2B`.
fn twilio(path: &str, body: &[u8]) -> Headers {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TWILIO_TOKEN.as_bytes());
    let plain = String::from_utf8_lossy(body).replace("%3A", ":").replace("%2B", "+");
    let signed = format!("{PUBLIC}{path}{}", plain.replace(['&', '='], ""));
    let signature = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
    vec![("content-type", "application/x-www-form-urlencoded".to_owned()), ("x-twilio-signature", signature)]
}

fn midtrans_body(order: &str, status: &str, code: &str) -> Vec<u8> {
    midtrans_signed(order, status, code, MIDTRANS_KEY)
}

fn midtrans_signed(order: &str, status: &str, code: &str, key: &str) -> Vec<u8> {
    let signature = hex::encode(Sha512::digest(format!("{order}{code}150000.00{key}")));
    json!({
        "status_code": code, "transaction_id": "aaaaaaaa-0000-4000-8000-000000000001", "order_id": order,
        "merchant_id": "G000000001", "gross_amount": "150000.00", "currency": "IDR", "payment_type": "bank_transfer",
        "transaction_time": "2026-01-05 09:00:00", "settlement_time": "2026-01-05 09:02:10",
        "transaction_status": status, "fraud_status": "accept", "signature_key": signature,
        "va_numbers": [{"va_number": "880800000001", "bank": "bca"}],
    })
    .to_string()
    .into_bytes()
}

/// A good callback of every provider.
fn calls() -> Vec<Call> {
    vec![
        Call {
            provider: "midtrans",
            credentials: json!({ "serverKey": MIDTRANS_KEY }),
            headers: json_only,
            has_token: false,
            body: midtrans_body("LMS-INV-0001", "settlement", "200"),
            event: "payment.success",
            covers_body: true,
        },
        Call {
            provider: "xendit",
            credentials: json!({ "secretKey": "xnd_development_x", "callbackToken": XENDIT_TOKEN }),
            headers: xendit,
            has_token: false,
            body: json!({"event": "payment.failure", "business_id": "b", "created": "2026-01-05T02:02:12.000Z", "data":
                {"payment_id": "py-1", "payment_request_id": "pr-1", "reference_id": "LMS-INV-0002", "status": "FAILED",
                 "currency": "IDR", "request_amount": 150000, "failure_code": "CARD_DECLINED"}})
            .to_string()
            .into_bytes(),
            event: "payment.failed",
            covers_body: false,
        },
        Call {
            provider: "stripe",
            credentials: json!({ "secretKey": "sk_test_x", "webhookSecret": STRIPE_SECRET }),
            headers: stripe,
            has_token: false,
            body: json!({"id": "evt_1", "object": "event", "type": "payment_intent.processing", "created": NOON,
                "livemode": false, "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 1000,
                "currency": "usd", "status": "processing", "client_secret": "pi_1_secret_hunter22"}}})
            .to_string()
            .into_bytes(),
            event: "payment.pending",
            covers_body: true,
        },
        Call {
            provider: "twilio",
            credentials: json!({ "accountSid": "AC1", "authToken": TWILIO_TOKEN }),
            headers: twilio,
            has_token: false,
            body: b"AccountSid=AC1&From=whatsapp%3A%2B14155238886&MessageSid=SM1&MessageStatus=delivered&To=whatsapp%3A%2B6281200000001"
                .to_vec(),
            event: "message.delivered",
            covers_body: true,
        },
        Call {
            provider: "wablas",
            credentials: json!({ "token": "t" }),
            headers: json_only,
            has_token: true,
            body: br#"{"id":"w1","phone":"6281200000001","status":"sent","note":"","deviceId":"ABC123"}"#.to_vec(),
            event: "message.sent",
            covers_body: false,
        },
        Call {
            provider: "fonnte",
            credentials: json!({ "token": "t" }),
            headers: json_only,
            has_token: true,
            body: br#"{"device":"6281200000000","id":"80000001","stateid":"3EB000000001","status":"expired","state":""}"#
                .to_vec(),
            event: "message.failed",
            covers_body: false,
        },
        Call {
            provider: "smtp",
            credentials: json!({ "host": "mail.example", "port": 587, "username": "u", "password": "p",
                "from": "a@b.example", "security": "starttls" }),
            headers: json_only,
            has_token: true,
            body: br#"{"event":"bounced","message_id":"m1","recipient":"budi@example.com","at":"2026-03-15T11:59:00Z"}"#
                .to_vec(),
            event: "email.bounced",
            covers_body: false,
        },
    ]
}

/// How many rows there are.
async fn rows(database: &TestDatabase, of: &str) -> i64 {
    database.count(&format!("SELECT COUNT(*) FROM {of}")).await
}

/// Everything the hub has written down about callbacks: its logs in the database, and its files.
async fn everything_kept(hub: &TestHub) -> String {
    let as_text = |column: &str| format!("CAST({column} AS TEXT)");
    let columns = ["message", "request_data", "response_data", "error_details", "user_agent", "ip_address"];
    let mut kept = String::new();
    for column in columns.map(as_text) {
        let sql = format!("SELECT COALESCE({column}, '') FROM integration_logs");
        kept += &hub.database.texts(&sql).await.join("\n");
    }
    for column in ["source", "event_type", "payload", "signature", "response", "error_message"].map(as_text) {
        kept += &hub.database.texts(&format!("SELECT COALESCE({column}, '') FROM webhook_logs")).await.join("\n");
    }
    kept += &hub.database.texts("SELECT callback_key FROM integration_receipts").await.join("\n");
    kept + &files(&hub.database.directory.path().join("logs"))
}

fn files(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| std::fs::read_to_string(entry.expect("a file").path()).expect("text")).collect()
}
