//! Connection tests: what is asked of a provider, and what its answer means to an administrator. How providers are
//! reached is `delivery`'s.

use std::time::Duration;

use futures::future::BoxFuture;

use super::Instant;
use super::failure::FailureClass;
use super::integration::{Credentials, Environment, Provider};
use super::words::words;

/// The providers.
pub trait Providers: Send + Sync + 'static {
    /// Asks the provider of an account something that changes nothing there. Ends in time, whatever the provider does;
    /// nothing is tried twice.
    fn test<'a>(&'a self, account: &'a Account) -> BoxFuture<'a, Diagnosis>;
}

/// An account at a provider.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose service it is.
    pub provider: Provider,
    /// Sandbox or production.
    pub environment: Environment,
    /// Where the provider is reached, instead of its usual address.
    pub base_url: Option<String>,
    /// What the account proves itself with.
    pub credentials: Credentials,
    /// Now, for what expires.
    pub now: Instant,
}

impl Account {
    /// Where the provider is reached; `None` where there is no usual address and none is given.
    pub fn url(&self) -> Option<&str> {
        self.base_url.as_deref().or_else(|| self.provider.usual_url(self.environment))
    }

    /// The host that is asked, without anything a provider's address may hold beside it.
    pub fn host(&self) -> Option<&str> {
        match self.provider {
            Provider::Smtp => self.credentials.text("host"),
            _ => self.url()?.split("://").nth(1)?.split('/').next(),
        }
    }
}

words! {
    /// The kinds of failure a test ends in.
    FaultCode {
        /// The key is refused.
        AuthFailed = "auth_failed",
        /// The key is good, and may not do what is asked.
        PermissionDenied = "permission_denied",
        /// The account is suspended or has run out; the key is good.
        AccountInactive = "account_inactive",
        /// The telephone behind the account is off; the key is good.
        DeviceDisconnected = "device_disconnected",
        /// There was no whole answer in time.
        Timeout = "timeout",
        /// There is no connection.
        Connection = "connection",
        /// The connection could not be secured.
        Tls = "tls",
        /// The provider wants to be asked less.
        RateLimited = "rate_limited",
        /// The provider has a fault of its own.
        ProviderUnavailable = "provider_unavailable",
        /// Something is configured that cannot be right.
        Configuration = "configuration",
        /// What came is no answer of the provider.
        UnexpectedResponse = "unexpected_response",
        /// The address is one the hub may not call.
        BlockedTarget = "blocked_target",
    }
}

impl FaultCode {
    /// The class of failure it counts as. A device that is off and an account without money are no failures of the key:
    /// the one is a matter of setting things up, the other of what the account may do.
    pub fn class(self) -> FailureClass {
        match self {
            FaultCode::AuthFailed => FailureClass::Auth,
            FaultCode::PermissionDenied | FaultCode::AccountInactive => FailureClass::Permission,
            FaultCode::Configuration | FaultCode::DeviceDisconnected => FailureClass::Config,
            FaultCode::Timeout => FailureClass::Timeout,
            FaultCode::Connection => FailureClass::Network,
            FaultCode::Tls => FailureClass::Tls,
            FaultCode::RateLimited => FailureClass::RateLimited,
            FaultCode::ProviderUnavailable => FailureClass::Down,
            FaultCode::UnexpectedResponse => FailureClass::Garbage,
            FaultCode::BlockedTarget => FailureClass::Blocked,
        }
    }

    /// What it is called to an administrator.
    pub fn label(self) -> &'static str {
        match self {
            FaultCode::AuthFailed => "Authentication failed",
            FaultCode::PermissionDenied => "Permission denied",
            FaultCode::AccountInactive => "Account suspended",
            FaultCode::DeviceDisconnected => "Device disconnected",
            FaultCode::Timeout => "Timeout error",
            FaultCode::Connection => "Connection error",
            FaultCode::Tls => "TLS error",
            FaultCode::RateLimited => "Rate limit exceeded",
            FaultCode::ProviderUnavailable => "Provider unavailable",
            FaultCode::Configuration => "Configuration error",
            FaultCode::UnexpectedResponse => "Unexpected response",
            FaultCode::BlockedTarget => "Blocked target",
        }
    }
}

/// Why a test failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For an administrator: whole sentences that hold no secret and no word of the provider's.
    pub hint: String,
}

impl Fault {
    /// A failure with what to do about it.
    pub fn new(code: FaultCode, hint: impl Into<String>) -> Fault {
        Fault { code, hint: hint.into() }
    }
}

/// What an answer means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is no success; `None` when it is one.
    pub fault: Option<Fault>,
    /// The account as the provider names it.
    pub account: Option<String>,
    /// What is good enough for now.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// The connection works.
    pub fn good() -> Verdict {
        Verdict::default()
    }

    /// The connection works, and something about it should be known.
    pub fn good_but(warning: impl Into<String>) -> Verdict {
        Verdict::good().warn(warning)
    }

    /// The connection does not work.
    pub fn bad(code: FaultCode, hint: impl Into<String>) -> Verdict {
        Verdict::from(Fault::new(code, hint))
    }

    /// Adds a warning.
    pub fn warn(mut self, warning: impl Into<String>) -> Verdict {
        self.warnings.push(warning.into());
        self
    }

    /// Names the account, as far as a name can be shown.
    pub fn of(mut self, account: Option<&str>) -> Verdict {
        const LONGEST: usize = 100;
        let shown = |account: &str| account.chars().filter(|letter| !letter.is_control()).take(LONGEST).collect();
        self.account = account.map(shown).filter(|account: &String| !account.is_empty());
        self
    }
}

impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Verdict {
        Verdict { fault: Some(fault), ..Verdict::default() }
    }
}

/// How a test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What the answer means.
    pub verdict: Verdict,
    /// The provider's HTTP status or SMTP code, if one came.
    pub provider_status: Option<u16>,
    /// How long it took.
    pub latency: Duration,
}

impl Diagnosis {
    /// What is said to the administrator.
    pub fn message(&self, provider: Provider) -> String {
        match &self.verdict.fault {
            None => format!("{} connection successful", provider.spec().name),
            Some(fault) => format!("{}: {}", fault.code.label(), fault.hint),
        }
    }

    /// Whole milliseconds it took.
    pub fn millis(&self) -> i32 {
        i32::try_from(self.latency.as_millis()).unwrap_or(i32::MAX)
    }
}

/// The longest a test may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Of most providers, as a whole.
    pub http: Duration,
    /// Of Wablas and Fonnte, as a whole.
    pub slow_http: Duration,
    /// One step of a mail server.
    pub smtp_step: Duration,
    /// A mail server, as a whole.
    pub smtp: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        let seconds = Duration::from_secs;
        Deadlines { http: seconds(10), slow_http: seconds(15), smtp_step: seconds(10), smtp: seconds(20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::integration::failure_label;

    #[test]
    fn every_kind_of_failure_is_of_a_class_the_contract_names() {
        let named = [
            "auth",
            "permission",
            "config",
            "rate_limited",
            "provider_down",
            "network",
            "tls",
            "timeout",
            "blocked_target",
            "invalid_answer",
        ];
        for code in FaultCode::ALL {
            assert!(named.contains(&code.class().as_str()), "{code:?}");
        }
        // Where a class has one kind only, both are called the same.
        for code in [FaultCode::AuthFailed, FaultCode::Timeout, FaultCode::Tls, FaultCode::UnexpectedResponse] {
            assert_eq!(failure_label(code.class()), code.label());
        }
    }

    #[test]
    fn the_name_of_an_account_is_cut_to_what_can_be_shown() {
        assert_eq!(Verdict::good().of(Some("Contoh\r\nLMS\0")).account.as_deref(), Some("ContohLMS"));
        assert_eq!(Verdict::good().of(Some("\n")).account, None);
        assert_eq!(Verdict::good().of(Some(&"é".repeat(500))).account.map(|name| name.chars().count()), Some(100));
    }
}
