//! The typed client of the Upbridge hub.
//!
//! ```no_run
//! use upbridge_client::{Client, v1};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Client::connect("http://127.0.0.1:3345").await?;
//! let login = v1::LoginRequest { email: "ana@digiup.example".into(), password: "…".into() };
//! let session = hub.auth().login(login).await?.into_inner();
//! let ana = hub.with_bearer(session.token);
//! let me = ana.auth().get_me(v1::GetMeRequest {}).await?.into_inner();
//! # Ok(()) }
//! ```
//!
//! The cast: [`Builder`] turns a URL into one HTTP/2 connection; [`Client`] holds it and hands out the generated
//! stubs; [`Hub`] is the service beneath every stub, which adds the credential and hands on to [`Retry`], which
//! gives each call a deadline and repeats what is safe to repeat.
//!
//! [`WebhookSigner`] stands beside them: it proves the webhooks that CreatorUp sends.
//!
//! What is guaranteed:
//! - Every call with one answer ends by its deadline, the answer's last byte included, with `DEADLINE_EXCEEDED`.
//! - Only calls that the contract marks idempotent are ever sent twice, and only while the hub cannot have
//!   refused them for good: it was unavailable, the connection broke, or it said when to come back.
//! - A secret never appears in `Debug` output, of this crate's types or of the headers that carry it.
//!
//! What is not: a stream of requests is never repeated, because its messages are gone once sent. The hub makes
//! it safe for the caller to send the whole stream again.

mod builder;
mod client;
mod credentials;
mod deadline;
mod hub;
mod refusal;
mod retry;
mod webhook;

pub use builder::{Builder, Error};
pub use client::{
    AnalyticsClient, AuthClient, CallbacksClient, Client, HealthClient, IntegrationWebhooksClient, IntegrationsClient,
    MembershipClient, PartnersClient, QueueClient, UsageClient, UserSyncClient, UsersClient, WebhooksClient,
};
pub use credentials::Credentials;
pub use hub::Hub;
pub use refusal::{field_violations, reason, retry_after};
pub use retry::{Retry, RetryLayer, RetryPolicy};
pub use tonic::{Code, Request, Status};
pub use tonic_health::pb as health;
pub use upbridge_proto::v1;
pub use webhook::WebhookSigner;
