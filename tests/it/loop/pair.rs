//! Both servers as processes, with the wires between them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use upbridge_client::{Client, v1};

use super::eventually;
use super::relay::Relay;
use crate::harness::{
    ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, MEMBER_PASSWORD, Member, SERVICE_KEY, TestDatabase, WEBHOOK_SECRET,
    register,
};

/// What differs from the usual pair.
#[derive(Default)]
pub struct Setup {
    hub: Vec<(&'static str, String)>,
    creatorup: Vec<(&'static str, String)>,
}

impl Setup {
    /// A variable of both.
    pub fn both(mut self, name: &'static str, value: &str) -> Setup {
        self.hub.push((name, value.to_owned()));
        self.creatorup.push((name, value.to_owned()));
        self
    }

    /// Both wires and databases, and no server yet.
    pub async fn prepare(self) -> Pair {
        Pair {
            hub: None,
            creatorup: None,
            to_hub: Relay::start().await,
            to_creatorup: Relay::start().await,
            hub_database: TestDatabase::new().await,
            creatorup_database: TestDatabase::new().await,
            http: reqwest::Client::new(),
            setup: self,
        }
    }

    /// Both, serving.
    pub async fn start(self) -> Pair {
        let mut pair = self.prepare().await;
        pair.start_hub();
        pair.start_creatorup();
        pair
    }
}

/// A hub and a CreatorUp.
pub struct Pair {
    pub hub: Option<HubProcess>,
    pub creatorup: Option<HubProcess>,
    /// CreatorUp's wire to the hub.
    pub to_hub: Relay,
    /// The hub's wire to CreatorUp.
    pub to_creatorup: Relay,
    pub hub_database: TestDatabase,
    pub creatorup_database: TestDatabase,
    http: reqwest::Client,
    setup: Setup,
}

/// The executable beside the hub's own.
fn creatorup() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_upbridge")).with_file_name("creatorup");
    assert!(
        path.is_file(),
        "{} is missing; add `-p creatorup` to `-p upbridge-server`, or run `cargo build -p creatorup`",
        path.display()
    );
    path
}

impl Pair {
    pub async fn start() -> Pair {
        Setup::default().start().await
    }

    pub fn start_hub(&mut self) {
        let mut command = HubProcess::command(&self.hub_database);
        command.env("CREATORUP_API_URL", self.to_creatorup.url()).env("MAX_SYNC_RETRIES", "100");
        command.env("HEALTH_CHECK_INTERVAL", "100").env("SYNC_TIMEOUT", "3000");
        hurry(&mut command);
        command.envs(self.setup.hub.iter().map(|(name, value)| (name, value)));
        let hub = HubProcess::run(&mut command);
        self.to_hub.lead_to(Some(hub.address));
        self.hub = Some(hub);
    }

    pub fn start_creatorup(&mut self) {
        let directory = self.creatorup_database.directory.path();
        let mut command = Command::new(creatorup());
        command.env_clear().current_dir(directory).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOST", "127.0.0.1").env("PORT", "0").env("LOG_DIR", directory.join("logs"));
        command.env("CREATORUP_DATABASE_URL", &self.creatorup_database.url).env("DIGIUP_API_URL", self.to_hub.url());
        command.env("CREATORUP_API_KEY", SERVICE_KEY).env("WEBHOOK_SECRET", WEBHOOK_SECRET);
        command.env("MEDIA_ROOT", self.media()).env("SYNC_TIMEOUT", "3000");
        hurry(&mut command);
        command.envs(self.setup.creatorup.iter().map(|(name, value)| (name, value)));
        let creatorup = HubProcess::serving(&mut command, "creatorup is serving");
        self.to_creatorup.lead_to(Some(creatorup.address));
        self.creatorup = Some(creatorup);
    }

    /// `kill -9`.
    pub fn kill_hub(&mut self) {
        self.to_hub.lead_to(None);
        self.hub.take().expect("a hub").kill();
    }

    /// `kill -9`.
    pub fn kill_creatorup(&mut self) {
        self.to_creatorup.lead_to(None);
        self.creatorup.take().expect("a CreatorUp").kill();
    }

    pub fn media(&self) -> PathBuf {
        self.creatorup_database.directory.path().join("media")
    }

    pub fn hub(&self) -> &HubProcess {
        self.hub.as_ref().expect("a hub")
    }

    pub fn creatorup(&self) -> &HubProcess {
        self.creatorup.as_ref().expect("a CreatorUp")
    }

    /// A user of the hub, with a plan or without.
    pub async fn member(&self, plan_id: Option<i32>) -> Member {
        register(&self.hub().client().await, plan_id).await
    }

    /// The hub as its administrator.
    pub async fn admin(&self) -> Client {
        let client = self.hub().client().await;
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let token = client.auth().login(login).await.expect("signed in").into_inner().token;
        client.with_bearer(token)
    }

    /// The hub as a user; for one whose connection went with a hub that was killed.
    pub async fn as_member(&self, member: &Member) -> Client {
        self.hub().client().await.with_bearer(&member.token)
    }

    /// A request to CreatorUp: a GET, or a POST when there is a body; the status and the JSON of the answer. `None`
    /// when there was none.
    pub async fn try_ask(&self, token: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let url = self.creatorup.as_ref()?.url(path);
        let request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.bearer_auth(token).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// The same of a CreatorUp that is there.
    pub async fn ask(&self, token: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(token, path, body).await.unwrap_or_else(|| panic!("no answer to {path}"))
    }

    /// The data of a successful answer.
    pub async fn data(&self, token: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, mut answer) = self.ask(token, path, body).await;
        assert!((200..300).contains(&status) && answer["success"] == true, "{path}: {status} {answer}");
        answer["data"].take()
    }

    /// Brings a user to CreatorUp, so that it knows them also while the hub is away.
    pub async fn enter(&self, member: &Member) {
        eventually("CreatorUp has heard of the user", async || {
            let (status, answer) = self.ask(&member.token, "/api/v1/digiup/verify", Some(&json!({}))).await;
            // A hub that does not answer in time is asked again.
            assert!(status == 503 || (status == 200 && answer["data"]["valid"] == true), "{status}: {answer}");
            status == 200
        })
        .await;
    }

    /// Creates a batch; the answer's data.
    pub async fn create(&self, member: &Member, key: &str, inputs: &[&str]) -> Value {
        let asked = json!({ "name": key, "type": "video", "inputs": inputs, "idempotency_key": key });
        self.data(&member.token, "/api/v1/batch/create", Some(&asked)).await
    }

    /// Waits until a batch is over.
    pub async fn over(&self, member: &Member, id: &str) -> Value {
        let mut batch = Value::Null;
        eventually("the batch is over", async || {
            batch = self.data(&member.token, &format!("/api/v1/batch/{id}"), None).await["batch"].take();
            ["completed", "failed", "cancelled"].iter().any(|word| batch["status"] == *word)
        })
        .await;
        batch
    }

    /// Waits until the hub says that CreatorUp has confirmed the user.
    pub async fn synced(&self, member: &Member) -> v1::GetSyncStatusResponse {
        let client = self.as_member(member).await;
        let mut status = v1::GetSyncStatusResponse::default();
        eventually("the user is synced", async || {
            let asked = client.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await;
            status = asked.expect("a status").into_inner();
            status.sync_status() == v1::SyncStatus::Synced
        })
        .await;
        status
    }

    /// Waits until CreatorUp says that the hub knows everything, and asserts that both sides count the same; answers
    /// with the units and batches of the month.
    pub async fn agree(&self, member: &Member) -> (i64, i64) {
        let mut month = Value::Null;
        eventually("everything is reported", async || {
            month = self.data(&member.token, "/api/v1/usage/monthly", None).await;
            month["is_reported"] == true
        })
        .await;
        let asked = v1::GetMonthlyUsageRequest {
            month_year: month["month_year"].as_str().map(str::to_owned),
            ..Default::default()
        };
        let client = self.as_member(member).await;
        let at_hub = client.usage().get_monthly_usage(asked).await.expect("a month").into_inner();
        let both = (at_hub.total, at_hub.batches);
        assert_eq!((month["total"].as_i64(), month["batches"].as_i64()), (Some(both.0), Some(both.1)), "{month}");
        let kinds =
            |named: &[v1::UsageTotal]| json!(named.iter().map(|one| (&one.r#type, one.total)).collect::<Vec<_>>());
        let theirs = |name: &str| {
            let named = month[name].as_array().expect("sums").iter();
            json!(named.map(|one| (&one["type"], &one["total"])).collect::<Vec<_>>())
        };
        assert_eq!(theirs("by_type"), kinds(&at_hub.by_type));
        assert_eq!(theirs("by_batch_type"), kinds(&at_hub.by_batch_type));
        both
    }

    /// Signs in at the hub over HTTP, as the products' documents do; the token.
    pub async fn sign_in(&self, member: &Member) -> String {
        let body = json!({ "email": member.email, "password": MEMBER_PASSWORD });
        let request = self.http.post(self.hub().url("/api/v1/client/auth/login")).json(&body);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["data"]["token"].as_str().expect("a token").to_owned()
    }
}

/// Waits are short, because a test is waiting.
fn hurry(command: &mut Command) {
    command.env("QUEUE_BACKOFF_BASE", "20").env("QUEUE_POLL_INTERVAL", "20").env("QUEUE_HEARTBEAT_INTERVAL", "1000");
}
