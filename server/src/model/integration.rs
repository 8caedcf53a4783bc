//! Integrations: partners' accounts at payment gateways, WhatsApp gateways and mail servers.

pub mod address;
pub mod catalogue;
pub mod check;
mod credentials;
mod partner;

use uuid::Uuid;

use super::failure::FailureClass;
use super::words::words;
use super::{Ctx, Instant, Json};
pub use credentials::{Credentials, callback_digest};
pub use partner::{Partner, PartnerChange, PartnerFilter, PartnerStatus};

words! {
    /// What an integration is for.
    Category {
        /// Takes payments.
        PaymentGateway = "payment_gateway",
        /// Sends WhatsApp messages.
        Whatsapp = "whatsapp",
        /// Sends e-mail.
        Email = "email",
    }
}

words! {
    /// Whose service an integration uses.
    Provider {
        /// Midtrans, payments.
        Midtrans = "midtrans",
        /// Xendit, payments.
        Xendit = "xendit",
        /// Stripe, payments.
        Stripe = "stripe",
        /// Twilio, WhatsApp.
        Twilio = "twilio",
        /// Wablas, WhatsApp.
        Wablas = "wablas",
        /// Fonnte, WhatsApp.
        Fonnte = "fonnte",
        /// Any mail server.
        Smtp = "smtp",
    }
}

words! {
    /// Whether an integration is for trying.
    Environment {
        /// For trying.
        Sandbox = "sandbox",
        /// For real.
        Production = "production",
    }
}

words! {
    /// What happened to an integration.
    Action {
        /// Its connection was tested.
        Test = "test",
        /// Its provider called the hub, or the hub called one of its webhooks.
        Webhook = "webhook",
        /// A payment or a message of it changed its state.
        Transaction = "transaction",
        /// The hub could not do its part.
        Error = "error",
        /// It was configured.
        ConfigChange = "config_change",
    }
}

words! {
    /// How something ended.
    LogStatus {
        /// Well.
        Success = "success",
        /// Badly.
        Failed = "failed",
        /// Not yet.
        Pending = "pending",
    }
}

/// What an entry counts as, where it is told how an integration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counts {
    /// As a request, when its action is one of requests.
    #[default]
    Request,
    /// As nothing: it says nothing of the integration, such as a webhook's test.
    Aside,
    /// As nothing but a call that proved nothing, which anybody can make.
    Unproved,
}

impl Counts {
    /// What it is counted as beside requests, in the place of the class of its failure.
    pub fn aside(self) -> Option<&'static str> {
        match self {
            Counts::Request => None,
            Counts::Aside => Some("aside"),
            Counts::Unproved => Some("unproved"),
        }
    }
}

/// A partner's account at a provider, as it may be shown: its credentials are masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Integration {
    /// UUID, version 7.
    pub id: Uuid,
    /// Whose it is.
    pub partner_id: Uuid,
    /// Whose service it uses.
    pub provider: Provider,
    /// Unique among the partner's, regardless of case.
    pub name: String,
    /// Sandbox or production.
    pub environment: Environment,
    /// The credentials by name, secrets masked.
    pub masked: Json,
    /// Where the provider is reached, instead of its usual address.
    pub base_url: Option<String>,
    /// Digest of the secret path of its callbacks, in hex; none when the provider proves them itself.
    pub callback_digest: Option<String>,
    /// Whether it is at work.
    pub is_active: bool,
    /// The last test.
    pub last_test: Option<TestRecord>,
    /// Id of the key its credentials are encrypted with.
    pub key_id: String,
    /// Who added it.
    pub created_by: Option<Uuid>,
    /// When it was added.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
}

/// Which integrations of a partner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntegrationFilter {
    /// Only of this category.
    pub category: Option<Category>,
    /// Only of this provider.
    pub provider: Option<Provider>,
    /// Only of this environment.
    pub environment: Option<Environment>,
    /// Only active ones, or only inactive ones.
    pub is_active: Option<bool>,
}

/// An integration to add.
#[derive(Clone, Debug)]
pub struct NewIntegration {
    /// Whose it is.
    pub partner_id: Uuid,
    /// What it is for; the provider's.
    pub category: Category,
    /// Whose service it uses.
    pub provider: Provider,
    /// Unique among the partner's, regardless of case.
    pub name: String,
    /// Sandbox or production.
    pub environment: Environment,
    /// The credentials, as they were given.
    pub credentials: Credentials,
    /// Where the provider is reached, instead of its usual address.
    pub base_url: Option<String>,
    /// Whether it is at work.
    pub is_active: bool,
}

/// What is to change about an integration; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct IntegrationChange {
    /// Its category, which must be what it is.
    pub category: Option<Category>,
    /// Its provider, which must be what it is.
    pub provider: Option<Provider>,
    /// Name.
    pub name: Option<String>,
    /// Sandbox or production.
    pub environment: Option<Environment>,
    /// Credentials by name, masked ones among them.
    pub credentials: Option<Credentials>,
    /// Where the provider is reached; empty is its usual address.
    pub base_url: Option<String>,
    /// Whether it is at work.
    pub is_active: Option<bool>,
}

/// The last test of an integration, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRecord {
    /// When.
    pub at: Instant,
    /// How it ended.
    pub status: LogStatus,
    /// What was said to the administrator.
    pub message: String,
    /// Why it failed.
    pub class: Option<FailureClass>,
    /// Milliseconds it took.
    pub latency: i32,
}

/// Something that happened to an integration, to be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct NewLog {
    /// UUID, version 7.
    pub id: Uuid,
    /// What it happened to.
    pub integration_id: Uuid,
    /// What happened.
    pub action: Action,
    /// How it ended.
    pub status: LogStatus,
    /// For people; holds no secret.
    pub message: String,
    /// What was asked, by an allow-list: no secret.
    pub request: Option<Json>,
    /// What was answered, by an allow-list: no secret.
    pub response: Option<Json>,
    /// Why it failed.
    pub class: Option<FailureClass>,
    /// What else is known of the failure; `class` is written into it.
    pub error: Option<Json>,
    /// Milliseconds it took; `None` when nothing was timed.
    pub duration: Option<i32>,
    /// The address of whoever caused it.
    pub ip: Option<String>,
    /// The user agent of whoever caused it.
    pub user_agent: Option<String>,
    /// Who caused it.
    pub user_id: Option<Uuid>,
    /// The delivery it was a try of.
    pub delivery_id: Option<Uuid>,
    /// What it counts as.
    pub counts: Counts,
    /// When.
    pub at: Instant,
}

impl NewLog {
    /// An entry with nothing but what every entry has.
    pub fn new(
        integration_id: Uuid,
        action: Action,
        status: LogStatus,
        message: impl Into<String>,
        at: Instant,
    ) -> NewLog {
        NewLog {
            id: Uuid::now_v7(),
            integration_id,
            action,
            status,
            message: message.into(),
            request: None,
            response: None,
            class: None,
            error: None,
            duration: None,
            ip: None,
            user_agent: None,
            user_id: None,
            delivery_id: None,
            counts: Counts::Request,
            at,
        }
    }

    /// The entry with whoever caused it.
    pub fn by(self, ctx: &Ctx) -> NewLog {
        let user_agent = Some(ctx.user_agent.to_string()).filter(|agent| !agent.is_empty());
        NewLog { ip: ctx.ip.map(|ip| ip.to_string()), user_agent, user_id: ctx.user_id(), ..self }
    }
}

/// What a kind of failure is called in the distribution of errors.
pub fn failure_label(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Network => "Connection error",
        FailureClass::Tls => "TLS error",
        FailureClass::Timeout => "Timeout error",
        FailureClass::Blocked => "Blocked target",
        FailureClass::Auth => "Authentication failed",
        FailureClass::Permission => "Permission denied",
        FailureClass::Config => "Configuration error",
        FailureClass::RateLimited => "Rate limit exceeded",
        FailureClass::Down => "Provider unavailable",
        FailureClass::Redirect => "Redirect refused",
        FailureClass::Refused => "Request refused",
        FailureClass::Garbage => "Unexpected response",
    }
}
