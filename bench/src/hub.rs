//! The hub under test: its process, its database, its users.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tonic::transport::Channel;
use upbridge_client::health::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use upbridge_client::{Client, v1};

use crate::arguments::Arguments;
use crate::load::LANES;
use crate::process::{self, Server};

/// The key that the bench calls with as a service.
pub const SERVICE_KEY: &str = "bench-service-key-0123456789abcdef";
/// The plan of every user: local rendering is unlimited in it.
const PLAN: &str = "Pro";
/// The feature that is checked and used.
pub const FEATURE: &str = "local_rendering";
/// No limit that a machine can reach: what is measured is the hub, not its patience.
/// What CreatorUp signs its webhooks with.
pub const WEBHOOK_SECRET: &str = "bench-webhook-secret-0123456789abcdef";
const ADMIN_EMAIL: &str = "admin@bench.example";
const ADMIN_PASSWORD: &str = "bench-password-1";
const NO_LIMIT: &str = "1000000000/second";

/// A directory for this run alone; removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory.
    pub fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("upbridge-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a run that ends may leave a directory, not fail over it
    }
}

/// Where a hub lives between its starts.
pub struct Site {
    program: PathBuf,
    directory: PathBuf,
    database_url: String,
}

impl Site {
    /// A hub with a directory of its own under the scratch directory, and a database there unless one was given.
    pub fn new(arguments: &Arguments, scratch: &Scratch, name: &str) -> Result<Site> {
        let program = match &arguments.hub {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("upbridge"),
        };
        ensure!(program.is_file(), "there is no hub at {}; --hub says where it is", program.display());
        let directory = scratch.path().join(name);
        std::fs::create_dir(&directory)?;
        let database_url = match &arguments.postgres {
            Some(url) => url.clone(),
            None => format!("sqlite://{}?mode=rwc", directory.join("bench.db").display()),
        };
        Ok(Site { program: program.canonicalize()?, directory, database_url })
    }

    /// Where its database is.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Starts the hub and waits until it says that it serves.
    pub async fn start(&self) -> Result<Hub> {
        let port = process::free_port()?;
        let text = str::to_owned;
        let environment = [
            ("HOST", text("127.0.0.1")),
            ("PORT", port.to_string()),
            ("DATABASE_URL", self.database_url.clone()),
            ("ADMIN_EMAIL", text(ADMIN_EMAIL)),
            ("ADMIN_PASSWORD", text(ADMIN_PASSWORD)),
            ("CREATORUP_API_KEY", text(SERVICE_KEY)),
            ("JWT_SECRET", "5eed".repeat(16)),
            ("WEBHOOK_SECRET", text(WEBHOOK_SECRET)),
            ("QUEUE_CONCURRENCY", text("200")),
            ("RATE_LIMIT_ANONYMOUS", text(NO_LIMIT)),
            ("RATE_LIMIT_LOGIN", text(NO_LIMIT)),
            ("RATE_LIMIT_USER", text(NO_LIMIT)),
            ("RATE_LIMIT_WEBHOOK", text(NO_LIMIT)),
            ("LOG_DIR", self.directory.join("logs").display().to_string()),
        ];
        let log = self.directory.join("hub.log");
        let mut server = Server::start(&self.program, &["serve"], &self.directory, &environment, &log)?;
        let cold_start = server.answers(|| serves(port)).await?;
        Ok(Hub { server, port, cold_start })
    }
}

async fn serves(port: u16) -> Result<()> {
    let channel = process::connect(port, 1).await?.remove(0);
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?.into_inner();
    ensure!(answer.status() == ServingStatus::Serving, "the hub says {}", answer.status().as_str_name());
    Ok(())
}

/// A hub that runs.
pub struct Hub {
    /// The process.
    pub server: Server,
    /// Where it listens.
    pub port: u16,
    /// From the start of the process to its first answer.
    pub cold_start: Duration,
}

/// A subscriber with a session.
#[derive(Clone)]
pub struct User {
    /// UUID.
    pub id: String,
    /// Session token.
    pub token: String,
}

impl Hub {
    /// Calls as the administrator.
    pub async fn admin(&self) -> Result<Client> {
        let client = Client::connect(format!("http://127.0.0.1:{}", self.port)).await?;
        let login = v1::LoginRequest { email: ADMIN_EMAIL.to_owned(), password: ADMIN_PASSWORD.to_owned() };
        let token = client.auth().login(login).await?.into_inner().token;
        Ok(client.with_bearer(token))
    }

    /// Registers a user for each lane, subscribed to a plan that sets no limit on the feature in use.
    pub async fn register_users(&self) -> Result<Vec<User>> {
        eprintln!("Registering {LANES} users");
        let client = Client::builder(format!("http://127.0.0.1:{}", self.port))
            .call_timeout(Duration::from_secs(60)) // an argon2 hash each, on cores that others use too
            .connect()
            .await?;
        let plans = client.membership().list_plans(v1::ListPlansRequest {}).await?.into_inner().plans;
        let plan =
            plans.iter().find(|plan| plan.name == PLAN).with_context(|| format!("the hub has no plan {PLAN}"))?;
        let run = uuid::Uuid::new_v4().simple().to_string();
        let mut users = Vec::with_capacity(LANES);
        for index in 0..LANES {
            let request = v1::RegisterRequest {
                email: format!("bench-{}-{index}@upbridge.example", &run[..6]),
                password: "bench-password-1".to_owned(),
                name: format!("Bench user {index}"),
                plan_id: Some(plan.id),
                ..Default::default()
            };
            let answer = client.auth().register(request).await?.into_inner();
            users.push(User { id: answer.user.context("no user in the answer")?.id, token: answer.token });
        }
        Ok(users)
    }

    /// What the hub has counted for each user this month.
    pub async fn totals(&self, users: &[User], month_year: &str) -> Result<Vec<i64>> {
        let channel = process::connect(self.port, 1).await?.remove(0);
        let mut totals = Vec::with_capacity(users.len());
        for user in users {
            totals.push(total(&channel, user, month_year).await?);
        }
        Ok(totals)
    }
}

async fn total(channel: &Channel, user: &User, month_year: &str) -> Result<i64> {
    let mut request = tonic::Request::new(v1::GetMonthlyUsageRequest {
        month_year: Some(month_year.to_owned()),
        digiup_user_id: None,
    });
    request.metadata_mut().insert("authorization", format!("Bearer {}", user.token).parse()?);
    let mut client = v1::usage_service_client::UsageServiceClient::new(channel.clone());
    let month = client.get_monthly_usage(request).await?.into_inner();
    // Every report of the bench is one unit of one batch.
    ensure!(month.total == month.batches, "{} units in {} batches", month.total, month.batches);
    Ok(month.total)
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The month that instant is in, `YYYY-MM` in UTC.
pub fn month_of(seconds: i64) -> String {
    // Timestamps print as RFC 3339, which begins with the month.
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()[..7].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_in_its_month() {
        assert_eq!(month_of(0), "1970-01");
        assert_eq!(month_of(1_709_251_199), "2024-02"); // 29 February, one second to midnight
        assert_eq!(month_of(1_709_251_200), "2024-03");
    }

    #[test]
    fn a_scratch_directory_does_not_outlive_its_run() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
