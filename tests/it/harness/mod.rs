//! Hubs for tests: in this process with a clock the test holds, or as the real executable.

mod peer;
mod postgres;
mod process;
mod program;
mod raw;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upbridge_client::{Client, Code, Credentials, Status, v1};
use upbridge_server::config::Config;
use upbridge_server::model::clock::HeldClock;
use uuid::Uuid;

pub use peer::{Peer, Play};
pub use postgres::PostgresServer;
pub use process::HubProcess;
pub use program::{have, skipped};
pub use raw::{RawClient, frame};

pub const ADMIN_EMAIL: &str = "admin@test.example";
pub const ADMIN_PASSWORD: &str = "admin-password-1";
pub const SERVICE_KEY: &str = "test-service-key-0123456789abcdef0123456789";
pub const JWT_SECRET: &str = "test-jwt-secret-0123456789abcdef0123456789abcdef";
pub const WEBHOOK_SECRET: &str = "whsec_dGVzdC13ZWJob29rLXNlY3JldC0wMTIzNDU2Nzg5";
pub const MEMBER_PASSWORD: &str = "member-password-1";

/// A database of its own: a file, or a database on the server of `TEST_POSTGRES_URL`.
pub struct TestDatabase {
    pub url: String,
    pub directory: TempDir,
}

impl TestDatabase {
    pub async fn new() -> TestDatabase {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = match std::env::var("TEST_POSTGRES_URL") {
            Ok(server) => {
                let name = format!("upbridge_test_{}", Uuid::now_v7().simple());
                let connection = Database::connect(&server).await.expect("TEST_POSTGRES_URL answers");
                connection.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database");
                connection.close().await.expect("closed");
                let (base, _) = server.rsplit_once('/').expect("TEST_POSTGRES_URL names a database");
                format!("{base}/{name}")
            }
            Err(_) => format!("sqlite://{}?mode=rwc", directory.path().join("hub.db").display()),
        };
        TestDatabase { url, directory }
    }

    /// A second pair of eyes on the database.
    pub async fn connect(&self) -> DatabaseConnection {
        let mut options = sea_orm::ConnectOptions::new(&self.url);
        options.max_connections(1).sqlx_logging(false);
        // A hub that is always writing leaves moments in between, and whoever waits asks again and again.
        options.map_sqlx_sqlite_opts(|sqlite| sqlite.busy_timeout(Duration::from_secs(60)));
        Database::connect(options).await.expect("the database opens")
    }

    /// The first column of the only row, as an integer.
    pub async fn count(&self, sql: &str) -> i64 {
        let connection = self.connect().await;
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.expect(sql).expect("a row");
        let count = row.try_get_by_index::<i64>(0).or_else(|_| row.try_get_by_index::<i32>(0).map(i64::from));
        connection.close().await.expect("closed");
        count.expect("an integer")
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let connection = self.connect().await;
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(statement).await.expect(sql);
        connection.close().await.expect("closed");
        rows.iter().map(|row| row.try_get_by_index(0).expect("text")).collect()
    }

    /// Changes the database behind the hub's back.
    pub async fn execute(&self, sql: &str) {
        let connection = self.connect().await;
        connection.execute_unprepared(sql).await.expect(sql);
        connection.close().await.expect("closed");
    }

    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }
}

/// The variables every hub of a test is configured with.
pub fn variables(database: &TestDatabase) -> BTreeMap<String, String> {
    let logs = database.directory.path().join("logs").display().to_string();
    let pairs = [
        ("DATABASE_URL", database.url.as_str()),
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("JWT_SECRET", JWT_SECRET),
        ("CREATORUP_API_KEY", SERVICE_KEY),
        ("ADMIN_EMAIL", ADMIN_EMAIL),
        ("ADMIN_PASSWORD", ADMIN_PASSWORD),
        ("RATE_LIMIT_ANONYMOUS", "off"),
        ("RATE_LIMIT_LOGIN", "off"),
        ("RATE_LIMIT_USER", "off"),
        ("RATE_LIMIT_WEBHOOK", "off"),
        ("WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("LOG_DIR", &logs),
        // A job of nobody's making would be in every test's queue.
        ("CLEANUP_INTERVAL", "off"),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The instant a test hub's clock stands at when it starts.
pub fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 15, 12, 0, 0).single().expect("a time")
}

/// How a test hub differs from the usual one.
#[derive(Default)]
pub struct Setup {
    variables: Vec<(&'static str, String)>,
    adjustments: Vec<fn(&mut Config)>,
}

impl Setup {
    pub fn set(mut self, name: &'static str, value: impl Into<String>) -> Setup {
        self.variables.push((name, value.into()));
        self
    }

    /// Changes what no variable does.
    pub fn adjust(mut self, adjustment: fn(&mut Config)) -> Setup {
        self.adjustments.push(adjustment);
        self
    }

    pub async fn start(self) -> TestHub {
        self.start_on(TestDatabase::new().await).await
    }

    pub async fn start_on(self, database: TestDatabase) -> TestHub {
        let mut variables = variables(&database);
        variables.extend(self.variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut config = Config::read(&variables, database.directory.path()).expect("a good configuration");
        self.adjustments.iter().for_each(|adjust| adjust(&mut config));
        let tls = config.tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let clock = Arc::new(HeldClock::at(noon()));
        let shutdown = CancellationToken::new();
        let running = upbridge_server::run(config, clock.clone(), listener, shutdown.clone());
        let mut running = tokio::spawn(running);
        let scheme = if tls { "https" } else { "http" };
        // The port takes connections from the start; the first answer comes when the hub is ready. A certificate of the
        // hub's own is as good as none.
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().expect("a client");
        tokio::select! {
            ended = &mut running => panic!("the hub did not start: {:?}", ended),
            answer = http.get(format!("{scheme}://{address}/healthz")).send() => {
                assert!(answer.expect("an answer").status().is_success());
            }
        }
        TestHub { address, scheme, clock, database, shutdown, running: Some(running) }
    }
}

/// A hub in this process.
pub struct TestHub {
    pub address: SocketAddr,
    scheme: &'static str,
    pub clock: Arc<HeldClock>,
    pub database: TestDatabase,
    shutdown: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
}

/// A registered user.
pub struct Member {
    pub id: String,
    pub email: String,
    pub token: String,
    /// Calls as this user.
    pub client: Client,
}

impl TestHub {
    pub async fn start() -> TestHub {
        Setup::default().start().await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub async fn client(&self) -> Client {
        connect(self.url("")).await
    }

    /// Calls as CreatorUp's server.
    pub async fn service(&self) -> Client {
        self.client().await.with_credentials(Credentials::ApiKey(SERVICE_KEY.into()))
    }

    /// Calls as the first administrator.
    pub async fn admin(&self) -> Client {
        let client = self.client().await;
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let token = client.auth().login(login).await.expect("the administrator signs in").into_inner().token;
        client.with_bearer(token)
    }

    /// A new user without a subscription.
    pub async fn member(&self) -> Member {
        register(&self.client().await, None).await
    }

    /// A new user with a subscription to a plan of the product: 1 Starter, 2 Pro, 3 Business.
    pub async fn subscriber(&self, plan_id: i32) -> Member {
        register(&self.client().await, Some(plan_id)).await
    }

    /// A new user who is made an administrator.
    pub async fn another_admin(&self) -> Member {
        let member = self.member().await;
        let role = Some(v1::Role::Admin.into());
        let update = v1::UpdateUserRequest { user_id: member.id.clone(), role, ..Default::default() };
        self.admin().await.users().update_user(update).await.expect("promoted");
        member
    }

    /// Any bytes to any path, as nobody.
    pub async fn raw(&self) -> RawClient {
        RawClient::connect(self.url("")).await
    }

    /// Asks the hub to stop and does not wait.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops the hub and waits until it has.
    pub async fn stop(mut self) -> TestDatabase {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("the hub does not panic").expect("the hub stops cleanly");
        }
        // `self` has a Drop, so the database is taken by swapping.
        std::mem::replace(
            &mut self.database,
            TestDatabase { url: String::new(), directory: tempfile::tempdir().expect("a directory") },
        )
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A client that waits for an answer as long as a hub may take for it: how fast the machine is, is no test's business.
pub async fn connect(url: String) -> Client {
    Client::builder(url).call_timeout(Duration::from_secs(30)).connect().await.expect("a connection")
}

/// Asks until the answer is yes, and gives up after a time nothing here should take, on however slow a machine.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(60), what, holds).await;
}

/// The same for what may take longer, such as a try that comes after a failure.
pub async fn within(longest: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(longest, asking).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

pub async fn register(client: &Client, plan_id: Option<i32>) -> Member {
    let email = format!("member-{}@test.example", Uuid::now_v7().simple());
    let request = v1::RegisterRequest {
        email: email.clone(),
        password: MEMBER_PASSWORD.into(),
        name: "Member".into(),
        username: None,
        plan_id,
    };
    let registered = client.auth().register(request).await.expect("registered").into_inner();
    let user = registered.user.expect("a user");
    Member { id: user.id, email, client: client.with_bearer(&registered.token), token: registered.token }
}

/// What a failed call says to a program.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("a refusal");
    (status.code(), upbridge_client::reason(&status).unwrap_or_default())
}

/// The field at fault, of a call that is refused for it.
pub fn fault<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.expect_err("a refusal");
    let violations = upbridge_client::field_violations(&status);
    assert_eq!((status.code(), violations.len()), (Code::InvalidArgument, 1), "{status}");
    violations.into_iter().map(|(field, _)| field).collect()
}

/// Sends an HTTP request; the status of its answer, and the JSON.
pub async fn json(request: reqwest::RequestBuilder) -> (u16, serde_json::Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// A report of one unit of local rendering.
pub fn usage(batch_name: &str) -> v1::UsageData {
    v1::UsageData {
        batch_name: batch_name.into(),
        batch_type: "video".into(),
        usage_type: "local_rendering".into(),
        ..Default::default()
    }
}

/// An instant as the contract has it, from RFC 3339.
pub fn at(text: &str) -> Option<prost_types::Timestamp> {
    let at = DateTime::parse_from_rfc3339(text).expect("a time");
    Some(prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 })
}

pub fn record(usage_data: v1::UsageData) -> v1::RecordUsageRequest {
    v1::RecordUsageRequest { usage_data: Some(usage_data), ..Default::default() }
}

pub fn keyed(key: &str, usage_data: v1::UsageData) -> v1::RecordUsageRequest {
    v1::RecordUsageRequest { usage_data: Some(usage_data), idempotency_key: Some(key.into()), ..Default::default() }
}

/// Units of a member in a month.
pub async fn total(client: &Client, month: &str) -> i64 {
    let request = v1::GetMonthlyUsageRequest { month_year: Some(month.into()), ..Default::default() };
    client.usage().get_monthly_usage(request).await.expect("a total").into_inner().total
}
