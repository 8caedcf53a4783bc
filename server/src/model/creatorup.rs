//! CreatorUp, as the hub needs it: somebody who is told about users and says so. How they are reached is `delivery`'s.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use uuid::Uuid;

use super::membership::Membership;
use super::user::User;
use super::words::words;
use super::{Instant, Json};

/// The other side.
pub trait CreatorUp: Send + Sync + 'static {
    /// The address to push to: the configured one, or the one a caller names. `None` when that one may not be used.
    fn target(&self, named: Option<&str>) -> Option<Target>;

    /// Hands a user over and waits until CreatorUp confirms. The same push may be made more than once.
    fn push<'a>(&'a self, target: &'a Target, push: &'a Push) -> BoxFuture<'a, Result<Confirmation, Failure>>;

    /// Whether CreatorUp answers at its configured address, and after how long.
    fn probe(&self) -> BoxFuture<'_, Result<Duration, Failure>>;
}

/// An address that may be pushed to, in the one spelling it is compared and kept in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme, host, port and path, without a slash at its end.
    pub url: String,
    /// Whether it is the configured one.
    pub is_configured: bool,
}

/// One user to be told about.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The job that pushes.
    pub job_id: Uuid,
    /// Everything CreatorUp keeps of the user.
    pub snapshot: Snapshot,
}

/// A user as they are at one instant. Whole, so that the newest alone is enough whatever was missed before.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The user's id.
    pub user_id: Uuid,
    /// The user; `None` when they were deleted.
    pub user: Option<User>,
    /// The courses they bought.
    pub courses: Json,
    /// Their subscription that counts, with its plan.
    pub membership: Option<Membership>,
    /// When all of it was read.
    pub as_of: Instant,
}

/// What CreatorUp says when it has a user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confirmation {
    /// The user's id there, if it says one.
    pub creatorup_user_id: Option<String>,
    /// Whatever else it says; an object.
    pub metadata: Json,
}

words! {
    /// What kind of failure a call to CreatorUp ended in.
    FailureClass {
        /// No connection, or a broken one.
        Network = "network",
        /// The certificate is not good, or there is no common TLS.
        Tls = "tls",
        /// No whole answer in time.
        Timeout = "timeout",
        /// The address is one the hub does not call.
        Blocked = "blocked_target",
        /// The key is refused.
        Auth = "auth",
        /// Asked to come back later.
        RateLimited = "rate_limited",
        /// CreatorUp has a fault of its own.
        Down = "provider_down",
        /// Sent somewhere else, which is not followed.
        Redirect = "redirect",
        /// The user is refused.
        Refused = "refused",
        /// The answer cannot be understood.
        Garbage = "invalid_answer",
    }
}

/// Why a call to CreatorUp failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub class: FailureClass,
    /// For people; holds no secret and nothing of an answer's body.
    pub message: String,
    /// When CreatorUp wants to be asked again.
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
