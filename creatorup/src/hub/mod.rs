//! The outward door: the only room that calls the hub, typed over gRPC and by signed webhooks over HTTP.
//!
//! What a user may do is asked with the user's own token; what CreatorUp has to tell is told with its own key, which
//! names the user, because a token may be long gone when the hub is there again.
//!
//! Guaranteed: every call ends within `SYNC_TIMEOUT`; an answer of the hub comes through as what it means (a token that
//! is not good, no membership, a limit that is reached, a field that is wrong), and everything else is the hub being
//! away, which says nothing about whether it heard. So whatever is told can be told again.

mod convert;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use upbridge_client::{Client, Code, Request, Status, v1};

use crate::model::batch::Batch;
use crate::model::decision::{Counted, Decision, Verified};
use crate::model::outbox::Webhook;
use crate::model::user::Profile;
use crate::model::{Clock, Error, Month, Result};
use convert::refusal;
pub use webhook::{Sender, Undelivered};

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `DIGIUP_API_URL`: gRPC and HTTP on one port.
    pub url: String,
    /// `CREATORUP_API_KEY`
    pub api_key: String,
    /// `WEBHOOK_SECRET`
    pub webhook_secret: String,
    /// `SYNC_TIMEOUT`: how long one call may take, all attempts together.
    pub timeout: Duration,
}

/// The hub, as CreatorUp sees it.
pub struct DigiUp {
    client: Client,
    service: Client,
    sender: Sender,
}

impl DigiUp {
    /// Connects at the first call: the hub may start later. The error says what cannot be used, and no secret.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<DigiUp, String> {
        let builder = Client::builder(&options.url).call_timeout(options.timeout).user_agent("creatorup");
        let client = builder.connect_lazily().map_err(|error| format!("DIGIUP_API_URL {error}"))?;
        let service = client.with_api_key(&options.api_key);
        Ok(DigiUp { client, service, sender: Sender::new(options, clock)? })
    }

    /// Whose token it is, and whether they may use CreatorUp.
    pub async fn verify(&self, token: &str) -> Result<Verified> {
        let asked = v1::VerifyTokenRequest { token: None };
        let answer = self.client.with_bearer(token).user_sync().verify_token(asked).await.map_err(refusal)?;
        convert::verified(answer.into_inner())
    }

    /// The profile of a token's user.
    pub async fn profile(&self, token: &str) -> Result<Profile> {
        let asked = v1::GetProfileRequest { digiup_user_id: None };
        let answer = self.client.with_bearer(token).user_sync().get_profile(asked).await.map_err(refusal)?;
        convert::profile(answer.into_inner())
    }

    /// Whether a token's user may use a feature.
    pub async fn check(&self, token: &str, feature: &str) -> Result<Decision> {
        let asked = v1::CheckFeatureAccessRequest { feature: feature.to_owned(), amount: None, digiup_user_id: None };
        let answer = self.client.with_bearer(token).membership().check_feature_access(asked).await.map_err(refusal)?;
        convert::decision(answer.into_inner())
    }

    /// Has a new batch counted. The same batch again counts once.
    pub async fn count(&self, batch: &Batch, month: Option<Month>) -> Result<Counted> {
        let told = v1::CreateBatchRequest {
            batch_name: batch.name.clone(),
            batch_type: batch.batch_type.clone(),
            usage_type: batch.usage_type.clone(),
            usage_amount: Some(batch.amount()),
            month_year: month.map(|month| month.to_string()),
            completed_at: None,
            metadata: batch.metadata.as_ref().and_then(upbridge_service::grpc::convert::structure),
            usage_id: Some(batch.id.to_string()),
            digiup_user_id: Some(batch.digiup_user_id.to_string()),
            idempotency_key: Some(batch.id.to_string()),
        };
        match self.service.usage().create_batch(told).await {
            Ok(answer) => Ok(convert::counted(&answer.into_inner())),
            Err(status) => Err(own(status)),
        }
    }

    /// Sends a webhook.
    pub async fn send(&self, webhook: &Webhook) -> Result<crate::model::decision::Receipt, Undelivered> {
        self.sender.send(webhook).await
    }

    /// Whether the hub serves.
    pub async fn ping(&self) -> Result<()> {
        let mut asked = Request::new(upbridge_client::health::HealthCheckRequest::default());
        asked.set_timeout(Duration::from_secs(2));
        let answer = self.client.health().check(asked).await.map_err(refusal)?;
        const SERVING: i32 = upbridge_client::health::health_check_response::ServingStatus::Serving as i32;
        match answer.into_inner().status {
            SERVING => Ok(()),
            _ => Err(Error::away("the hub", "it says that it is not serving")),
        }
    }
}

/// What an answer to CreatorUp's own key means. A key that is not good is ours to mend, and no word about the user.
///
/// What is too large for the hub's door is refused before the hub knows whose it is, and will be at every try.
fn own(status: Status) -> Error {
    if status.code() == Code::OutOfRange {
        return Error::invalid("metadata", "is more than the hub takes");
    }
    match refusal(status) {
        Error::Unauthenticated { .. } => {
            tracing::error!("the hub refuses CREATORUP_API_KEY: both sides must have the same");
            Error::away("the hub", "it refuses CREATORUP_API_KEY")
        }
        other => other,
    }
}
