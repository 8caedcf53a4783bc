//! Configuration: one struct, read once, from the environment and the `.env` files; the only room that has it read.
//!
//! The real environment wins over `.env.<UPBRIDGE_ENV>`, that over `.env.local`, that over `.env`. Every problem is
//! reported at once and names its variable, never its value.

mod client;
mod creatorup;
mod devops;
mod hook;
mod retention;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use upbridge_service::config::{Problems, Secret};
use upbridge_service::config::{Reader, gather, is_placeholder};
use upbridge_service::serve::Tls;

use crate::delivery::{BaseUrl, Guard};

use crate::domain::devops::DevopsModule;
use crate::domain::hook::HookRules;
use crate::domain::limit::{LimitRules, Quota};
use crate::domain::webhook::WebhookRules;
use crate::domain::{Keys, Rules};
use crate::model::address::Networks;
use crate::model::callback::PublicUrl;
use crate::model::connection::{Deadlines, Providers};
use crate::model::creatorup::CreatorUp;
use crate::model::hook::HookSender;
use crate::model::job::Backoff;
use crate::model::seal::Sealer;
use crate::model::signature::Key;
use crate::queue;
use crate::storage;
use crate::storage::job::Keep;
use crate::telemetry::{Format, LogOptions};
pub use client::{ClientConfig, own_url};

/// Where the hub keeps what it makes by itself, relative to the working directory.
const DATA: &str = "data";
/// Whose pages may call the hub from a browser.
const ORIGINS: &str = "https://app.digiup.com,https://app.creatorup.com,https://api.creatorup.com";
/// The variable that says where the hub runs.
const ENVIRONMENT: &str = "UPBRIDGE_ENV";

/// Where the hub runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Secrets are made when missing.
    Development,
    /// A missing, short or placeholder secret is an error.
    Production,
}

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// `UPBRIDGE_ENV`
    pub environment: Environment,
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`
    pub port: u16,
    /// `DATABASE_URL`
    pub database_url: Secret,
    /// `DATABASE_POOL_SIZE`
    pub pool_size: u32,
    /// `JWT_SECRET`
    pub jwt_secret: Secret,
    /// `JWT_SECRET_PREVIOUS`
    pub jwt_secret_previous: Option<Secret>,
    /// `JWT_LIFETIME_SECONDS`
    pub jwt_lifetime: Duration,
    /// `CREATORUP_API_KEY`
    pub creatorup_api_key: Secret,
    /// `ADMIN_EMAIL`
    pub admin_email: Option<String>,
    /// `ADMIN_PASSWORD`
    pub admin_password: Option<Secret>,
    /// `CORS_ORIGINS`
    pub cors_origins: Vec<String>,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`
    pub tls: Option<Tls>,
    /// `GRPC_REFLECTION`
    pub reflection: bool,
    /// `BODY_LIMIT_BYTES`
    pub body_limit_bytes: usize,
    /// `REQUEST_TIMEOUT_SECONDS`
    pub request_timeout: Duration,
    /// `DRAIN_TIMEOUT_SECONDS`
    pub drain_timeout: Duration,
    /// `HEALTH_CHECK_INTERVAL`
    pub health_check_interval: Duration,
    /// `QUEUE_CONCURRENCY`, `QUEUE_REMOVE_ON_COMPLETE`, `QUEUE_REMOVE_ON_FAIL`, `QUEUE_HEARTBEAT_INTERVAL`,
    /// `QUEUE_POLL_INTERVAL`, `QUEUE_BACKOFF_BASE`
    pub queue: queue::Options,
    /// `MAX_SYNC_RETRIES`
    pub max_sync_retries: i32,
    /// `CREATORUP_API_URL` and what belongs to it
    pub creatorup: creatorup::CreatorUp,
    /// `CLEANUP_INTERVAL`, `CLEANUP_ARCHIVE_DIR` and `RETENTION_*`
    pub cleanup: retention::Cleanup,
    /// `PUBLIC_URL`
    pub public_url: PublicUrl,
    /// `WEBHOOK_CONCURRENCY`, `WEBHOOK_ENDPOINT_CONCURRENCY`, `WEBHOOK_TIMEOUT`, `WEBHOOK_DISABLE_AFTER`
    pub hooks: hook::Hooks,
    /// How long a transaction may take; no variable.
    pub patience: Duration,
    /// `DEVOPS_MODULE_URL`, `DEVOPS_WEBHOOK_SECRET`; `None` without an address: then nothing is made for it.
    pub devops: Option<devops::Devops>,
    /// `WEBHOOK_SECRET`
    pub webhook_secret: Secret,
    /// `ENCRYPTION_KEY` and `ENCRYPTION_KEY_PREVIOUS`
    pub sealer: Arc<Sealer>,
    /// `WEBHOOK_SECRET`, `WEBHOOK_SECRET_PREVIOUS`, `WEBHOOK_TOLERANCE_SECONDS`, `WEBHOOK_ALLOWED_IPS`
    pub webhooks: WebhookRules,
    /// `INTEGRATION_TEST_INTERVAL`: after how long an integration is tested again; `None` is never.
    pub integration_test_interval: Option<Duration>,
    /// `INTEGRATION_ALLOWED_HOSTS`
    pub integration_hosts: Vec<String>,
    /// How long connection tests may take. No variable: it is the contract's promise.
    pub test_deadlines: Deadlines,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: Networks,
    /// `RATE_LIMIT_ANONYMOUS`, `RATE_LIMIT_LOGIN`, `RATE_LIMIT_USER`, `RATE_LIMIT_WEBHOOK`
    pub limits: LimitRules,
    /// `LOG_DIR`, `LOG_LEVEL`, `LOG_FORMAT`
    pub log: LogOptions,
}

impl Config {
    /// Reads the environment of this process and the `.env` files of the working directory.
    pub fn load() -> anyhow::Result<Config> {
        Ok(Config::read(&gather(ENVIRONMENT)?, Path::new(DATA))?)
    }

    /// Reads variables. Secrets that development may lack are made once and kept in `data`.
    pub fn read(variables: &BTreeMap<String, String>, data: &Path) -> Result<Config, Problems> {
        let mut reader = Reader::new(variables, data);
        for name in variables.keys().filter(|name| name.starts_with("UPBRIDGE_")) {
            // What clients, commands and examples read; a shell may well export it.
            const FOR_CLIENTS: [&str; 3] = ["UPBRIDGE_URL", "UPBRIDGE_TOKEN", "UPBRIDGE_PASSWORD"];
            if name != ENVIRONMENT && !FOR_CLIENTS.contains(&name.as_str()) {
                reader.problem::<()>(name, "is not a variable of the hub");
            }
        }
        let environment = reader
            .choice(ENVIRONMENT, &[("development", Environment::Development), ("production", Environment::Production)]);
        let production = environment == Environment::Production;
        let default_host = if production { "0.0.0.0" } else { "127.0.0.1" };
        let host = reader.parse("HOST", default_host, "must be an IP address");
        let jwt_secret = reader.secret("JWT_SECRET", production);
        let jwt_secret_previous =
            reader.optional("JWT_SECRET_PREVIOUS").map(|_| reader.secret("JWT_SECRET_PREVIOUS", production));
        let creatorup_api_key = reader.secret("CREATORUP_API_KEY", production);
        let webhook_secret = reader.secret("WEBHOOK_SECRET", production);
        let encryption_key = reader.secret("ENCRYPTION_KEY", production);
        let encryption_key_previous = reader.optional("ENCRYPTION_KEY_PREVIOUS").unwrap_or_default();
        let previous = encryption_key_previous.split(',').map(str::trim).filter(|key| !key.is_empty());
        let sealer = Arc::new(Sealer::new(encryption_key.expose(), previous));
        let webhook_secret_previous =
            reader.optional("WEBHOOK_SECRET_PREVIOUS").map(|_| reader.secret("WEBHOOK_SECRET_PREVIOUS", production));
        let webhooks = WebhookRules {
            keys: [
                ("WEBHOOK_SECRET", Some(&webhook_secret)),
                ("WEBHOOK_SECRET_PREVIOUS", webhook_secret_previous.as_ref()),
            ]
            .into_iter()
            .filter_map(|(name, secret)| key(&mut reader, name, secret?))
            .collect(),
            tolerance: reader.number("WEBHOOK_TOLERANCE_SECONDS", 300, 1, 86_400),
            allowed: reader.networks("WEBHOOK_ALLOWED_IPS"),
        };
        let default_database = format!("sqlite://{}/upbridge.db?mode=rwc", data.display());
        let admin_password = reader.optional("ADMIN_PASSWORD");
        if admin_password.as_ref().is_some_and(|password| !(8..=128).contains(&password.chars().count())) {
            reader.problem::<()>("ADMIN_PASSWORD", "must have 8 to 128 characters");
        }
        if production && admin_password.as_deref().is_some_and(is_placeholder) {
            reader.problem::<()>("ADMIN_PASSWORD", "must not be a placeholder");
        }
        let directory = reader.text("LOG_DIR", "logs");
        let tls = reader.tls("TLS_CERT_FILE", "TLS_KEY_FILE");
        let public_url = public_url(&mut reader, (!production).then_some(if tls.is_some() { "https" } else { "http" }));
        let hooks = hook::read(&mut reader);
        let config = Config {
            environment,
            host,
            port: reader.parse("PORT", "3345", "must be a port, 0 to 65535"),
            database_url: reader.database("DATABASE_URL", &default_database),
            pool_size: reader.number("DATABASE_POOL_SIZE", 8, 1, 1000) as u32,
            jwt_secret,
            jwt_secret_previous,
            jwt_lifetime: reader.seconds("JWT_LIFETIME_SECONDS", 86_400, 60, 31_536_000),
            creatorup_api_key,
            admin_email: reader.optional("ADMIN_EMAIL"),
            admin_password: admin_password.map(Secret::new),
            cors_origins: reader.origins("CORS_ORIGINS", ORIGINS),
            tls,
            reflection: reader.flag("GRPC_REFLECTION", !production),
            body_limit_bytes: reader.number("BODY_LIMIT_BYTES", 1 << 20, 1 << 10, 64 << 20) as usize,
            request_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS", 30, 1, 3600),
            drain_timeout: reader.seconds("DRAIN_TIMEOUT_SECONDS", 20, 1, 3600),
            health_check_interval: Duration::from_millis(reader.number(
                "HEALTH_CHECK_INTERVAL",
                60_000,
                10,
                86_400_000,
            )),
            queue: queue::Options {
                concurrency: reader.number("QUEUE_CONCURRENCY", 5, 1, 10_000) as usize,
                apart: hooks.concurrency,
                keep: Keep {
                    done: reader.number("QUEUE_REMOVE_ON_COMPLETE", 100, 0, 100_000_000),
                    failed: reader.number("QUEUE_REMOVE_ON_FAIL", 50, 0, 100_000_000),
                },
                heartbeat: reader.millis("QUEUE_HEARTBEAT_INTERVAL", 10_000, 50, 15_000),
                poll: reader.millis("QUEUE_POLL_INTERVAL", 1_000, 10, 60_000),
                backoff: Backoff { base: reader.millis("QUEUE_BACKOFF_BASE", 1_000, 1, 300_000), ..Backoff::default() },
                drain: reader.seconds("DRAIN_TIMEOUT_SECONDS", 20, 1, 3600),
            },
            max_sync_retries: reader.number("MAX_SYNC_RETRIES", 3, 0, 100) as i32,
            creatorup: creatorup::read(&mut reader),
            cleanup: retention::read(&mut reader),
            public_url,
            hooks,
            patience: storage::PATIENCE,
            devops: devops::read(&mut reader, production),
            webhook_secret,
            sealer,
            webhooks,
            integration_test_interval: hours(reader.number("INTEGRATION_TEST_INTERVAL", 24, 0, 8_784)),
            integration_hosts: host_names(&mut reader, "INTEGRATION_ALLOWED_HOSTS"),
            test_deadlines: Deadlines::default(),
            trusted_proxies: reader.networks("TRUSTED_PROXIES"),
            limits: LimitRules {
                anonymous: limit(&mut reader, "RATE_LIMIT_ANONYMOUS", "1000/hour"),
                login: limit(&mut reader, "RATE_LIMIT_LOGIN", "20/minute"),
                user: limit(&mut reader, "RATE_LIMIT_USER", "6000/minute"),
                webhook: limit(&mut reader, "RATE_LIMIT_WEBHOOK", "1000/second"),
            },
            log: LogOptions {
                directory: (directory != "off").then(|| directory.into()),
                level: reader.parse("LOG_LEVEL", "info", "must be error, warn, info, debug or trace"),
                format: reader.choice("LOG_FORMAT", &[("text", Format::Text), ("json", Format::Json)]),
            },
        };
        reader.finish()?;
        Ok(config)
    }

    /// How the store is opened.
    pub fn store_options(&self) -> storage::Options {
        storage::Options {
            url: self.database_url.expose().to_owned(),
            read_connections: self.pool_size,
            wait: Duration::from_secs(5),
            max_retries: self.max_sync_retries,
            patience: self.patience,
        }
    }

    /// How the queue is worked.
    pub fn queue_options(&self) -> queue::Options {
        self.queue
    }

    /// What the domain is configured with, whom it tells about users, who asks providers, what sends webhooks, and who
    /// tells the DevOps module.
    pub fn rules(
        &self,
        creatorup: Option<Arc<dyn CreatorUp>>,
        providers: Arc<dyn Providers>,
        sender: Arc<dyn HookSender>,
        devops: Option<DevopsModule>,
    ) -> Rules {
        Rules {
            keys: Keys {
                current: self.jwt_secret.share(),
                previous: self.jwt_secret_previous.as_ref().map(Secret::share),
            },
            token_lifetime: self.jwt_lifetime,
            service_key: Some(self.creatorup_api_key.share()),
            retention: self.cleanup.retention,
            archive: self.cleanup.archive.clone(),
            limits: self.limits,
            creatorup,
            sync_batch_size: self.creatorup.sync_batch_size,
            webhooks: self.webhooks.clone(),
            sealer: self.sealer.clone(),
            devops,
            providers,
            hooks: HookRules {
                sender,
                concurrency: self.hooks.concurrency,
                endpoint_concurrency: self.hooks.endpoint_concurrency,
                disable_after: self.hooks.disable_after,
            },
            outward: Arc::new(Guard::new(self.creatorup.allowed_networks.clone())),
            provider_hosts: self.integration_hosts.clone(),
            public_url: self.public_url.clone(),
        }
    }
}

/// One variable, from wherever the configuration is read.
pub fn variable(name: &str) -> anyhow::Result<Option<String>> {
    Ok(gather(ENVIRONMENT)?.remove(name))
}

/// Names of hosts, in the one spelling they are compared in.
fn host_names(reader: &mut Reader<'_>, name: &str) -> Vec<String> {
    let listed = reader.text(name, "");
    let listed = listed.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
    let hosts: Vec<String> = listed.collect();
    let is_name = |host: &String| {
        let url = format!("https://{host}");
        BaseUrl::parse(&url).is_some_and(|base| base.to_string() == url) && !host.contains(['/', ':'])
    };
    if !hosts.iter().all(is_name) {
        reader.problem::<()>(name, "must be names of hosts such as proxy.example.com, separated by commas");
    }
    hosts
}

/// So many hours; none is never.
fn hours(hours: u64) -> Option<Duration> {
    (hours > 0).then(|| Duration::from_secs(hours * 3600))
}

fn limit(reader: &mut Reader<'_>, name: &str, default: &str) -> Option<Quota> {
    match Quota::parse(&reader.text(name, default)) {
        Some(quota) => quota,
        None => reader.problem(name, "must be <n>/second, <n>/minute, <n>/hour or off"),
    }
}

/// Where the hub is for those outside; without a word of it, and with a scheme, wherever a request says.
fn public_url(reader: &mut Reader<'_>, scheme: Option<&'static str>) -> PublicUrl {
    let Some(text) = reader.optional("PUBLIC_URL") else {
        return scheme.map_or(PublicUrl::Unknown, PublicUrl::OfRequest);
    };
    match BaseUrl::parse(&text) {
        Some(url) => PublicUrl::Configured(url.to_string()),
        None => reader.problem(
            "PUBLIC_URL",
            "must be an http or https address such as https://hub.example.com, without user, query and fragment",
        ),
    }
}

/// A secret as a key; one of production that has none is a problem of its own.
fn key(reader: &mut Reader<'_>, name: &str, secret: &Secret) -> Option<Key> {
    if secret.expose().is_empty() {
        return None;
    }
    Key::parse(secret.expose()).map_err(|what| reader.problem::<()>(name, what)).ok()
}

#[cfg(test)]
mod tests;
