//! One connection, and the generated stub of every service on it.

use upbridge_proto::v1;

use crate::{Builder, Credentials, Error, Hub};

/// Stub of `AnalyticsService`.
pub type AnalyticsClient = v1::analytics_service_client::AnalyticsServiceClient<Hub>;
/// Stub of `AuthService`.
pub type AuthClient = v1::auth_service_client::AuthServiceClient<Hub>;
/// Stub of `UserSyncService`.
pub type UserSyncClient = v1::user_sync_service_client::UserSyncServiceClient<Hub>;
/// Stub of `MembershipService`.
pub type MembershipClient = v1::membership_service_client::MembershipServiceClient<Hub>;
/// Stub of `UsageService`.
pub type UsageClient = v1::usage_service_client::UsageServiceClient<Hub>;
/// Stub of `QueueService`.
pub type QueueClient = v1::queue_service_client::QueueServiceClient<Hub>;
/// Stub of `UserService`.
pub type UsersClient = v1::user_service_client::UserServiceClient<Hub>;
/// Stub of `PartnerService`.
pub type PartnersClient = v1::partner_service_client::PartnerServiceClient<Hub>;
/// Stub of `IntegrationService`.
pub type IntegrationsClient = v1::integration_service_client::IntegrationServiceClient<Hub>;
/// Stub of `IntegrationWebhookService`.
pub type IntegrationWebhooksClient = v1::integration_webhook_service_client::IntegrationWebhookServiceClient<Hub>;
/// Stub of `CallbackService`.
pub type CallbacksClient = v1::callback_service_client::CallbackServiceClient<Hub>;
/// Stub of `WebhookService`.
pub type WebhooksClient = v1::webhook_service_client::WebhookServiceClient<Hub>;
/// Stub of the standard health service.
pub type HealthClient = tonic_health::pb::health_client::HealthClient<Hub>;

/// A client of the hub. Clones are cheap and share the connection, which reconnects by itself.
#[derive(Clone, Debug)]
pub struct Client {
    hub: Hub,
    message_limit_bytes: usize,
}

/// An accessor for each service: a stub is made anew each time, which costs no more than a clone.
macro_rules! stubs {
    ($($(#[$doc:meta])* $name:ident: $stub:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(&self) -> $stub {
            $stub::new(self.hub.clone())
                .max_decoding_message_size(self.message_limit_bytes)
                .max_encoding_message_size(self.message_limit_bytes)
        })*
    };
}

impl Client {
    /// Connects to the hub at `url` with the default settings and without credentials.
    pub async fn connect(url: impl Into<String>) -> Result<Client, Error> {
        Builder::new(url).connect().await
    }

    /// Settings to change before connecting.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url)
    }

    pub(crate) fn new(hub: Hub, message_limit_bytes: usize) -> Client {
        Client { hub, message_limit_bytes }
    }

    /// The same connection for another caller.
    pub fn with_credentials(&self, credentials: Credentials) -> Client {
        Client { hub: self.hub.with(Some(&credentials)), ..self.clone() }
    }

    /// The same connection for the user of that token. A token that no header can carry is refused at the first
    /// call, as the hub would refuse it.
    pub fn with_bearer(&self, token: impl Into<String>) -> Client {
        self.with_credentials(Credentials::Bearer(token.into()))
    }

    /// The same connection for the service of that key.
    pub fn with_api_key(&self, key: impl Into<String>) -> Client {
        self.with_credentials(Credentials::ApiKey(key.into()))
    }

    /// The same connection for nobody.
    pub fn without_credentials(&self) -> Client {
        Client { hub: self.hub.with(None), ..self.clone() }
    }

    stubs! {
        /// The partners whose integrations the hub manages.
        partners: PartnersClient;
        /// Partners' accounts at providers.
        integrations: IntegrationsClient;
        /// The webhooks the hub sends.
        integration_webhooks: IntegrationWebhooksClient;
        /// What providers call back; over HTTP only.
        callbacks: CallbacksClient;
        /// What was synced, what failed, and what is wrong.
        analytics: AnalyticsClient;
        /// Accounts and sessions.
        auth: AuthClient;
        /// Tokens, profiles, access, and how the copy at CreatorUp stands.
        user_sync: UserSyncClient;
        /// Plans, subscriptions and features.
        membership: MembershipClient;
        /// The usage ledger.
        usage: UsageClient;
        /// Administration of users.
        users: UsersClient;
        /// Administration of the event queue.
        queue: QueueClient;
        /// The webhooks CreatorUp sends, and what became of them.
        webhooks: WebhooksClient;
        /// Whether the hub serves.
        health: HealthClient;
    }
}
