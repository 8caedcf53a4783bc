//! Whether the hub can do its work: `grpc.health.v1` per service, `/healthz`, and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::domain::Hub;
use crate::grpc::SERVICES;
use crate::telemetry::Meters;

/// While the database is gone it is asked this often, so that recovery is noticed at once.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// The hub's health.
pub struct Health {
    hub: Arc<Hub>,
    reporter: HealthReporter,
    meters: Arc<Meters>,
    stopping: AtomicBool,
}

impl Health {
    /// The health of a hub, told through `reporter` and `meters`.
    pub fn new(hub: Arc<Hub>, reporter: HealthReporter, meters: Arc<Meters>) -> Health {
        Health { hub, reporter, meters, stopping: AtomicBool::new(false) }
    }

    /// Checks everything again and again, and tells every service's status and which alerts are open.
    pub async fn watch(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let mut serving = None;
        loop {
            let database = self.hub.store().ping().await;
            let is_up = database.is_ok();
            if serving != Some(is_up) && !self.stopping.load(Ordering::Acquire) {
                match (serving, is_up) {
                    (_, false) => tracing::error!("the database is gone: not serving"),
                    (Some(false), true) => tracing::info!("the database is back: serving"),
                    _ => {}
                }
                self.tell(is_up).await;
                serving = Some(is_up);
            }
            let checkup = self.hub.check_up(&database).await;
            self.meters.alerts(|code| checkup.alerts.iter().any(|alert| alert.code == code));
            let wait = if is_up { interval } else { RECOVERY_INTERVAL.min(interval) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Says that the hub is about to stop, before it does.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tell(false).await;
    }

    async fn tell(&self, is_up: bool) {
        let status = if is_up { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The empty name is the server as a whole.
        for service in std::iter::once(&"").chain(SERVICES) {
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
    let ping = health.hub.store().ping().await;
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
            "kind": health.hub.store().dialect().name(),
            "status": if ping.is_ok() { "up" } else { "down" },
            "latency_ms": ping.as_ref().ok().map(|took| took.as_secs_f64() * 1000.0),
        },
    });
    let code = if status == "serving" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (code, headers, body.to_string()).into_response()
}
