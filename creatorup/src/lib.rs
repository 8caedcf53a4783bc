//! CreatorUp: the other side of the hub, for real. Users of DigiUp come with their DigiUp tokens, create batches of
//! videos and have them processed; the hub says who they are and what they may do, and is told what they used.
//!
//! It is a server of the same house as the hub and stands on the same crate, `upbridge-service`: one port for gRPC and
//! JSON, one gate, one writer, one queue. It shares nothing else with the hub but the contract between them, and it is
//! the reference for whoever writes a CreatorUp of their own.
//!
//! - [`grpc`] is the door, for both faces; [`domain`] what may happen; [`model`] what things are; [`storage`] how they
//!   are kept, with [`migration`].
//! - [`hub`] is the outward door: the only room that calls the hub. [`video`] is the only room that starts ffmpeg.
//! - [`config`] is what the process is told, [`command`] its command line.
//!
//! [`run`] is the only wiring.

pub mod command;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod hub;
pub mod migration;
pub mod model;
pub mod storage;
pub mod video;

use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use upbridge_migrations::Migrations;
use upbridge_proto::CREATORUP;
use upbridge_service::access_log::AccessLog;
use upbridge_service::front::Front;
use upbridge_service::grpc::Gate;
use upbridge_service::grpc::gate::check_policies;
use upbridge_service::health::{self, Health};
use upbridge_service::http;
use upbridge_service::queue::worker;
use upbridge_service::serve::serve;
use upbridge_service::telemetry::Meters;

use crate::config::Config;
use crate::domain::CreatorUp;
use crate::hub::DigiUp;
use crate::model::{Clock, Error};
use crate::storage::{Setup, Store};
use crate::video::Studio;

/// CreatorUp's API, for people.
pub static API: http::Api = http::Api {
    contract: &CREATORUP,
    title: "CreatorUp API",
    server: "CreatorUp server",
    about: "Batches of videos for users of DigiUp: their accounts and plans are the hub's, their videos are here.",
    token: "A token of DigiUp, as its sign-in gives it.",
    service_key: "The key the hub and CreatorUp share.",
    session_cookie: None,
};

/// What CreatorUp brings to its store.
pub fn setup() -> Setup {
    Setup {
        migrations: Migrations::of::<migration::Migrator>(),
        kinds: domain::JOB_KINDS,
        companion: Arc::new(storage::outbox::Outbox),
    }
}

/// Opens the store, the media root and the line to the hub.
pub async fn open(config: &Config, clock: Arc<dyn Clock>, stop: CancellationToken) -> anyhow::Result<CreatorUp> {
    let hub = DigiUp::new(&config.hub_options(), clock.clone()).map_err(anyhow::Error::msg)?;
    let studio = Studio::open(&config.media_root, config.places.clone(), config.video_time_limit)
        .context("MEDIA_ROOT cannot be used")?;
    let store = Store::open(&config.store_options(), setup(), stop).await.map_err(explained)?;
    Ok(CreatorUp::new(Arc::new(store), clock, hub, studio, config.rules()))
}

/// An error of the start with what only the operator may see.
pub(crate) fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Unavailable { context } | Error::Internal { context } => anyhow::anyhow!("{error}: {context}"),
        _ => anyhow::anyhow!("{error}"),
    }
}

/// Serves on `listener` until `shutdown` is cancelled, then stops in order: health says so, the doors close, calls in
/// flight finish within the drain timeout, jobs end or are handed back, the writer ends, the store closes.
pub async fn run(
    config: Config,
    clock: Arc<dyn Clock>,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    check_policies(CREATORUP.methods(), |_| false)?;
    let writer_stop = CancellationToken::new();
    let creatorup = Arc::new(open(&config, clock, writer_stop.clone()).await?);
    if let Err(missing) = creatorup.ffmpeg().await {
        tracing::warn!(missing, "no video can be processed");
    }

    let meters = Meters::new(&CREATORUP)?;
    let (services, reporter) = grpc::routes(&creatorup, config.body_limit_bytes, config.reflection)?;
    let reception = Arc::new(grpc::Front { creatorup: creatorup.clone() });
    let gate = Gate::new(services, &CREATORUP, reception, meters.clone(), config.request_timeout);
    let health = Arc::new(Health::new(creatorup.store().clone(), reporter, grpc::SERVICES).await);
    let options = http::Options { api: &API, body_limit: config.body_limit_bytes, guard: None };
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
    tasks.spawn(health.clone().watch(Arc::new(()), config.health_check_interval, background.clone()));
    let (store, clock) = (creatorup.store().clone(), creatorup.clock().clone());
    tasks.spawn(worker::run(store, clock, creatorup.clone(), config.queue, background.clone()));
    tasks.close();

    let address = listener.local_addr()?;
    let database = creatorup.store().dialect().name();
    tracing::info!(%address, tls = config.tls.is_some(), database, hub = config.digiup_api_url, "creatorup is serving");
    let closing = async {
        shutdown.cancelled().await;
        tracing::info!(
            seconds = config.drain_timeout.as_secs(),
            "stopping: no new connections, calls in flight may finish"
        );
        health.stop().await;
    };
    serve(listener, config.tls.as_ref(), app, closing, config.drain_timeout).await?;

    background.cancel();
    tasks.wait().await;
    writer_stop.cancel();
    creatorup.store().close().await;
    tracing::info!("creatorup has stopped");
    Ok(())
}
