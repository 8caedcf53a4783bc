//! How calls to other servers fail.

use std::fmt;
use std::time::Duration;

use super::words::words;

words! {
    /// What kind of failure a call to another server ended in.
    FailureClass {
        /// No connection, or a broken one.
        Network = "network",
        /// The certificate is not good, or there is no common TLS.
        Tls = "tls",
        /// No whole answer in time.
        Timeout = "timeout",
        /// The address is one that may not be called.
        Blocked = "blocked_target",
        /// The key is refused.
        Auth = "auth",
        /// The key is good, and may not do this.
        Permission = "permission",
        /// What the call was configured with cannot be right.
        Config = "config",
        /// Asked to come back later.
        RateLimited = "rate_limited",
        /// The other side has a fault of its own.
        Down = "provider_down",
        /// Sent somewhere else, which is not followed.
        Redirect = "redirect",
        /// What was sent is refused.
        Refused = "refused",
        /// The answer cannot be understood.
        Garbage = "invalid_answer",
    }
}

/// Why a call to another server failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub class: FailureClass,
    /// For people; holds no secret and nothing of an answer's body.
    pub message: String,
    /// When the other side wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Whether it would fail again however often it is tried.
    pub is_permanent: bool,
}

impl Failure {
    /// A failure that may pass.
    pub fn passing(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure { class, message: message.into(), retry_after: None, is_permanent: false }
    }

    /// A failure that will not.
    pub fn permanent(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure { is_permanent: true, ..Failure::passing(class, message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}
