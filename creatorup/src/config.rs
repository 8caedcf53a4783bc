//! Configuration: one struct, read once, from the environment and the `.env` files, by the rules of the house
//! ([`upbridge_service::config`]).
//!
//! `CREATORUP_API_KEY` and `WEBHOOK_SECRET` are the hub's too. In development either side makes them when it finds none,
//! in `data/secrets.env`, and the other finds them there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use upbridge_service::config::{Problems, Reader, Secret, gather};
use upbridge_service::delivery::BaseUrl;
use upbridge_service::model::address::Networks;
use upbridge_service::model::job::Backoff;
use upbridge_service::queue;
use upbridge_service::serve::Tls;
use upbridge_service::storage::{self, job::Keep};
use upbridge_service::telemetry::{Format, LogOptions};

use crate::domain::Rules;
use crate::hub;
use crate::video::tools::Places;

/// Where CreatorUp keeps what it makes by itself, relative to the working directory.
const DATA: &str = "data";
/// Names that begin so are CreatorUp's, or the hub's about CreatorUp; any other is a mistake.
const PREFIX: &str = "CREATORUP_";
/// Those that are known.
const KNOWN: &[&str] = &["CREATORUP_API_KEY", "CREATORUP_DATABASE_URL", "CREATORUP_API_URL", "CREATORUP_ALLOWED_URLS"];
/// How many jobs may run at once, for people.
const SLOTS: &str = "must be a whole number from 2 to 1000: one is kept for webhooks while videos are processed";
/// The longest wait of a job that failed: a hub that is back is noticed this soon.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`
    pub port: u16,
    /// `CREATORUP_DATABASE_URL`
    pub database_url: Secret,
    /// `DATABASE_POOL_SIZE`
    pub pool_size: u32,
    /// `DIGIUP_API_URL`
    pub digiup_api_url: String,
    /// `SYNC_TIMEOUT`
    pub sync_timeout: Duration,
    /// `CREATORUP_API_KEY`
    pub api_key: Secret,
    /// `WEBHOOK_SECRET`
    pub webhook_secret: Secret,
    /// `TOKEN_GRACE_SECONDS`
    pub token_grace: Duration,
    /// `MEDIA_ROOT`
    pub media_root: PathBuf,
    /// `FFMPEG_PATH`, and where programs are found without it
    pub places: Places,
    /// `VIDEO_TIME_LIMIT_SECONDS`
    pub video_time_limit: Duration,
    /// `QUEUE_CONCURRENCY`, `QUEUE_REMOVE_ON_COMPLETE`, `QUEUE_REMOVE_ON_FAIL`, `QUEUE_HEARTBEAT_INTERVAL`,
    /// `QUEUE_POLL_INTERVAL`, `QUEUE_BACKOFF_BASE`
    pub queue: queue::Options,
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
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: Networks,
    /// `LOG_DIR`, `LOG_LEVEL`, `LOG_FORMAT`
    pub log: LogOptions,
}

impl Config {
    /// Reads the environment of this process and the `.env` files of the working directory.
    pub fn load() -> anyhow::Result<Config> {
        Ok(Config::read(&gather("UPBRIDGE_ENV")?, Path::new(DATA))?)
    }

    /// Reads variables. Secrets that development may lack are made once and kept in `data`.
    pub fn read(variables: &BTreeMap<String, String>, data: &Path) -> Result<Config, Problems> {
        let mut reader = Reader::new(variables, data);
        for name in variables.keys().filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str())) {
            reader.problem::<()>(name, "is not a variable of CreatorUp or the hub");
        }
        let production = reader.choice("UPBRIDGE_ENV", &[("development", false), ("production", true)]);
        let digiup_api_url = reader.text("DIGIUP_API_URL", "http://127.0.0.1:3345");
        let is_address = BaseUrl::parse(&digiup_api_url).is_some_and(|url| url.join("").path() == "/");
        if !is_address {
            reader.problem::<()>(
                "DIGIUP_API_URL",
                "must be the hub's address such as https://api.digiup.com, without user, path and query",
            );
        }
        let concurrency = reader.parse("QUEUE_CONCURRENCY", "3", SLOTS);
        if !(2..=1_000).contains(&concurrency) {
            reader.problem::<()>("QUEUE_CONCURRENCY", SLOTS);
        }
        let drain_timeout = reader.seconds("DRAIN_TIMEOUT_SECONDS", 20, 1, 3600);
        let directory = reader.text("LOG_DIR", "logs/creatorup");
        let config = Config {
            host: reader.parse("HOST", if production { "0.0.0.0" } else { "127.0.0.1" }, "must be an IP address"),
            port: reader.parse("PORT", "3000", "must be a port, 0 to 65535"),
            database_url: reader
                .database("CREATORUP_DATABASE_URL", &format!("sqlite://{}/creatorup.db?mode=rwc", data.display())),
            pool_size: reader.number("DATABASE_POOL_SIZE", 8, 1, 1000) as u32,
            digiup_api_url,
            // Below the deadline of the jobs that make the calls.
            sync_timeout: reader.millis("SYNC_TIMEOUT", 10_000, 10, 100_000),
            api_key: reader.secret("CREATORUP_API_KEY", production),
            webhook_secret: reader.secret("WEBHOOK_SECRET", production),
            token_grace: reader.seconds("TOKEN_GRACE_SECONDS", 3_600, 0, 86_400),
            media_root: reader.text("MEDIA_ROOT", &format!("{}/media", data.display())).into(),
            places: Places {
                given: reader.optional("FFMPEG_PATH").map(PathBuf::from),
                path: OsString::from(reader.text("PATH", "")),
                library_path: reader.optional("LD_LIBRARY_PATH").map(OsString::from),
            },
            video_time_limit: reader.seconds("VIDEO_TIME_LIMIT_SECONDS", 3_600, 1, 86_400),
            queue: queue::Options {
                apart: 0,
                concurrency,
                keep: Keep {
                    done: reader.number("QUEUE_REMOVE_ON_COMPLETE", 100, 0, 100_000_000),
                    failed: reader.number("QUEUE_REMOVE_ON_FAIL", 50, 0, 100_000_000),
                },
                heartbeat: reader.millis("QUEUE_HEARTBEAT_INTERVAL", 10_000, 50, 15_000),
                poll: reader.millis("QUEUE_POLL_INTERVAL", 1_000, 10, 60_000),
                backoff: Backoff { base: reader.millis("QUEUE_BACKOFF_BASE", 1_000, 1, 300_000), cap: LONGEST_WAIT },
                drain: drain_timeout,
            },
            cors_origins: reader
                .origins("CORS_ORIGINS", "https://app.digiup.com,https://app.creatorup.com,https://api.creatorup.com"),
            tls: reader.tls("TLS_CERT_FILE", "TLS_KEY_FILE"),
            reflection: reader.flag("GRPC_REFLECTION", !production),
            body_limit_bytes: reader.number("BODY_LIMIT_BYTES", 1 << 20, 1 << 10, 64 << 20) as usize,
            request_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS", 30, 1, 3600),
            drain_timeout,
            health_check_interval: reader.millis("HEALTH_CHECK_INTERVAL", 60_000, 10, 86_400_000),
            trusted_proxies: reader.networks("TRUSTED_PROXIES"),
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
            // What the hub is told is tried for as long as it takes; this is for videos whose trouble may pass.
            max_retries: 3,
            patience: storage::PATIENCE,
        }
    }

    /// How the hub is reached.
    pub fn hub_options(&self) -> hub::Options {
        hub::Options {
            url: self.digiup_api_url.clone(),
            api_key: self.api_key.expose().to_owned(),
            webhook_secret: self.webhook_secret.expose().to_owned(),
            timeout: self.sync_timeout,
        }
    }

    /// What the domain is configured with.
    pub fn rules(&self) -> Rules {
        Rules {
            service_key: self.api_key.expose().to_owned(),
            token_grace: self.token_grace,
            // By then the call that created it has its answer, or none any more.
            report_delay: self.sync_timeout + Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], data: &Path) -> Result<Config, Problems> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&variables, data)
    }

    #[test]
    fn nothing_set_is_enough_in_development_and_the_secrets_are_those_the_hub_finds() {
        let data = tempfile::tempdir().unwrap();
        let first = read(&[], data.path()).unwrap();
        assert_eq!((first.port, first.digiup_api_url.as_str()), (3000, "http://127.0.0.1:3345"));
        let kept = std::fs::read_to_string(data.path().join("secrets.env")).unwrap();
        assert!(kept.contains(&format!("CREATORUP_API_KEY={}", first.api_key.expose())));
        assert!(kept.contains(&format!("WEBHOOK_SECRET={}", first.webhook_secret.expose())));
        assert_eq!(read(&[], data.path()).unwrap().api_key.expose(), first.api_key.expose());
        let listed = read(&[("UPBRIDGE_ENV", "production")], data.path()).unwrap_err();
        assert_eq!(listed.list().len(), 2, "{listed}");
    }

    #[test]
    fn every_problem_names_its_variable_and_no_value() {
        let bad = [
            ("PORT", "hunter2"),
            ("HOST", "hunter2"),
            ("DIGIUP_API_URL", "http://ana:hunter2@hub"),
            ("CREATORUP_DATABASE_URL", "mysql://hunter2"),
            ("CREATORUP_HUNTER2", "1"),
            ("QUEUE_CONCURRENCY", "1"),
            ("VIDEO_TIME_LIMIT_SECONDS", "0"),
            ("TOKEN_GRACE_SECONDS", "-1"),
            ("SYNC_TIMEOUT", "soon"),
        ];
        let data = tempfile::tempdir().unwrap();
        let problems = read(&bad, data.path()).unwrap_err();
        assert_eq!(problems.list().len(), bad.len(), "{problems}");
        assert!(bad.iter().all(|(name, _)| problems.list().iter().any(|problem| problem.starts_with(name))));
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}
