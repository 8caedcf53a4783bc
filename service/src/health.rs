//! Whether a server can do its work: `grpc.health.v1` per service, `/healthz`, and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use http::{StatusCode, header};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::model::Result;
use crate::storage::Store;
use crate::telemetry::Meters;

/// While the database is gone it is asked this often, so that recovery is noticed at once.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// What else a server looks at when its health is.
pub trait Checkup: Send + Sync + 'static {
    /// Looks, and tells whom it concerns. `database` is how long the database took to answer just now, or that it did
    /// not.
    fn check_up<'a>(&'a self, database: &'a Result<Duration>) -> BoxFuture<'a, ()>;
}

/// For a server that has nothing else to look at.
impl Checkup for () {
    fn check_up<'a>(&'a self, _: &'a Result<Duration>) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// A server's health.
pub struct Health {
    store: Arc<Store>,
    reporter: HealthReporter,
    services: &'static [&'static str],
    stopping: AtomicBool,
}

impl Health {
    /// The health of a server on a store, told of each of its services through `reporter`. They serve from here on,
    /// because a store that was opened is there: nobody who asks as soon as the server answers is told otherwise.
    pub async fn new(store: Arc<Store>, reporter: HealthReporter, services: &'static [&'static str]) -> Health {
        let health = Health { store, reporter, services, stopping: AtomicBool::new(false) };
        health.tell(true).await;
        health
    }

    /// Checks the database and everything else again and again, and tells every service's status.
    pub async fn watch(self: Arc<Self>, checkup: Arc<dyn Checkup>, interval: Duration, stop: CancellationToken) {
        let mut was_up = true;
        loop {
            let database = self.store.ping().await;
            let is_up = database.is_ok();
            if was_up != is_up && !self.stopping.load(Ordering::Acquire) {
                match is_up {
                    false => tracing::error!("the database is gone: not serving"),
                    true => tracing::info!("the database is back: serving"),
                }
                self.tell(is_up).await;
                was_up = is_up;
            }
            checkup.check_up(&database).await;
            let wait = if is_up { interval } else { RECOVERY_INTERVAL.min(interval) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Says that the server is about to stop, before it does.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tell(false).await;
    }

    async fn tell(&self, is_up: bool) {
        let status = if is_up { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The empty name is the server as a whole.
        for service in std::iter::once(&"").chain(self.services) {
            self.reporter.set_service_status(*service, status).await;
        }
    }
}

/// `/healthz` and `/metrics`.
pub fn routes(health: Arc<Health>, meters: Arc<Meters>) -> Router {
    let healthz = move || async move { healthz(&health).await };
    let metrics =
        move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], meters.render()) };
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics))
}

async fn healthz(health: &Health) -> Response {
    let ping = health.store.ping().await;
    let stopping = health.stopping.load(Ordering::Acquire);
    let status = match (&ping, stopping) {
        (Ok(_), false) => "serving",
        (_, true) => "stopping",
        (Err(_), false) => "not_serving",
    };
    let body = serde_json::json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "database": {
            "kind": health.store.dialect().name(),
            "status": if ping.is_ok() { "up" } else { "down" },
            "latency_ms": ping.as_ref().ok().map(|took| took.as_secs_f64() * 1000.0),
        },
    });
    let code = if status == "serving" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (code, headers, body.to_string()).into_response()
}
