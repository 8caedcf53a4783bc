//! What the hub says to CreatorUp's questions.

use uuid::Uuid;

use super::user::Profile;
use super::{Instant, Month};

/// A token the hub found good.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The user.
    pub profile: Profile,
    /// Whether they may use CreatorUp.
    pub has_access: bool,
    /// Why, or why not, in the hub's words.
    pub reason: String,
    /// When the token expires; absent when the hub did not say.
    pub expires_at: Option<Instant>,
}

/// Whether a user may use a feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether they may.
    pub has_access: bool,
    /// Why, or why not, in the hub's words.
    pub reason: String,
    /// The feature.
    pub feature: String,
    /// The plan.
    pub plan: Option<String>,
    /// Units a month.
    pub limit: Option<i64>,
    /// Units used.
    pub used: i64,
    /// Units left.
    pub remaining: Option<i64>,
    /// When the subscription ends.
    pub access_until: Option<Instant>,
    /// When it was decided.
    pub as_of: Instant,
}

impl Decision {
    /// Whether a batch that was counted may be processed. That the month's limit is reached is no reason against one
    /// that is within it.
    pub fn lets_process(&self) -> bool {
        self.has_access || self.reason == "limit_reached"
    }
}

/// What the hub made of a batch's usage.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The month it counts in there.
    pub month: Option<Month>,
}

/// What the hub answered to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id there.
    pub event_id: String,
    /// Whether it was received before.
    pub duplicate: bool,
}

/// Who a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's id here.
    pub user_id: Uuid,
    /// The user's id at DigiUp.
    pub digiup_user_id: Uuid,
}
