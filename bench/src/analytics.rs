//! GetSyncAnalytics over a long history and a short one, and the history itself.
//!
//! The database makes the events, with the running counts that the hub would have kept beside them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use upbridge_client::{Client, v1};
use upbridge_proto::v1::analytics_service_client::AnalyticsServiceClient;

use crate::hub::{Hub, now_seconds};
use crate::load::Lane;
use crate::past::{DAYS, Making};

/// Makes a history of `events`, in the place of the one that is there.
pub async fn seed(database_url: &str, events: usize) -> Result<()> {
    let making = Making::new(database_url, events, now_seconds());
    let insert = "INSERT INTO sync_events (id, event_type, user_id, status, payload, retry_count, max_retries, \
                  error_message, created_at, updated_at)";
    let (id, at, unix) = (making.id(), making.at(), making.unix());
    let (json, uuid) = if making.is_postgres { ("::jsonb", "::uuid") } else { ("", "") };
    // One in ten is a push, and one in five of these has failed: two of a hundred in all.
    let values = format!(
        "{id}, CASE WHEN n % 10 = 0 THEN 'user_sync' ELSE 'usage_sync' END, NULL{uuid}, \
         CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, '{{}}'{json}, 0, 3, \
         CASE WHEN n % 50 = 0 THEN 'timeout: no answer' END, {at}, {at}"
    );
    let mut statements =
        vec!["DELETE FROM sync_events".to_owned(), "DELETE FROM tallies WHERE metric = 'events'".to_owned()];
    statements.extend(making.fill(insert, &values));
    for (span, seconds) in [("minute", 60), ("hour", 3_600), ("day", 86_400)] {
        statements.push(format!(
            "INSERT INTO tallies (metric, span, starts_at, label, shard, count, amount) SELECT 'events', '{span}', \
             {unix} / {seconds} * {seconds}, event_type || '.' || status, 0, COUNT(*), 0 FROM sync_events GROUP BY 3, 4"
        ));
    }
    making.run(database_url, statements).await
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
