//! The Upbridge hub: one server that holds users, plans, subscriptions and usage for DigiUp and CreatorUp.
//!
//! The map of the house, from the doors inward:
//!
//! - [`front`] takes every request of the one port and sends it to gRPC or HTTP.
//! - [`grpc`] is the first door: the services of the contract behind their gate.
//! - [`http`] is the second: JSON for every binding of the contract, OpenAPI and its page, through the same gate.
//! - [`delivery`] is the outward door: whom the hub calls, and within which bounds.
//! - [`domain`] is what may happen, [`queue`] what is remembered for later, [`model`] what things are, [`storage`]
//!   how they are kept.
//! - [`config`], [`telemetry`] and [`access_log`] are what the process is told and what it tells.
//!
//! What every server of the house stands on is in the crate `upbridge-service`; its rooms, and those parts of the rooms
//! here that are its, go by the same names.
//!
//! [`run`] is the only wiring.

pub mod config;
pub mod delivery;
pub mod domain;
pub mod grpc;
pub mod model;
pub mod storage;

mod checkup;

pub use upbridge_service::{access_log, front, http, queue, telemetry};

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use upbridge_proto::UPBRIDGE;
use upbridge_service::grpc::Gate;
use upbridge_service::grpc::gate::check_policies;
use upbridge_service::health::{self, Health};
use upbridge_service::serve::serve;

use crate::access_log::AccessLog;
use crate::checkup::Checkup;
use crate::config::Config;
use crate::delivery::{CreatorUpApi, Guard, HookApi, ProviderApis};
use crate::domain::Hub;
use crate::domain::devops::DevopsModule;
use crate::front::Front;
use crate::model::Clock;
use crate::model::creatorup::CreatorUp;
use crate::model::webhook::{PROVIDER_CALLBACK, WebhookEvent};
use crate::telemetry::Meters;

/// How often the hub tidies up.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// The hub's API, for people.
pub static API: http::Api = http::Api {
    contract: &UPBRIDGE,
    title: "Upbridge API",
    server: "hub",
    about: "Connects DigiUp and CreatorUp: accounts, memberships and usage.",
    token: "The token of a sign-in. Services may send their API key here as well.",
    service_key: "CreatorUp's API key.",
    session_cookie: Some(grpc::SESSION_COOKIE),
};

/// Opens the store and gives an empty database its plans and its first administrator.
pub async fn open(config: &Config, clock: Arc<dyn Clock>, stop: CancellationToken) -> anyhow::Result<Hub> {
    let store = Arc::new(storage::open(&config.store_options(), stop).await.map_err(explained)?);
    let creatorup = connect(config, clock.clone())?;
    let devops = reach_devops(config, clock.clone())?;
    let guard = Guard::new(config.creatorup.allowed_networks.clone());
    let providers = ProviderApis::new(guard.clone(), config.test_deadlines);
    let providers = providers.map_err(|error| anyhow::anyhow!("providers cannot be called: {error}"))?;
    let sender = HookApi::new(guard, config.hooks.timeout, clock.clone());
    let sender = sender.map_err(|error| anyhow::anyhow!("webhooks cannot be sent: {error}"))?;
    Ok(Hub::new(store, clock, config.rules(creatorup, Arc::new(providers), Arc::new(sender), devops)))
}

/// The DevOps module, where one is configured.
fn reach_devops(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Option<DevopsModule>> {
    let Some(devops) = &config.devops else { return Ok(None) };
    let sender = HookApi::configured(config.hooks.timeout, clock);
    let sender = sender.map_err(|error| anyhow::anyhow!("DEVOPS_MODULE_URL cannot be called: {error}"))?;
    let (url, secret) = (devops.url.to_string(), devops.secret.clone());
    Ok(Some(DevopsModule { url, secret, sender: Arc::new(sender) }))
}

/// CreatorUp, where one is configured.
fn connect(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Option<Arc<dyn CreatorUp>>> {
    let Some(options) = &config.creatorup.api else { return Ok(None) };
    let api = CreatorUpApi::new(options.clone(), config.creatorup_api_key.expose(), clock);
    let api = api.map_err(|error| anyhow::anyhow!("CREATORUP_API_URL cannot be called: {error}"))?;
    Ok(Some(Arc::new(api)))
}

/// An error of the start with what only the operator may see.
fn explained(error: model::Error) -> anyhow::Error {
    match &error {
        model::Error::Unavailable { context } | model::Error::Internal { context } => {
            anyhow::anyhow!("{error}: {context}")
        }
        _ => anyhow::anyhow!("{error}"),
    }
}

/// Serves on `listener` until `shutdown` is cancelled, then stops in order: health says so, the doors close, calls in
/// flight finish within the drain timeout, the writer ends, the store closes.
pub async fn run(
    config: Config,
    clock: Arc<dyn Clock>,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    check_policies(UPBRIDGE.methods(), takes_webhooks_of)?;
    let writer_stop = CancellationToken::new();
    let hub = Arc::new(open(&config, clock, writer_stop.clone()).await?);
    welcome(&hub, &config).await?;

    let meters = Meters::new(&UPBRIDGE)?;
    let (services, reporter) = grpc::routes(&hub, config.body_limit_bytes, config.reflection, config.tls.is_some())?;
    let gate = Gate::new(services, &UPBRIDGE, hub.clone(), meters.clone(), config.request_timeout);
    let health = Arc::new(Health::new(hub.store().clone(), reporter, grpc::SERVICES).await);
    let checkup = Arc::new(Checkup::new(hub.clone(), &meters));
    let guard: Arc<dyn http::Guard> = Arc::new(gate.clone());
    let options = http::Options { api: &API, body_limit: config.body_limit_bytes, guard: Some(guard) };
    let pages = http::router(gate.clone(), options)
        .merge(health::routes(health.clone(), meters))
        .layer(http::cors(&config.cors_origins));
    let log = match &config.log.directory {
        Some(directory) => Some(AccessLog::open(directory, config.log.format).context("LOG_DIR cannot be written")?),
        None => None,
    };
    let proxies = Arc::new(config.trusted_proxies.clone());
    let app = axum::Router::new().fallback_service(Front::new(gate, pages, log.map(Arc::new), proxies));

    let tasks = TaskTracker::new();
    let background = CancellationToken::new();
    tasks.spawn(health.clone().watch(checkup, config.health_check_interval, background.clone()));
    tasks.spawn(tidy(hub.clone(), background.clone()));
    if let Some(interval) = config.cleanup.interval {
        tasks.spawn(clean_up(hub.clone(), interval, background.clone()));
    }
    if let Some(interval) = config.integration_test_interval {
        tasks.spawn(retest(hub.clone(), interval, background.clone()));
    }
    tasks.spawn(sweep(hub.clone(), config.creatorup.sync_interval, background.clone()));
    let (store, clock) = (hub.store().clone(), hub.clock().clone());
    tasks.spawn(queue::worker::run(store, clock, hub.clone(), config.queue_options(), background.clone()));
    tasks.close();

    let address = listener.local_addr()?;
    let closing = closing(shutdown, health, hub.clone(), config.drain_timeout);
    tracing::info!(%address, tls = config.tls.is_some(), database = hub.store().dialect().name(), "the hub is serving");
    serve(listener, config.tls.as_ref(), app, closing, config.drain_timeout).await?;

    background.cancel();
    tasks.wait().await;
    writer_stop.cancel();
    hub.store().close().await;
    tracing::info!("the hub has stopped");
    Ok(())
}

async fn welcome(hub: &Hub, config: &Config) -> anyhow::Result<()> {
    let plans = hub.seed_plans().await.map_err(explained)?;
    if plans > 0 {
        tracing::info!(plans, "the plans of the product were added");
    }
    let password = config.admin_password.as_ref().map(config::Secret::expose);
    if let Some(admin) = hub.seed_admin(config.admin_email.as_deref(), password).await.map_err(explained)? {
        tracing::info!(email = admin.email, "the first administrator was made");
        if let Some(password) = admin.generated_password {
            // Shown once, on the terminal and in no log file.
            eprintln!("\n  First administrator: {}\n  One-time password:   {password}\n", admin.email);
        }
    }
    Ok(())
}

/// Waits for the end, and says that it comes before the doors close.
async fn closing(shutdown: CancellationToken, health: Arc<Health>, hub: Arc<Hub>, bound: Duration) {
    shutdown.cancelled().await;
    tracing::info!(seconds = bound.as_secs(), "stopping: no new connections, calls in flight may finish");
    health.stop().await;
    hub.stopping().cancel();
}

async fn tidy(hub: Arc<Hub>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TIDY_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = hub.tidy().await {
            tracing::warn!(%error, context = ?error, "tidying up failed; it is tried again");
        }
    }
}

async fn sweep(hub: Arc<Hub>, interval: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = hub.schedule_sweep(interval).await {
            tracing::warn!(%error, context = ?error, "a sweep could not be begun; it is tried again");
        }
    }
}

/// Sees to it that each interval has its cleanup. Whose it is, is decided in the database; asking now and then is
/// enough, because an interval that nobody took is still there.
async fn clean_up(hub: Arc<Hub>, interval: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(interval.min(TIDY_INTERVAL));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = hub.schedule_cleanup(interval).await {
            tracing::warn!(%error, context = ?error, "the cleanup could not be scheduled; it is tried again");
        }
    }
}

/// Sees to it that integrations are tested now and then. Which hub asks for whose test is decided in the database.
async fn retest(hub: Arc<Hub>, interval: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TIDY_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = hub.schedule_connection_tests(interval).await {
            tracing::warn!(%error, context = ?error, "connection tests could not be scheduled; it is tried again");
        }
    }
}

/// The events whose webhooks the hub takes: CreatorUp's, and whatever providers call back.
fn takes_webhooks_of(event: &str) -> bool {
    WebhookEvent::parse(event).is_some() || event == PROVIDER_CALLBACK
}
