//! CreatorUp, as the hub needs it: somebody who is told about users and says so. How they are reached is `delivery`'s.

use std::time::Duration;

use futures::future::BoxFuture;
use uuid::Uuid;

pub use super::failure::{Failure, FailureClass};
use super::membership::Membership;
use super::user::User;
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
