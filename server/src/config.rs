//! Configuration: one struct, read once, from the environment and the `.env` files; the only room that reads it.
//!
//! The real environment wins over `.env.<UPBRIDGE_ENV>`, that over `.env.local`, that over `.env`. Every problem is
//! reported at once and names its variable, never its value.

mod client;
mod creatorup;
mod retention;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::distr::Alphanumeric;

use crate::domain::limit::{LimitRules, Quota};
use crate::domain::webhook::WebhookRules;
use crate::domain::{Keys, Rules};
use crate::model::address::Networks;
use crate::model::creatorup::CreatorUp;
use crate::model::job::Backoff;
use crate::model::signature::Key;
use crate::queue;
use crate::storage;
use crate::storage::job::Keep;
use crate::telemetry::{Format, LogOptions};
pub use client::{ClientConfig, own_url};

/// Where the hub keeps what it makes by itself, relative to the working directory.
const DATA: &str = "data";
/// Shortest secret, in bytes: 32 are as strong as the HMAC they key.
const SECRET_BYTES: usize = 32;

/// A value that cannot be printed.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The value, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

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
    pub tls: Option<(PathBuf, PathBuf)>,
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
    /// `WEBHOOK_SECRET`
    pub webhook_secret: Secret,
    /// `WEBHOOK_SECRET`, `WEBHOOK_SECRET_PREVIOUS`, `WEBHOOK_TOLERANCE_SECONDS`, `WEBHOOK_ALLOWED_IPS`
    pub webhooks: WebhookRules,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: Networks,
    /// `RATE_LIMIT_ANONYMOUS`, `RATE_LIMIT_LOGIN`, `RATE_LIMIT_USER`, `RATE_LIMIT_WEBHOOK`
    pub limits: LimitRules,
    /// `LOG_DIR`, `LOG_LEVEL`, `LOG_FORMAT`
    pub log: LogOptions,
}

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads the environment of this process and the `.env` files of the working directory.
    pub fn load() -> anyhow::Result<Config> {
        Ok(Config::read(&gather()?, Path::new(DATA))?)
    }

    /// Reads variables. Secrets that development may lack are made once and kept in `data`.
    pub fn read(variables: &BTreeMap<String, String>, data: &Path) -> Result<Config, Problems> {
        let mut reader = Reader { variables, problems: Vec::new(), made: BTreeMap::new(), data };
        for name in variables.keys().filter(|name| name.starts_with("UPBRIDGE_")) {
            // What clients, commands and examples read; a shell may well export it.
            const FOR_CLIENTS: [&str; 3] = ["UPBRIDGE_URL", "UPBRIDGE_TOKEN", "UPBRIDGE_PASSWORD"];
            if name != "UPBRIDGE_ENV" && !FOR_CLIENTS.contains(&name.as_str()) {
                reader.problem::<()>(name, "is not a variable of the hub");
            }
        }
        let environment = reader.choice(
            "UPBRIDGE_ENV",
            &[("development", Environment::Development), ("production", Environment::Production)],
        );
        let production = environment == Environment::Production;
        let default_host = if production { "0.0.0.0" } else { "127.0.0.1" };
        let host = reader.parse("HOST", default_host, "must be an IP address");
        let jwt_secret = reader.secret("JWT_SECRET", production);
        let jwt_secret_previous =
            reader.optional("JWT_SECRET_PREVIOUS").map(|_| reader.secret("JWT_SECRET_PREVIOUS", production));
        let creatorup_api_key = reader.secret("CREATORUP_API_KEY", production);
        let webhook_secret = reader.secret("WEBHOOK_SECRET", production);
        let webhook_secret_previous =
            reader.optional("WEBHOOK_SECRET_PREVIOUS").map(|_| reader.secret("WEBHOOK_SECRET_PREVIOUS", production));
        let webhooks = WebhookRules {
            keys: [
                ("WEBHOOK_SECRET", Some(&webhook_secret)),
                ("WEBHOOK_SECRET_PREVIOUS", webhook_secret_previous.as_ref()),
            ]
            .into_iter()
            .filter_map(|(name, secret)| reader.key(name, secret?))
            .collect(),
            tolerance: reader.number("WEBHOOK_TOLERANCE_SECONDS", 300, 1, 86_400),
            allowed: reader.networks("WEBHOOK_ALLOWED_IPS"),
        };
        let database = reader.text("DATABASE_URL", &format!("sqlite://{}/upbridge.db?mode=rwc", data.display()));
        if storage::dialect::Dialect::of(&database).is_err() {
            reader.problem::<()>(
                "DATABASE_URL",
                "must be sqlite://<file>?mode=rwc or postgres://<user>@<host>/<database>",
            );
        }
        let tls = match (reader.optional("TLS_CERT_FILE"), reader.optional("TLS_KEY_FILE")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => reader.problem("TLS_KEY_FILE", "is required with TLS_CERT_FILE"),
            (None, Some(_)) => reader.problem("TLS_CERT_FILE", "is required with TLS_KEY_FILE"),
        };
        let admin_password = reader.optional("ADMIN_PASSWORD");
        if admin_password.as_ref().is_some_and(|password| !(8..=128).contains(&password.chars().count())) {
            reader.problem::<()>("ADMIN_PASSWORD", "must have 8 to 128 characters");
        }
        if production && admin_password.as_deref().is_some_and(is_placeholder) {
            reader.problem::<()>("ADMIN_PASSWORD", "must not be a placeholder");
        }
        let directory = reader.text("LOG_DIR", "logs");
        let config = Config {
            environment,
            host,
            port: reader.parse("PORT", "3345", "must be a port, 0 to 65535"),
            database_url: Secret(database.into()),
            pool_size: reader.number("DATABASE_POOL_SIZE", 8, 1, 1000) as u32,
            jwt_secret,
            jwt_secret_previous,
            jwt_lifetime: reader.seconds("JWT_LIFETIME_SECONDS", 86_400, 60, 31_536_000),
            creatorup_api_key,
            admin_email: reader.optional("ADMIN_EMAIL"),
            admin_password: admin_password.map(|value| Secret(value.into())),
            cors_origins: reader.origins(),
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
            creatorup: reader.creatorup(),
            cleanup: reader.cleanup(),
            webhook_secret,
            webhooks,
            trusted_proxies: reader.networks("TRUSTED_PROXIES"),
            limits: LimitRules {
                anonymous: reader.limit("RATE_LIMIT_ANONYMOUS", "1000/hour"),
                login: reader.limit("RATE_LIMIT_LOGIN", "20/minute"),
                user: reader.limit("RATE_LIMIT_USER", "6000/minute"),
                webhook: reader.limit("RATE_LIMIT_WEBHOOK", "1000/second"),
            },
            log: LogOptions {
                directory: (directory != "off").then(|| directory.into()),
                level: reader.parse("LOG_LEVEL", "info", "must be error, warn, info, debug or trace"),
                format: reader.choice("LOG_FORMAT", &[("text", Format::Text), ("json", Format::Json)]),
            },
        };
        let Reader { mut problems, made, .. } = reader;
        if problems.is_empty()
            && let Err(error) = keep(data, &made)
        {
            problems.push(format!("{}: the secrets made for development cannot be kept: {error}", data.display()));
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// How the store is opened.
    pub fn store_options(&self) -> storage::Options {
        storage::Options {
            url: self.database_url.expose().to_owned(),
            read_connections: self.pool_size,
            wait: Duration::from_secs(5),
            max_retries: self.max_sync_retries,
        }
    }

    /// How the queue is worked.
    pub fn queue_options(&self) -> queue::Options {
        self.queue
    }

    /// What the domain is configured with, and whom it tells about users.
    pub fn rules(&self, creatorup: Option<Arc<dyn CreatorUp>>) -> Rules {
        Rules {
            keys: Keys {
                current: self.jwt_secret.0.clone(),
                previous: self.jwt_secret_previous.as_ref().map(|secret| secret.0.clone()),
            },
            token_lifetime: self.jwt_lifetime,
            service_key: Some(self.creatorup_api_key.0.clone()),
            retention: self.cleanup.retention,
            archive: self.cleanup.archive.clone(),
            limits: self.limits,
            creatorup,
            sync_batch_size: self.creatorup.sync_batch_size,
            webhooks: self.webhooks.clone(),
        }
    }
}

/// One variable, from wherever the configuration is read.
pub fn variable(name: &str) -> anyhow::Result<Option<String>> {
    Ok(gather()?.remove(name))
}

/// The variables of this process and of the `.env` files.
fn gather() -> anyhow::Result<BTreeMap<String, String>> {
    // An empty value counts as unset, so that it hides nothing a weaker source sets.
    let process: BTreeMap<String, String> = std::env::vars().filter(|(_, value)| !value.is_empty()).collect();
    let mut variables = BTreeMap::new();
    read_file(".env", &mut variables)?;
    read_file(".env.local", &mut variables)?;
    let named = process.get("UPBRIDGE_ENV").or(variables.get("UPBRIDGE_ENV"));
    let environment = named.map_or_else(|| "development".to_owned(), String::clone);
    read_file(&format!(".env.{environment}"), &mut variables)?;
    variables.extend(process);
    Ok(variables)
}

fn read_file(file: &str, variables: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    if !Path::new(file).exists() {
        return Ok(());
    }
    for entry in dotenvy::from_path_iter(file)? {
        // The error of a line repeats the line, which may hold a secret.
        let (name, value) = entry.map_err(|_| anyhow::anyhow!("{file} has a line that is not NAME=value"))?;
        if !value.is_empty() {
            variables.insert(name, value);
        }
    }
    Ok(())
}

/// Secrets made for development live here, readable by their owner alone.
fn secrets_file(data: &Path) -> PathBuf {
    data.join("secrets.env")
}

fn keep(data: &Path, made: &BTreeMap<&'static str, String>) -> std::io::Result<()> {
    use std::io::Write;
    if made.is_empty() {
        return Ok(());
    }
    storage::dialect::create_private_directory(data)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(secrets_file(data))?;
    made.iter().try_for_each(|(name, value)| writeln!(file, "{name}={value}"))?;
    file.sync_all()
}

/// Values that examples print and nobody should run with.
fn is_placeholder(value: &str) -> bool {
    let lowered = value.to_lowercase();
    lowered.starts_with("your") || lowered.contains("changeme") || lowered.contains("change-me")
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: Vec<String>,
    made: BTreeMap<&'static str, String>,
    data: &'a Path,
}

impl Reader<'_> {
    fn problem<T: Default>(&mut self, name: &str, what: &str) -> T {
        self.problems.push(format!("{name} {what}"));
        T::default()
    }

    /// An empty variable counts as unset, so that a copied `.env.example` means its defaults.
    fn optional(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    fn parse<T: std::str::FromStr>(&mut self, name: &str, default: &str, what: &str) -> T {
        match self.text(name, default).parse() {
            Ok(value) => value,
            Err(_) => {
                self.problem::<()>(name, what);
                default.parse().unwrap_or_else(|_| unreachable!("the default of {name} parses"))
            }
        }
    }

    fn number(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let what = format!("must be a whole number from {least} to {most}");
        let value = self.parse(name, &default.to_string(), &what);
        if (least..=most).contains(&value) {
            return value;
        }
        self.problem::<()>(name, &what);
        default
    }

    fn seconds(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_secs(self.number(name, default, least, most))
    }

    fn millis(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.number(name, default, least, most))
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, if default { "true" } else { "false" }, "must be true or false")
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let (first, default) = choices[0];
        let text = self.text(name, first);
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.problem::<()>(name, &format!("must be {}", words.join(" or ")));
                default
            }
        }
    }

    fn limit(&mut self, name: &str, default: &str) -> Option<Quota> {
        match Quota::parse(&self.text(name, default)) {
            Some(quota) => quota,
            None => self.problem(name, "must be <n>/second, <n>/minute, <n>/hour or off"),
        }
    }

    /// A secret as a key; one of production that has none is a problem of its own.
    fn key(&mut self, name: &str, secret: &Secret) -> Option<Key> {
        if secret.expose().is_empty() {
            return None;
        }
        Key::parse(secret.expose()).map_err(|what| self.problem::<()>(name, what)).ok()
    }

    fn networks(&mut self, name: &str) -> Networks {
        let read = Networks::parse(&self.text(name, ""));
        read.unwrap_or_else(|| {
            self.problem(name, "must be addresses or networks such as 10.0.0.0/8 separated by commas")
        })
    }

    fn origins(&mut self) -> Vec<String> {
        let default = "https://app.digiup.com,https://app.creatorup.com,https://api.creatorup.com";
        let text = self.text("CORS_ORIGINS", default);
        if text == "off" {
            return Vec::new();
        }
        let origins: BTreeSet<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
        if origins.iter().any(|origin| {
            !origin.contains("://") || origin.contains('*') || origin.parse::<http::HeaderValue>().is_err()
        }) {
            return self
                .problem("CORS_ORIGINS", "must be off, or origins such as https://app.digiup.com separated by commas");
        }
        origins.into_iter().collect()
    }

    /// A secret: given, made earlier, or made now; in production it must be given.
    fn secret(&mut self, name: &'static str, production: bool) -> Secret {
        if let Some(value) = self.optional(name) {
            if production && (is_placeholder(&value) || value.len() < SECRET_BYTES) {
                self.problem::<()>(
                    name,
                    &format!("must be a secret of at least {SECRET_BYTES} bytes, not a placeholder"),
                );
            }
            return Secret(value.into());
        }
        if production {
            self.problem::<()>(name, "is required in production");
            return Secret("".into());
        }
        let kept = dotenvy::from_path_iter(secrets_file(self.data)).ok();
        let kept = kept.and_then(|entries| entries.filter_map(Result::ok).find(|(kept, _)| kept == name));
        let value = kept.map(|(_, value)| value).unwrap_or_else(|| {
            let made: String = rand::rng().sample_iter(Alphanumeric).take(48).map(char::from).collect();
            self.made.insert(name, made.clone());
            made
        });
        Secret(value.into())
    }
}

#[cfg(test)]
mod tests;
