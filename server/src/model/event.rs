//! What happened and has to reach the other side.

use uuid::Uuid;

pub use super::job::EventStatus;
use super::words::words;
use super::{Instant, JsonText};

words! {
    /// What an event is about. The order is the order of importance: a subscription decides over access.
    EventKind {
        /// A subscription began, changed or ended.
        SubscriptionSync = "subscription_sync",
        /// A user registered or changed.
        UserSync = "user_sync",
        /// Usage was recorded or amended.
        UsageSync = "usage_sync",
    }
}

/// An event to be recorded in the transaction of the write that causes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Whose it is.
    pub user_id: Uuid,
    /// `Pending` when something remains to be done, `Completed` when the write itself was all.
    pub status: EventStatus,
    /// What happened.
    pub payload: JsonText,
    /// When.
    pub at: Instant,
}

impl EventKind {
    /// What an event about it is counted as in a status.
    pub fn label(self, status: EventStatus) -> String {
        format!("{}.{}", self.as_str(), status.as_str())
    }
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// UUID, version 7.
    pub id: Uuid,
    /// `user_sync`, `usage_sync` or `subscription_sync`.
    pub kind: String,
    /// Where it stands.
    pub status: String,
    /// Attempts after the first.
    pub retry_count: i32,
    /// Most attempts after the first.
    pub max_retries: i32,
    /// What went wrong last.
    pub error_message: Option<String>,
    /// When it happened.
    pub created_at: Instant,
    /// When it was done with.
    pub processed_at: Option<Instant>,
}
