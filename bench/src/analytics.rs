//! GetSyncAnalytics over a long history and a short one, and the history itself.
//!
//! Five million events through the front door would take an hour; here the database makes them, with the running counts
//! that the hub would have kept beside them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use upbridge_client::{Client, v1};
use upbridge_proto::v1::analytics_service_client::AnalyticsServiceClient;

use crate::hub::{Hub, now_seconds};
use crate::load::Lane;

/// Events made in one transaction, so that the log does not grow to the size of the table.
const MADE: usize = 250_000;
/// Days the history reaches back, evenly.
const DAYS: i64 = 90;

/// Makes a history of `events`, in the place of the one that is there.
pub async fn seed(database_url: &str, events: usize) -> Result<()> {
    let is_postgres = database_url.starts_with("postgres");
    let from = now_seconds() - DAYS * 86_400;
    let insert = "INSERT INTO sync_events (id, event_type, user_id, status, payload, retry_count, max_retries, \
                  error_message, created_at, updated_at)";
    // One in ten is a push, and one in five of these has failed: two of a hundred in all.
    let values = "CASE WHEN n % 10 = 0 THEN 'user_sync' ELSE 'usage_sync' END, NULL, \
                  CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, '{}', 0, 3, \
                  CASE WHEN n % 50 = 0 THEN 'timeout: no answer' END";
    let second = format!("({from} + n * {} / {events})", DAYS * 86_400);
    let unix = match is_postgres {
        true => "CAST(floor(extract(epoch FROM created_at)) AS BIGINT)",
        false => "CAST(strftime('%s', created_at) AS BIGINT)",
    };
    let fill = |first: usize, last: usize| match is_postgres {
        true => format!(
            "{insert} SELECT lpad(to_hex(n), 32, '0')::uuid, {}, to_timestamp({second}), to_timestamp({second}) \
             FROM generate_series({first}::bigint, {last}) AS series(n)",
            values.replace("'{}'", "'{}'::jsonb").replace(", NULL,", ", NULL::uuid,")
        ),
        false => format!(
            "{insert} WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last}) \
             SELECT unhex(printf('%032x', n)), {values}, \
             strftime('%Y-%m-%dT%H:%M:%f+00:00', {second}, 'unixepoch'), \
             strftime('%Y-%m-%dT%H:%M:%f+00:00', {second}, 'unixepoch') FROM series"
        ),
    };
    let mut statements =
        vec!["DELETE FROM sync_events".to_owned(), "DELETE FROM tallies WHERE metric = 'events'".to_owned()];
    statements.extend((0..events).step_by(MADE).map(|first| fill(first, events.min(first + MADE) - 1)));
    for (span, seconds) in [("minute", 60), ("hour", 3_600), ("day", 86_400)] {
        statements.push(format!(
            "INSERT INTO tallies (metric, span, starts_at, label, shard, count, amount) SELECT 'events', '{span}', \
             {unix} / {seconds} * {seconds}, event_type || '.' || status, 0, COUNT(*), 0 FROM sync_events GROUP BY 3, 4"
        ));
    }
    statements.push("ANALYZE".to_owned());
    if is_postgres {
        let mut connection = PgConnection::connect(database_url).await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        connection.close().await?;
    } else {
        let mut connection = SqliteConnection::connect(database_url).await?;
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        connection.close().await?;
    }
    Ok(())
}

/// GetSyncAnalytics of the last 30 days.
pub struct GetSyncAnalytics {
    client: AnalyticsServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    least: i64,
}

impl GetSyncAnalytics {
    /// A lane of the first administrator, of a hub with a history of `events`.
    pub async fn new(hub: &Hub, channel: Channel, events: usize) -> Result<GetSyncAnalytics> {
        let client = Client::builder(format!("http://127.0.0.1:{}", hub.port))
            .call_timeout(Duration::from_secs(60))
            .connect()
            .await?;
        let login = v1::LoginRequest { email: "admin@bench.example".into(), password: "bench-password-1".into() };
        let token = client.auth().login(login).await.context("the administrator signs in")?.into_inner().token;
        let request = v1::GetSyncAnalyticsRequest { period: Some("366d".into()) };
        let all = client.with_bearer(token.as_str()).analytics().get_sync_analytics(request).await?.into_inner();
        let counted = all.events.context("no events in the answer")?.total;
        ensure!(counted >= i64::try_from(events)?, "{counted} of {events} events are counted");
        let authorization = format!("Bearer {token}").parse()?;
        let least = counted * 29 / DAYS;
        Ok(GetSyncAnalytics { client: AnalyticsServiceClient::new(channel), authorization, least })
    }
}

impl Lane for GetSyncAnalytics {
    async fn call(&mut self) -> Result<()> {
        let mut request = tonic::Request::new(v1::GetSyncAnalyticsRequest { period: Some("30d".into()) });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let answer = self.client.get_sync_analytics(request).await?.into_inner();
        let events = answer.events.context("no events in the answer")?;
        let rate = events.success_rate.context("no rate in the answer")?;
        ensure!(events.total >= self.least && (0.97..0.99).contains(&rate), "a wrong answer: {events:?}");
        Ok(())
    }
}
