//! The providers there are, as data: what each is called, takes, reports, and how its callbacks prove themselves.

use super::{Category, Environment, Provider};

/// What a credential has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A key, which travels in a header.
    Key,
    /// A key of Stripe that is not a publishable one.
    SecretKey,
    /// An account of Twilio.
    AccountSid,
    /// A line of text.
    Line,
    /// A password, which may have spaces.
    Password,
    /// The name or the address of a host.
    Host,
    /// A port.
    Port,
    /// An e-mail address.
    Mailbox,
    /// One of the choices.
    Choice,
}

/// A credential a provider takes.
#[derive(Debug)]
pub struct CredentialSpec {
    /// Its name, such as `serverKey`.
    pub name: &'static str,
    /// Whether an integration needs it.
    pub required: bool,
    /// Whether it is masked when it is shown.
    pub secret: bool,
    /// What it is, for people.
    pub description: &'static str,
    /// What it has to look like.
    pub form: Form,
    /// The values it may have; empty when any.
    pub choices: &'static [&'static str],
}

/// How a provider's callbacks prove themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackProof {
    /// By a signature with a key both sides have.
    Signature,
    /// By a token in a header.
    Token,
    /// Not at all: by a secret in the address they are sent to.
    Path,
}

/// Everything fixed about a provider.
#[derive(Debug)]
pub struct ProviderSpec {
    /// Name for people.
    pub name: &'static str,
    /// What it is for.
    pub category: Category,
    /// The credentials it takes.
    pub credentials: &'static [CredentialSpec],
    /// The events its callbacks become.
    pub events: &'static [&'static str],
    /// Where it is reached in the sandbox, if there is a usual address.
    pub sandbox_url: Option<&'static str>,
    /// Where it is reached in production, if there is a usual address.
    pub production_url: Option<&'static str>,
    /// The domain its addresses are in, unless the operator allows others; none when it has no address of its own.
    pub domain: Option<&'static str>,
    /// How its callbacks prove themselves.
    pub proof: CallbackProof,
}

/// What payments become.
const PAYMENT_EVENTS: &[&str] = &["payment.success", "payment.failed", "payment.pending"];
/// What WhatsApp messages become.
const MESSAGE_EVENTS: &[&str] = &["message.sent", "message.delivered", "message.failed"];
/// What e-mail becomes.
const EMAIL_EVENTS: &[&str] = &["email.sent", "email.delivered", "email.bounced"];

const fn secret(name: &'static str, description: &'static str) -> CredentialSpec {
    CredentialSpec { name, required: true, secret: true, description, form: Form::Key, choices: &[] }
}

const fn plain(name: &'static str, description: &'static str) -> CredentialSpec {
    CredentialSpec { secret: false, ..formed(Form::Line, secret(name, description)) }
}

const fn formed(form: Form, spec: CredentialSpec) -> CredentialSpec {
    CredentialSpec { form, ..spec }
}

const fn optional(spec: CredentialSpec) -> CredentialSpec {
    CredentialSpec { required: false, ..spec }
}

static MIDTRANS: ProviderSpec = ProviderSpec {
    name: "Midtrans",
    category: Category::PaymentGateway,
    credentials: &[
        secret("serverKey", "Server key of the environment"),
        optional(secret("signatureKey", "Key that signs notifications; the server key when absent")),
    ],
    events: PAYMENT_EVENTS,
    sandbox_url: Some("https://api.sandbox.midtrans.com"),
    production_url: Some("https://api.midtrans.com"),
    domain: Some("midtrans.com"),
    proof: CallbackProof::Signature,
};

static XENDIT: ProviderSpec = ProviderSpec {
    name: "Xendit",
    category: Category::PaymentGateway,
    credentials: &[
        secret("secretKey", "Secret API key"),
        optional(secret("callbackToken", "Verification token of callbacks; without it none is taken")),
    ],
    events: PAYMENT_EVENTS,
    sandbox_url: Some("https://api.xendit.co"),
    production_url: Some("https://api.xendit.co"),
    domain: Some("xendit.co"),
    proof: CallbackProof::Token,
};

static STRIPE: ProviderSpec = ProviderSpec {
    name: "Stripe",
    category: Category::PaymentGateway,
    credentials: &[
        formed(Form::SecretKey, secret("secretKey", "Secret or restricted key")),
        optional(secret("webhookSecret", "Signing secret of the endpoint (whsec_…); without it no callback is taken")),
    ],
    events: PAYMENT_EVENTS,
    sandbox_url: Some("https://api.stripe.com"),
    production_url: Some("https://api.stripe.com"),
    domain: Some("stripe.com"),
    proof: CallbackProof::Signature,
};

static TWILIO: ProviderSpec = ProviderSpec {
    name: "Twilio",
    category: Category::Whatsapp,
    credentials: &[
        formed(Form::AccountSid, plain("accountSid", "Account SID (AC…)")),
        secret("authToken", "Primary auth token"),
    ],
    events: MESSAGE_EVENTS,
    sandbox_url: Some("https://api.twilio.com"),
    production_url: Some("https://api.twilio.com"),
    domain: Some("twilio.com"),
    proof: CallbackProof::Signature,
};

static WABLAS: ProviderSpec = ProviderSpec {
    name: "Wablas",
    category: Category::Whatsapp,
    credentials: &[
        secret("token", "Token of the device"),
        optional(secret("secretKey", "Secret key of newer accounts")),
    ],
    events: MESSAGE_EVENTS,
    // An account is on one of many servers.
    sandbox_url: None,
    production_url: None,
    domain: Some("wablas.com"),
    proof: CallbackProof::Path,
};

static FONNTE: ProviderSpec = ProviderSpec {
    name: "Fonnte",
    category: Category::Whatsapp,
    credentials: &[secret("token", "Token of the device, not of the account")],
    events: MESSAGE_EVENTS,
    sandbox_url: Some("https://api.fonnte.com"),
    production_url: Some("https://api.fonnte.com"),
    domain: Some("fonnte.com"),
    proof: CallbackProof::Path,
};

static SMTP: ProviderSpec = ProviderSpec {
    name: "SMTP",
    category: Category::Email,
    credentials: &[
        formed(Form::Host, plain("host", "Name of the mail server")),
        formed(Form::Port, plain("port", "Port: 587 with STARTTLS, 465 with TLS")),
        plain("username", "User, mostly a whole address"),
        formed(Form::Password, secret("password", "Password, of an app where the account has two factors")),
        formed(Form::Mailbox, plain("from", "Address mail is sent from")),
        CredentialSpec {
            choices: &["none", "starttls", "tls"],
            ..formed(Form::Choice, plain("security", "How the connection is secured"))
        },
    ],
    events: EMAIL_EVENTS,
    sandbox_url: None,
    production_url: None,
    domain: None,
    proof: CallbackProof::Path,
};

impl Provider {
    /// Everything fixed about it.
    pub fn spec(self) -> &'static ProviderSpec {
        match self {
            Provider::Midtrans => &MIDTRANS,
            Provider::Xendit => &XENDIT,
            Provider::Stripe => &STRIPE,
            Provider::Twilio => &TWILIO,
            Provider::Wablas => &WABLAS,
            Provider::Fonnte => &FONNTE,
            Provider::Smtp => &SMTP,
        }
    }

    /// Its usual address in an environment.
    pub fn usual_url(self, environment: Environment) -> Option<&'static str> {
        match environment {
            Environment::Sandbox => self.spec().sandbox_url,
            Environment::Production => self.spec().production_url,
        }
    }
}
