//! Plans, subscriptions, and the one decision whether a member may use a feature.

use chrono::Months;
use uuid::Uuid;

use super::words::words;
use super::{Instant, Month};

words! {
    /// Tiers that revenue and commissions are counted by; not the roles of users, though two words are the same.
    Tier {
        /// Ordinary membership.
        Membership = "membership",
        /// Reseller.
        Reseller = "reseller",
        /// Reseller of the higher tier.
        ProReseller = "pro_reseller",
    }
}

words! {
    /// Where a subscription stands.
    SubscriptionStatus {
        /// Gives access until its end date.
        Active = "active",
        /// Was ended before its end date.
        Canceled = "canceled",
        /// Ran past its end date.
        Expired = "expired",
        /// Gave way to another plan.
        Replaced = "replaced",
    }
}

words! {
    /// Who last decided over a subscription.
    SubscriptionSource {
        /// The member or an administrator, here.
        Digiup = "digiup",
        /// CreatorUp, by webhook.
        Creatorup = "creatorup",
    }
}

words! {
    /// Why access is given or denied.
    AccessReason {
        /// Included, and the limit is not reached.
        Granted = "granted",
        /// No plan has such a feature.
        FeatureUnknown = "feature_unknown",
        /// The plan does not include it.
        NotInPlan = "not_in_plan",
        /// There is no subscription.
        NoSubscription = "no_subscription",
        /// The subscription ran out.
        SubscriptionExpired = "subscription_expired",
        /// The subscription was ended.
        SubscriptionCanceled = "subscription_canceled",
        /// The month's limit would be exceeded.
        LimitReached = "limit_reached",
        /// The user is inactive.
        UserInactive = "user_inactive",
    }
}

/// One feature of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFeature {
    /// Its name, which is the usage type it limits.
    pub feature: String,
    /// Units per calendar month; absent means unlimited.
    pub monthly_limit: Option<i64>,
}

/// What a membership costs and includes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its number.
    pub id: i32,
    /// Unique name.
    pub name: String,
    /// Its tier.
    pub tier: Tier,
    /// Price per month in the currency's smallest unit in use.
    pub price: i32,
    /// ISO 4217 code.
    pub currency: String,
    /// What it includes.
    pub features: Vec<PlanFeature>,
    /// False when retired.
    pub is_active: bool,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
}

impl Plan {
    /// The feature of that name.
    pub fn feature(&self, name: &str) -> Option<&PlanFeature> {
        self.features.iter().find(|feature| feature.feature == name)
    }
}

/// A plan to make, or the parts of one to change.
#[derive(Clone, Debug, Default)]
pub struct PlanChange {
    /// Unique name.
    pub name: Option<String>,
    /// Tier.
    pub tier: Option<Tier>,
    /// Price per month.
    pub price: Option<i32>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// What it includes.
    pub features: Option<Vec<PlanFeature>>,
    /// False to retire it.
    pub is_active: Option<bool>,
}

/// A user's membership.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// UUID, version 7.
    pub id: Uuid,
    /// The subscriber.
    pub user_id: Uuid,
    /// The plan.
    pub plan_id: i32,
    /// As stored; [`Subscription::status_at`] says where it stands at an instant.
    pub status: SubscriptionStatus,
    /// When it began.
    pub start_date: Instant,
    /// When access ends: `[start_date, end_date)`.
    pub end_date: Instant,
    /// Cancelled, and running until `end_date`.
    pub cancel_at_period_end: bool,
    /// Who last decided.
    pub source: SubscriptionSource,
    /// When that was decided, where it was: what happened before changes nothing any more.
    pub changed_at: Instant,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
}

impl Subscription {
    /// Whether another gives the same access under the same terms, whoever decided so and when.
    pub fn says_as(&self, other: &Subscription) -> bool {
        let terms = |one: &Subscription| (one.id, one.plan_id, one.status, one.end_date, one.cancel_at_period_end);
        terms(self) == terms(other)
    }

    /// A subscription of one month from `now`. A month that is shorter ends on its last day.
    pub fn starting(now: Instant, user_id: Uuid, plan_id: i32) -> Subscription {
        Subscription {
            id: Uuid::now_v7(),
            user_id,
            plan_id,
            status: SubscriptionStatus::Active,
            start_date: now,
            end_date: now + Months::new(1),
            cancel_at_period_end: false,
            source: SubscriptionSource::Digiup,
            changed_at: now,
            created_at: now,
            updated_at: now,
        }
    }

    /// The same, decided anew here at `now`.
    pub fn decided(self, now: Instant) -> Subscription {
        Subscription { source: SubscriptionSource::Digiup, changed_at: now, updated_at: now, ..self }
    }

    /// Where it stands at an instant: one that is active and past its end has expired, swept or not.
    pub fn status_at(&self, now: Instant) -> SubscriptionStatus {
        match self.status {
            SubscriptionStatus::Active if self.end_date <= now => SubscriptionStatus::Expired,
            status => status,
        }
    }
}

/// A subscription with its plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The user's active subscription, or else the newest.
    pub subscription: Subscription,
    /// Its plan.
    pub plan: Plan,
}

/// The question of access.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The feature.
    pub feature: &'a str,
    /// Units about to be used.
    pub amount: i64,
    /// Whether any plan has the feature.
    pub feature_known: bool,
    /// Whether the user is active.
    pub user_active: bool,
    /// The user's membership, whatever its status.
    pub membership: Option<&'a Membership>,
    /// Units already used in the month the answer is for.
    pub used: i64,
    /// The instant to decide at.
    pub now: Instant,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why, or why not.
    pub reason: AccessReason,
    /// The plan's name, also when it gives no access.
    pub plan: Option<String>,
    /// Units per month; absent when unlimited or not included.
    pub limit: Option<i64>,
    /// Units used.
    pub used: i64,
    /// When the subscription ends.
    pub access_until: Option<Instant>,
}

impl Decision {
    /// Whether access is given.
    pub fn has_access(&self) -> bool {
        self.reason == AccessReason::Granted
    }

    /// What is left of the limit, never negative.
    pub fn remaining(&self) -> Option<i64> {
        self.limit.map(|limit| (limit - self.used).max(0))
    }
}

/// Whether the membership alone, without any feature, gives access.
pub fn standing(user_active: bool, membership: Option<&Membership>, now: Instant) -> AccessReason {
    if !user_active {
        return AccessReason::UserInactive;
    }
    match membership.map(|membership| membership.subscription.status_at(now)) {
        None => AccessReason::NoSubscription,
        Some(SubscriptionStatus::Active) => AccessReason::Granted,
        Some(SubscriptionStatus::Expired) => AccessReason::SubscriptionExpired,
        Some(SubscriptionStatus::Canceled | SubscriptionStatus::Replaced) => AccessReason::SubscriptionCanceled,
    }
}

/// The one decision over access; every view of it, and the ledger's quota, is this function.
pub fn decide(question: &Question<'_>) -> Decision {
    let Question { feature, amount, feature_known, user_active, membership, used, now } = *question;
    let included = membership.and_then(|membership| membership.plan.feature(feature));
    let limit = included.and_then(|feature| feature.monthly_limit);
    let reason = match standing(user_active, membership, now) {
        AccessReason::UserInactive => AccessReason::UserInactive,
        _ if !feature_known => AccessReason::FeatureUnknown,
        AccessReason::Granted if included.is_none() => AccessReason::NotInPlan,
        AccessReason::Granted if limit.is_some_and(|limit| used.saturating_add(amount) > limit) => {
            AccessReason::LimitReached
        }
        reason => reason,
    };
    Decision {
        reason,
        plan: membership.map(|membership| membership.plan.name.clone()),
        limit,
        used,
        access_until: membership.map(|membership| membership.subscription.end_date),
    }
}

/// A decision with the month it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The feature asked about.
    pub feature: String,
    /// The decision.
    pub decision: Decision,
    /// The month whose usage counts.
    pub month: Month,
    /// The instant it was taken at.
    pub as_of: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone, Utc};

    fn membership(limit: Option<i64>) -> Membership {
        let now = Utc.with_ymd_and_hms(2024, 1, 31, 12, 0, 0).unwrap();
        Membership {
            subscription: Subscription::starting(now, Uuid::nil(), 1),
            plan: Plan {
                id: 1,
                name: "Pro".into(),
                tier: Tier::Reseller,
                price: 1,
                currency: "IDR".into(),
                features: vec![PlanFeature { feature: "local_rendering".into(), monthly_limit: limit }],
                is_active: true,
                created_at: now,
                updated_at: now,
            },
        }
    }

    fn ask(membership: Option<&Membership>, feature: &str, used: i64, days: i64) -> AccessReason {
        let now = Utc.with_ymd_and_hms(2024, 1, 31, 12, 0, 0).unwrap() + TimeDelta::days(days);
        let feature_known = feature != "nonsense";
        decide(&Question { feature, amount: 1, feature_known, user_active: true, membership, used, now }).reason
    }

    #[test]
    fn the_limit_is_reached_and_never_passed() {
        let limited = membership(Some(100));
        assert_eq!(ask(Some(&limited), "local_rendering", 99, 0), AccessReason::Granted);
        assert_eq!(ask(Some(&limited), "local_rendering", 100, 0), AccessReason::LimitReached);
        assert_eq!(ask(Some(&membership(None)), "local_rendering", i64::MAX, 0), AccessReason::Granted);
        assert_eq!(ask(Some(&membership(Some(0))), "local_rendering", 0, 0), AccessReason::LimitReached);
    }

    #[test]
    fn every_denial_says_why() {
        let mut held = membership(None);
        assert_eq!(ask(None, "local_rendering", 0, 0), AccessReason::NoSubscription);
        assert_eq!(ask(Some(&held), "cloud_rendering", 0, 0), AccessReason::NotInPlan);
        assert_eq!(ask(Some(&held), "nonsense", 0, 0), AccessReason::FeatureUnknown);
        assert_eq!(ask(Some(&held), "local_rendering", 0, 40), AccessReason::SubscriptionExpired);
        held.subscription.status = SubscriptionStatus::Canceled;
        assert_eq!(ask(Some(&held), "local_rendering", 0, 0), AccessReason::SubscriptionCanceled);
    }

    #[test]
    fn a_subscription_of_the_31st_ends_on_the_last_day_of_a_short_month() {
        assert_eq!(membership(None).subscription.end_date.to_rfc3339(), "2024-02-29T12:00:00+00:00");
    }

    #[test]
    fn a_period_does_not_contain_its_end() {
        let held = membership(None);
        let end = held.subscription.end_date;
        assert_eq!(held.subscription.status_at(end - TimeDelta::microseconds(1)), SubscriptionStatus::Active);
        assert_eq!(held.subscription.status_at(end), SubscriptionStatus::Expired);
    }
}
