//! Health and log of an integration with a long past and with a short one, and the past itself.
//!
//! As with the analytics, the database makes the past, with the running counts that the hub would have kept beside it.
//! Both pasts reach back equally far, so the long one is denser: more of it is in every window.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost_types::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use upbridge_client::{Client, v1};
use upbridge_proto::v1::integration_service_client::IntegrationServiceClient;

use crate::hub::{Hub, now_seconds};
use crate::load::Lane;
use crate::past::{DAYS, Making};

/// The integration.
const ID: &str = "00000000-0000-7000-8000-000000000001";

/// Makes a past of `entries`, in the place of the one that is there.
pub async fn seed(database_url: &str, entries: usize) -> Result<()> {
    let making = Making::new(database_url, entries, now_seconds());
    let (row, at, unix) = (making.id(), making.at(), making.unix());
    let (id, json) = match making.is_postgres {
        true => (format!("'{ID}'::uuid"), "::jsonb"),
        false => (format!("x'{}'", ID.replace('-', "")), ""),
    };
    let mut statements: Vec<String> = vec![
        "DELETE FROM integration_logs".into(),
        "DELETE FROM integration_counts".into(),
        format!("INSERT INTO partners (id, name) VALUES ({id}, 'Bench partner') ON CONFLICT DO NOTHING"),
        format!(
            "INSERT INTO partner_integrations (id, partner_id, category, provider, name, credentials, \
             credentials_key_id, is_active) VALUES ({id}, {id}, 'payment_gateway', 'midtrans', 'Bench', 'none', 'none', \
             FALSE) ON CONFLICT DO NOTHING"
        ),
    ];
    let insert = "INSERT INTO integration_logs (id, integration_id, action, status, message, request_data, response_data, \
                  error_details, duration, ip_address, user_agent, created_at, updated_at)";
    // Of fifty, one is a test, one a change of the configuration, and one a call that failed.
    let details =
        "CASE WHEN n % 100 = 7 THEN '{\"class\":\"timeout\"}' WHEN n % 50 = 7 THEN '{\"class\":\"auth\"}' END";
    let values = format!(
        "{row}, {id}, CASE n % 50 WHEN 3 THEN 'test' WHEN 5 THEN 'config_change' ELSE 'webhook' END, \
         CASE n % 50 WHEN 7 THEN 'failed' ELSE 'success' END, 'A payment changed its state', \
         '{{\"event\":\"payment.success\",\"order\":\"order-000000001\"}}'{json}, '{{\"status\":200}}'{json}, \
         ({details}){json}, 100 + n % 300, '192.0.2.7', 'bench', {at}, {at}"
    );
    statements.extend(making.fill(insert, &values));
    let minute = format!(
        "SELECT {unix} / 60 * 60 AS starts_at, action, status, COALESCE(error_details->>'class', '') AS error_class, \
         COUNT(*) AS count, COUNT(duration) AS timed, SUM(duration) AS millis FROM integration_logs GROUP BY 1, 2, 3, 4"
    );
    let insert = "INSERT INTO integration_counts (integration_id, span, starts_at, action, status, error_class, shard, \
                  count, timed, millis, minutes)";
    statements.push(format!(
        "{insert} SELECT {id}, 'minute', starts_at, action, status, error_class, 0, count, timed, millis, 0 \
         FROM ({minute}) AS minutes WHERE true"
    ));
    let bits = "SUM(CAST(1 AS BIGINT) << CAST(starts_at % 3600 / 60 AS INTEGER))";
    for (span, start, bits) in [
        ("hour", "starts_at / 3600 * 3600", bits),
        ("day", "starts_at / 86400 * 86400", "0"),
        ("total", "starts_at * 0", "0"),
    ] {
        statements.push(format!(
            "{insert} SELECT integration_id, '{span}', {start}, action, status, error_class, 0, SUM(count), SUM(timed), \
             SUM(millis), {bits} FROM integration_counts WHERE span = 'minute' \
             GROUP BY integration_id, {start}, action, status, error_class"
        ));
    }
    making.run(database_url, statements).await
}

/// What is asked of the integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its health over 24 hours.
    Health,
    /// The newest 50 entries.
    NewestPage,
    /// The newest failures of callbacks.
    Filtered,
    /// The newest entries of 30 days that begin and end nearly half an hour after an hour: as far from whole hours as can
    /// be, whatever the time at which they are asked for.
    Dated,
    /// A page in the middle of everything.
    LatePage,
}

impl Question {
    /// All of them.
    pub const ALL: [Question; 5] =
        [Question::Health, Question::NewestPage, Question::Filtered, Question::Dated, Question::LatePage];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Question::Health => "GetIntegrationHealth",
            Question::NewestPage => "ListIntegrationLogs, newest page",
            Question::Filtered => "ListIntegrationLogs, failed callbacks",
            Question::Dated => "ListIntegrationLogs, 30 days",
            Question::LatePage => "ListIntegrationLogs, page in the middle",
        }
    }
}

/// One who asks.
pub struct Asking {
    client: IntegrationServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    question: Question,
    entries: i64,
}

impl Asking {
    /// A lane of the first administrator, of a hub with a past of `entries`.
    pub async fn new(hub: &Hub, channel: Channel, question: Question, entries: usize) -> Result<Asking> {
        let client = Client::builder(format!("http://127.0.0.1:{}", hub.port))
            .call_timeout(Duration::from_secs(60))
            .connect()
            .await?;
        let login = v1::LoginRequest { email: "admin@bench.example".into(), password: "bench-password-1".into() };
        let token = client.auth().login(login).await.context("the administrator signs in")?.into_inner().token;
        let authorization = format!("Bearer {token}").parse()?;
        let entries = i64::try_from(entries)?;
        Ok(Asking { client: IntegrationServiceClient::new(channel), authorization, question, entries })
    }

    async fn health(&mut self) -> Result<()> {
        let mut request =
            tonic::Request::new(v1::GetIntegrationHealthRequest { integration_id: ID.into(), hours: None });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let answer = self.client.get_integration_health(request).await?.into_inner();
        let health = answer.health.context("no health in the answer")?;
        let metrics = health.metrics.context("no figures in the answer")?;
        // The run takes its time, in which nothing happens.
        let expected = self.entries / DAYS * 49 / 50;
        let is_right = (expected / 2..=expected * 11 / 10).contains(&metrics.total_requests);
        ensure!(is_right && metrics.failed_count > 0, "a wrong answer: {metrics:?}");
        Ok(())
    }

    async fn list(&mut self) -> Result<()> {
        let mut message = v1::ListIntegrationLogsRequest { integration_id: ID.into(), ..Default::default() };
        let mut expected = self.entries;
        match self.question {
            Question::Filtered => {
                message.action = Some(v1::IntegrationAction::Webhook.into());
                message.status = Some(v1::IntegrationOutcome::Failed.into());
                expected /= 50;
            }
            Question::Dated => {
                let now = now_seconds();
                let time = |seconds: i64| Some(Timestamp { seconds, nanos: 0 }.to_string());
                let half_past = now - now % 3_600 + 1_783;
                (message.start_date, message.end_date) = (time(half_past - 40 * 86_400), time(half_past - 10 * 86_400));
                expected = expected * 30 / DAYS;
            }
            Question::LatePage => message.page = Some(i32::try_from(self.entries / 100)?),
            _ => {}
        }
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let answer = self.client.list_integration_logs(request).await?.into_inner();
        let total = answer.pagination.context("no pagination in the answer")?.total;
        let is_right = (total - expected).abs() <= expected / 100 && answer.logs.len() == 50;
        ensure!(is_right && answer.stats.len() == 4, "a wrong answer: {total} of {expected}, {:?}", answer.stats);
        Ok(())
    }
}

impl Lane for Asking {
    async fn call(&mut self) -> Result<()> {
        match self.question {
            Question::Health => self.health().await,
            _ => self.list().await,
        }
    }
}
