//! A hub without doors: its domain, and a worker that does its jobs. What tells of events is called as whatever causes
//! them calls it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use sea_orm::{ConnectionTrait, Statement, Value};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upbridge_server::config::Config;
use upbridge_server::domain::Hub;
use upbridge_server::domain::hook::manage::NewHook;
use upbridge_server::domain::hook::tell;
use upbridge_server::model::clock::HeldClock;
use upbridge_server::model::hook::{
    Backlog, DeliveryFilter, DeliveryStatus, Hook, HookDelivery, HookTry, IntegrationEvent,
};
use upbridge_server::model::integration::Provider;
use upbridge_server::model::page::Page;
use upbridge_server::model::{Clock, Ctx, Instant, Principal};
use upbridge_server::queue;
use uuid::Uuid;

use crate::harness::{TestDatabase, eventually, noon, variables};
use crate::peer::{Asked, HttpPeer};

/// The secret of every webhook here that is given one.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What differs between hubs here.
#[derive(Default)]
pub struct Set(Vec<(&'static str, String)>, Option<Instant>);

impl Set {
    pub fn and(mut self, name: &'static str, value: impl ToString) -> Set {
        self.0.push((name, value.to_string()));
        self
    }

    /// The clock stands there, and not at noon.
    pub fn at(mut self, now: Instant) -> Set {
        self.1 = Some(now);
        self
    }

    pub async fn open(self) -> Desk {
        self.open_on(TestDatabase::new().await).await
    }

    pub async fn open_on(self, database: TestDatabase) -> Desk {
        let mut desk = self.open_idle(database).await;
        desk.work();
        desk
    }

    /// A hub whose jobs nobody does yet.
    pub async fn open_idle(self, database: TestDatabase) -> Desk {
        let clock = Arc::new(HeldClock::at(self.1.unwrap_or_else(noon)));
        let config = self.config(&database);
        let store_stop = CancellationToken::new();
        let hub = upbridge_server::open(&config, clock.clone(), store_stop.clone()).await.expect("a hub");
        Desk { hub: Arc::new(hub), clock, config, database, store_stop, worker: None }
    }

    fn config(&self, database: &TestDatabase) -> Config {
        let mut variables: BTreeMap<String, String> = variables(database);
        variables.extend(everywhere().map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.extend(self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Config::read(&variables, database.directory.path()).expect("a good configuration")
    }
}

/// What every hub here is configured with.
pub fn everywhere() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8"),
        ("QUEUE_POLL_INTERVAL", "20"),
        // Longer than any test waits: only where a receiver is silent does a call end by its time, and it is set there.
        ("WEBHOOK_TIMEOUT", "60"),
        ("ENCRYPTION_KEY", "test-encryption-key-0123456789abcdef0123456789abcdef"),
    ]
    .into_iter()
}

/// The hub.
pub struct Desk {
    pub hub: Arc<Hub>,
    pub clock: Arc<HeldClock>,
    config: Config,
    pub database: TestDatabase,
    store_stop: CancellationToken,
    worker: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Desk {
    pub async fn open() -> Desk {
        Set::default().open().await
    }

    /// Begins to do jobs.
    pub fn work(&mut self) {
        let (store, clock, stop) = (self.hub.store().clone(), self.hub.clock().clone(), CancellationToken::new());
        let options = self.config.queue_options();
        let working = queue::worker::run(store, clock, self.hub.clone(), options, stop.clone());
        self.worker = Some((stop, tokio::spawn(working)));
    }

    /// Another hub on the same database, which several can share.
    pub async fn another(&self) -> Desk {
        let store_stop = CancellationToken::new();
        let hub = upbridge_server::open(&self.config, self.clock.clone(), store_stop.clone()).await.expect("a hub");
        let database =
            TestDatabase { url: self.database.url.clone(), directory: tempfile::tempdir().expect("a place") };
        let (hub, clock, config) = (Arc::new(hub), self.clock.clone(), self.config.clone());
        let mut desk = Desk { hub, clock, config, database, store_stop, worker: None };
        desk.work();
        desk
    }

    /// Stops as a hub does: what is on its way is finished and recorded.
    pub async fn stop(mut self) -> TestDatabase {
        self.hub.stopping().cancel();
        if let Some((stop, worker)) = self.worker.take() {
            stop.cancel();
            worker.await.expect("the worker does not panic");
        }
        self.store_stop.cancel();
        self.hub.store().close().await;
        std::mem::replace(
            &mut self.database,
            TestDatabase { url: String::new(), directory: tempfile::tempdir().expect("a place") },
        )
    }

    /// An integration with a provider, as far as its webhooks see it.
    pub async fn integration(&self, provider: Provider) -> Uuid {
        integration(&self.database, provider).await
    }

    /// A webhook of an integration of its own that is told of payments.
    pub async fn hook(&self, peer: &HttpPeer) -> Hook {
        self.hook_with(|new| new.url = peer.url()).await
    }

    pub async fn hook_with(&self, change: impl FnOnce(&mut NewHook)) -> Hook {
        let integration_id = self.integration(Provider::Midtrans).await;
        let mut new = new_hook();
        change(&mut new);
        self.hub.create_hook(&ctx(), integration_id, new).await.expect("a webhook").0
    }

    /// Tells of a payment of an integration; as often as there are data.
    pub async fn tell(&self, integration_id: Uuid, orders: impl IntoIterator<Item = usize>) {
        let event = |order: usize| payment(integration_id, order, self.clock.now());
        self.tell_all(orders.into_iter().map(event).collect()).await;
    }

    pub async fn tell_all(&self, events: Vec<IntegrationEvent>) {
        let input = (events, self.clock.now());
        let told = self.hub.store().write(input, |tx, (events, now)| Box::pin(tell(tx, events, *now)));
        told.await.expect("told");
    }

    pub async fn get(&self, id: Uuid) -> (Hook, Backlog) {
        self.hub.get_hook(id).await.expect("a webhook")
    }

    /// Every delivery of a webhook, oldest first.
    pub async fn deliveries(&self, webhook_id: Uuid) -> Vec<HookDelivery> {
        let page = Page::parse(Some(200), None, "all").expect("a page");
        let listed = self.hub.list_hook_deliveries(webhook_id, &DeliveryFilter::default(), &page).await;
        listed.expect("a list").items.into_iter().rev().collect()
    }

    pub async fn tries(&self, delivery_id: Uuid) -> Vec<HookTry> {
        self.hub.get_hook_delivery(delivery_id).await.expect("a delivery").1
    }

    /// Waits until no delivery of a webhook is on its way but those that wait for a later try.
    pub async fn settled(&self, webhook_id: Uuid, tries: i32) -> Vec<HookDelivery> {
        let mut found = Vec::new();
        eventually("every delivery was tried", async || {
            found = self.deliveries(webhook_id).await;
            found.iter().all(|one| one.attempts >= tries || one.finished_at.is_some())
        })
        .await;
        found
    }

    /// Waits until the deliveries of a webhook stand like this.
    pub async fn stand(&self, webhook_id: Uuid, statuses: &[DeliveryStatus]) {
        let mut found = Vec::new();
        eventually(&format!("deliveries that are {statuses:?}"), async || {
            found = self.deliveries(webhook_id).await.iter().map(|one| one.status).collect();
            found == statuses
        })
        .await;
    }

    pub fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }
}

pub fn payment(integration_id: Uuid, order: usize, at: Instant) -> IntegrationEvent {
    IntegrationEvent { integration_id, name: "payment.success", data: json!({ "order": order }), at }
}

pub fn new_hook() -> NewHook {
    NewHook {
        url: "https://receiver.example/hook".to_owned(),
        secret: Some(SECRET.to_owned()),
        events: vec!["payment.success".to_owned()],
        is_active: None,
        retry_attempts: None,
        retry_delay: None,
        rate_limit: None,
    }
}

pub fn ctx() -> Ctx {
    Ctx { principal: Principal::Service, request_id: "test".into(), ip: None, user_agent: "".into() }
}

/// An integration, as far as its webhooks see it.
pub async fn integration(database: &TestDatabase, provider: Provider) -> Uuid {
    let (partner_id, id) = (Uuid::now_v7(), Uuid::now_v7());
    let connection = database.connect().await;
    let name = Value::from(id.to_string());
    let category = Value::from(provider.spec().category.as_str());
    let statements: [(&str, Vec<Value>); 2] = [
        ("INSERT INTO partners (id, name) VALUES ($1, $2)", vec![partner_id.into(), name.clone()]),
        (
            "INSERT INTO partner_integrations (id, partner_id, category, provider, name, credentials, \
             credentials_key_id) VALUES ($1, $2, $3, $4, $5, 'v1.none', 'none')",
            vec![id.into(), partner_id.into(), category, provider.as_str().into(), name],
        ),
    ];
    for (sql, values) in statements {
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
        connection.execute_raw(statement).await.expect(sql);
    }
    connection.close().await.expect("closed");
    id
}

/// The orders a receiver was told of, in the order they came.
pub fn orders(asked: &[Asked]) -> Vec<usize> {
    asked.iter().filter_map(|one| one.json()["data"]["order"].as_u64()).map(|order| order as usize).collect()
}

/// Waits until a receiver was told so often, and answers with what.
pub async fn told(peer: &HttpPeer, times: usize) -> Vec<Asked> {
    eventually(&format!("{times} calls"), async || peer.count() >= times).await;
    peer.asked()
}
