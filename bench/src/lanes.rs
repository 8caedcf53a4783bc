//! The calls over gRPC. Stubs on plain channels, in the reference and in the subject alike: what the typed client
//! adds is not the server's cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use upbridge_client::v1;
use upbridge_client::v1::membership_service_client::MembershipServiceClient;
use upbridge_client::v1::usage_service_client::UsageServiceClient;
use upbridge_client::v1::user_sync_service_client::UserSyncServiceClient;

use crate::hub::{FEATURE, User};
use crate::load::{CONNECTIONS, LANES, Lane};
use crate::{bare, process};

/// A call that takes longer than this is broken, not slow.
pub const LONGEST_CALL: Duration = Duration::from_secs(30);

/// A lane for each user, spread over the connections.
pub async fn of_users<L>(port: u16, users: &[User], lane: impl Fn(Channel, &User) -> Result<L>) -> Result<Vec<L>> {
    let channels = process::connect(port, CONNECTIONS).await?;
    users.iter().enumerate().map(|(index, user)| lane(channels[index % CONNECTIONS].clone(), user)).collect()
}

/// Lanes to the reference, with the tokens that the subject is sent: headers cost by their length and variety.
pub async fn of_bare(port: u16, users: &[User]) -> Result<Vec<VerifyToken>> {
    of_users(port, users, |channel, user| {
        VerifyToken::new(channel, &User { id: bare::USER_ID.to_owned(), token: user.token.clone() })
    })
    .await
}

/// Users for the reference alone, with tokens as long as the hub's.
pub fn of_nobody() -> Vec<User> {
    (0..LANES).map(|index| User { id: bare::USER_ID.to_owned(), token: format!("{index:0>400}") }).collect()
}

/// A request by the user of that token, with a deadline as every caller should have one.
fn authorized<T>(message: T, authorization: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.clone());
    request.set_timeout(LONGEST_CALL);
    request
}

fn authorization(user: &User) -> Result<MetadataValue<Ascii>> {
    Ok(format!("Bearer {}", user.token).parse()?)
}

/// VerifyToken with the token in the header.
pub struct VerifyToken {
    client: UserSyncServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    user_id: String,
}

impl VerifyToken {
    /// A lane of that user.
    pub fn new(channel: Channel, user: &User) -> Result<VerifyToken> {
        let client = UserSyncServiceClient::new(channel);
        Ok(VerifyToken { client, authorization: authorization(user)?, user_id: user.id.clone() })
    }
}

impl Lane for VerifyToken {
    async fn call(&mut self) -> Result<()> {
        let request = authorized(v1::VerifyTokenRequest::default(), &self.authorization);
        let answer = self.client.verify_token(request).await?.into_inner();
        let user_id = answer.user.map(|user| user.id);
        ensure!(answer.valid && answer.has_access && user_id.as_ref() == Some(&self.user_id), "a wrong answer");
        Ok(())
    }
}

/// CheckFeatureAccess for a feature without limit.
pub struct CheckFeatureAccess {
    client: MembershipServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

impl CheckFeatureAccess {
    /// A lane of that user.
    pub fn new(channel: Channel, user: &User) -> Result<CheckFeatureAccess> {
        Ok(CheckFeatureAccess { client: MembershipServiceClient::new(channel), authorization: authorization(user)? })
    }
}

impl Lane for CheckFeatureAccess {
    async fn call(&mut self) -> Result<()> {
        let request = v1::CheckFeatureAccessRequest { feature: FEATURE.to_owned(), ..Default::default() };
        let answer = self.client.check_feature_access(authorized(request, &self.authorization)).await?.into_inner();
        ensure!(answer.has_access && answer.feature == FEATURE && answer.limit.is_none(), "a wrong answer: {answer:?}");
        Ok(())
    }
}

/// RecordUsage, each report with a key of its own.
pub struct RecordUsage {
    client: UsageServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    month_year: String,
    recorded: Arc<AtomicI64>,
}

impl RecordUsage {
    /// A lane of that user; every record adds one to `recorded`.
    pub fn new(channel: Channel, user: &User, month_year: &str, recorded: Arc<AtomicI64>) -> Result<RecordUsage> {
        let (client, authorization) = (UsageServiceClient::new(channel), authorization(user)?);
        Ok(RecordUsage { client, authorization, month_year: month_year.to_owned(), recorded })
    }
}

impl Lane for RecordUsage {
    async fn call(&mut self) -> Result<()> {
        let key = uuid::Uuid::new_v4().to_string();
        let request = v1::RecordUsageRequest {
            usage_data: Some(crate::ledger::usage(&self.month_year)),
            idempotency_key: Some(key),
            ..Default::default()
        };
        let answer = self.client.record_usage(authorized(request, &self.authorization)).await?.into_inner();
        ensure!(!answer.duplicate && answer.outcome() == v1::UsageOutcome::Created, "not a new record: {answer:?}");
        self.recorded.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// GetMonthlyUsage, which must answer the total that was recorded.
pub struct GetMonthlyUsage {
    client: UsageServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    month_year: String,
    total: i64,
}

impl GetMonthlyUsage {
    /// A lane of that user, whose month has that total.
    pub fn new(channel: Channel, user: &User, month_year: &str, total: i64) -> Result<GetMonthlyUsage> {
        let (client, authorization) = (UsageServiceClient::new(channel), authorization(user)?);
        Ok(GetMonthlyUsage { client, authorization, month_year: month_year.to_owned(), total })
    }
}

impl Lane for GetMonthlyUsage {
    async fn call(&mut self) -> Result<()> {
        let request = v1::GetMonthlyUsageRequest { month_year: Some(self.month_year.clone()), ..Default::default() };
        let answer = self.client.get_monthly_usage(authorized(request, &self.authorization)).await?.into_inner();
        ensure!(answer.total == self.total, "a total of {} instead of {}", answer.total, self.total);
        Ok(())
    }
}
