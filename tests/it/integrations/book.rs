//! A database in which integrations have a past: written by the hub's own storage before a hub is started on it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Client as Http;
use sea_orm::{ConnectionTrait, Statement, Value};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use upbridge_server::model::failure::FailureClass;
use upbridge_server::model::integration::{Action, LogStatus, NewLog};
use upbridge_server::storage::{self, Store, integration_log};
use uuid::Uuid;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestDatabase, TestHub, json, noon};

/// The book, while it is written.
pub struct Book {
    database: TestDatabase,
    store: Store,
    stop: CancellationToken,
}

impl Book {
    pub async fn open() -> Book {
        let database = TestDatabase::new().await;
        let (stop, wait) = (CancellationToken::new(), Duration::from_secs(5));
        let options =
            storage::Options { url: database.url.clone(), read_connections: 2, wait, max_retries: 3, patience: wait };
        let store = storage::open(&options, stop.clone()).await.expect("a store");
        Book { database, store, stop }
    }

    /// Adds an integration of a partner of its own.
    pub async fn integration(&self) -> Uuid {
        integration(&self.database).await
    }

    /// Writes what happened, as the hub does.
    pub async fn write(&self, logs: &[NewLog]) {
        for some in logs.chunks(2_000) {
            let written = self.store.write(some.to_vec(), |tx, logs| Box::pin(integration_log::record(tx, logs)));
            written.await.expect("written");
        }
    }

    /// Closes the book, and starts a hub that has it.
    pub async fn close(self) -> TestHub {
        let Book { database, store, stop } = self;
        stop.cancel();
        store.close().await;
        drop(store); // and with it the claim on the file
        // Tests of connections by schedule would go on writing.
        Setup::default().set("INTEGRATION_TEST_INTERVAL", "0").start_on(database).await
    }

    pub async fn execute(&self, sql: &str, values: Vec<Value>) {
        execute(&self.database, sql, values).await;
    }
}

/// Changes the database behind everybody's back; placeholders are `$1`.
pub async fn execute(database: &TestDatabase, sql: &str, values: Vec<Value>) {
    let connection = database.connect().await;
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    connection.execute_raw(statement).await.expect(sql);
    connection.close().await.expect("closed");
}

/// Adds an integration of a partner of its own.
async fn integration(database: &TestDatabase) -> Uuid {
    let (partner, id) = (Uuid::now_v7(), Uuid::now_v7());
    let at = noon() - TimeDelta::days(1_000);
    let values = vec![partner.into(), format!("Partner {partner}").into(), at.into()];
    execute(database, "INSERT INTO partners (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)", values).await;
    let insert = "INSERT INTO partner_integrations (id, partner_id, category, provider, name, credentials, \
                  credentials_key_id, created_at, updated_at) \
                  VALUES ($1, $2, 'payment_gateway', 'midtrans', 'Midtrans', 'v1', 'none', $3, $3)";
    execute(database, insert, vec![id.into(), partner.into(), at.into()]).await;
    id
}

/// Something that happened.
pub fn log(id: Uuid, action: Action, status: LogStatus, at: DateTime<Utc>) -> NewLog {
    NewLog::new(id, action, status, format!("{} {}", action.as_str(), status.as_str()), at)
}

/// A request that took some milliseconds, and failed by a class if there is one.
pub fn request(id: Uuid, class: Option<FailureClass>, millis: i32, at: DateTime<Utc>) -> NewLog {
    let status = if class.is_some() { LogStatus::Failed } else { LogStatus::Success };
    NewLog { class, duration: Some(millis), ..log(id, Action::Webhook, status, at) }
}

/// What the first administrator is answered.
pub async fn get(hub: &TestHub, path: &str) -> (u16, Json) {
    let login = serde_json::json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD });
    let (code, answer) = json(Http::new().post(hub.url("/api/v1/client/auth/login")).json(&login)).await;
    assert_eq!(code, 200, "{answer}");
    let token = answer["data"]["token"].as_str().expect("a token").to_owned();
    json(Http::new().get(hub.url(path)).bearer_auth(token)).await
}

/// Numbers that look random and are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// One of `0..most`.
    pub fn roll(&mut self, most: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64).rem_euclid(most)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as i64) as usize]
    }
}
