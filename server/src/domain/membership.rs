//! Plans, subscriptions, and the views of the one access decision.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::Hub;
use super::user_sync::change::{Change, Line};
use super::user_sync::sweep;
use crate::model::membership::{
    Access, AccessReason, Membership, Plan, PlanChange, PlanFeature, Question, Subscription, SubscriptionStatus, Tier,
    decide, standing,
};
use crate::model::usage::MonthlyUsage;
use crate::model::user::{User, UserStatus};
use crate::model::{Ctx, Error, Instant, Month, Result};
use crate::storage::{self, WriteTx, audit};

/// Subscriptions that one sweep marks as expired at most.
const SWEEP: u64 = 500;

/// Everything that decides over a user's access, read at one instant.
pub struct Entitlements {
    /// The user.
    pub user: Arc<User>,
    /// The membership, whatever its status.
    pub membership: Option<Arc<Membership>>,
    /// The month's usage.
    pub usage: Arc<MonthlyUsage>,
    /// The current month.
    pub month: Month,
    /// The instant.
    pub as_of: Instant,
}

impl Entitlements {
    /// Whether the membership alone gives access.
    pub fn standing(&self) -> AccessReason {
        standing(self.user.status == UserStatus::Active, self.membership.as_deref(), self.as_of)
    }

    /// The decision for one feature.
    pub fn access(&self, feature: &str, amount: i64, feature_known: bool) -> Access {
        let decision = decide(&Question {
            feature,
            amount,
            feature_known,
            user_active: self.user.status == UserStatus::Active,
            membership: self.membership.as_deref(),
            used: self.usage.used(feature),
            now: self.as_of,
        });
        Access { feature: feature.to_owned(), decision, month: self.month, as_of: self.as_of }
    }

    /// The decision for each feature of the plan, by name.
    pub fn features(&self) -> Vec<Access> {
        let features = self.membership.iter().flat_map(|membership| &membership.plan.features);
        let mut all: Vec<Access> = features.map(|feature| self.access(&feature.feature, 1, true)).collect();
        all.sort_by(|one, other| one.feature.cmp(&other.feature));
        all
    }
}

impl Hub {
    /// Plans by id, those that can be chosen or all.
    pub async fn list_plans(&self, retired_too: bool) -> Result<Vec<Plan>> {
        Ok(self.plans().await?.iter().filter(|plan| plan.is_active || retired_too).cloned().collect())
    }

    /// The plan a caller means, by number or by name in any case.
    pub(super) async fn named_plan(&self, id: Option<i32>, name: Option<&str>) -> Result<Plan> {
        let name = name.map(str::to_lowercase);
        if id.is_none() && name.is_none() {
            return Err(Error::invalid("plan_id", "is required"));
        }
        let plans = self.plans().await?;
        let chosen = plans.iter().find(|plan| {
            id.is_none_or(|id| plan.id == id) && name.as_ref().is_none_or(|name| plan.name.to_lowercase() == *name)
        });
        chosen.cloned().ok_or(Error::NotFound { what: "plan" })
    }

    /// What decides over a user's access, read now.
    pub async fn entitlements(&self, user_id: Uuid) -> Result<Entitlements> {
        let as_of = self.now();
        let month = Month::of(as_of);
        Ok(Entitlements {
            user: self.user(user_id).await?,
            membership: self.membership(user_id).await?,
            usage: self.monthly(user_id, month).await?,
            month,
            as_of,
        })
    }

    /// Whether a user may use `amount` units of a feature now.
    pub async fn check_feature_access(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        feature: &str,
        amount: i64,
    ) -> Result<Access> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        let entitlements = self.entitlements(user_id).await?;
        self.note_access(user_id).await;
        let known = self.plans().await?.iter().any(|plan| plan.feature(feature).is_some());
        Ok(entitlements.access(feature, amount, known))
    }

    /// The newest subscription of a user with its plan, whatever its status.
    pub async fn get_subscription(&self, ctx: &Ctx, subject: Option<Uuid>) -> Result<Arc<Membership>> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        self.user(user_id).await?;
        self.membership(user_id).await?.ok_or(Error::NotFound { what: "subscription" })
    }

    /// Subscribes the caller; says whether they held the plan already.
    pub async fn subscribe(&self, ctx: &Ctx, id: Option<i32>, name: Option<&str>) -> Result<(Membership, bool)> {
        let user_id = ctx.signed_in()?.user.id;
        let plan = self.named_plan(id, name).await?;
        let input = (user_id, plan.clone(), self.now(), self.line(), self.forgetting(user_id));
        let (subscription, already) = self
            .store
            .write(input, |tx, (user_id, plan, now, line, forget)| {
                Box::pin(async move {
                    // Two calls of one user, or of one user on two hubs, must see each other.
                    storage::user::hold(tx, &[*user_id]).await?;
                    let held = storage::subscription::current(tx.reader(), &[*user_id]).await?.remove(user_id);
                    let held = held.filter(|held| held.status == SubscriptionStatus::Active);
                    let result = replace(tx, *line, held, *user_id, plan, *now).await?;
                    tx.after_commit(forget.clone().into_effect());
                    Ok(result)
                })
            })
            .await?;
        Ok((Membership { subscription, plan }, already))
    }

    /// Cancels the caller's subscription, at the end of its period or now.
    pub async fn cancel_subscription(&self, ctx: &Ctx, immediately: bool) -> Result<Membership> {
        let user_id = ctx.signed_in()?.user.id;
        let plans = self.plans().await?;
        let input = (user_id, immediately, self.now(), self.line(), self.forgetting(user_id));
        let subscription = self
            .store
            .write(input, |tx, (user_id, immediately, now, line, forget)| {
                Box::pin(async move {
                    storage::user::hold(tx, &[*user_id]).await?;
                    let held = storage::subscription::current(tx.reader(), &[*user_id]).await?.remove(user_id);
                    let held = held.ok_or(Error::NotFound { what: "subscription" })?;
                    let mut changed = held.clone();
                    match held.status_at(*now) {
                        SubscriptionStatus::Active if *immediately => {
                            changed.status = SubscriptionStatus::Canceled;
                            changed.end_date = *now;
                        }
                        SubscriptionStatus::Active => changed.cancel_at_period_end = true,
                        // Cancelling again changes nothing; the answer is the subscription as it is.
                        SubscriptionStatus::Canceled => {}
                        SubscriptionStatus::Expired | SubscriptionStatus::Replaced => {
                            return Err(Error::NotFound { what: "active subscription" });
                        }
                    }
                    if changed != held {
                        changed = changed.decided(*now);
                        storage::subscription::update(tx, &changed).await?;
                        line.tell(tx, Change::of_subscription(&changed, "canceled")).await?;
                        tx.after_commit(forget.clone().into_effect());
                    }
                    Ok(changed)
                })
            })
            .await?;
        let plan = plans.iter().find(|plan| plan.id == subscription.plan_id).cloned();
        Ok(Membership { subscription, plan: plan.ok_or_else(|| Error::internal("a subscription has no plan"))? })
    }

    /// Marks subscriptions that ran past their end, tells the other side, and says how many. Access does not wait
    /// for it: a subscription past its end gives none whether it is marked or not.
    pub async fn expire_subscriptions(&self) -> Result<usize> {
        let now = self.now();
        if storage::subscription::list_due(self.store.read(), now, 1).await?.is_empty() {
            return Ok(0);
        }
        self.store
            .write((now, self.line(), self.caches.clone()), |tx, (now, line, caches)| {
                Box::pin(async move {
                    let due = storage::subscription::list_due(tx.reader(), *now, SWEEP).await?;
                    let users: Vec<Uuid> = due.iter().map(|subscription| subscription.user_id).collect();
                    storage::user::hold(tx, &users).await?;
                    let mut expired_now = 0;
                    for subscription in &due {
                        if !storage::subscription::expire(tx, subscription.id, *now).await? {
                            continue;
                        }
                        expired_now += 1;
                        let expired = Subscription {
                            status: SubscriptionStatus::Expired,
                            updated_at: *now,
                            ..subscription.clone()
                        };
                        line.tell(tx, Change::of_subscription(&expired, "expired")).await?;
                        let (caches, user_id) = (caches.clone(), subscription.user_id);
                        tx.after_commit(move || {
                            caches.users.forget(&user_id);
                            caches.memberships.forget(&user_id);
                        });
                    }
                    Ok(expired_now)
                })
            })
            .await
    }

    /// Makes a plan.
    pub async fn create_plan(&self, ctx: &Ctx, change: PlanChange) -> Result<Plan> {
        let now = self.now();
        let plan = Plan {
            id: 0,
            name: change.name.unwrap_or_default(),
            tier: change.tier.unwrap_or(Tier::Membership),
            price: change.price.unwrap_or_default(),
            currency: change.currency.unwrap_or_else(|| "IDR".to_owned()),
            features: change.features.unwrap_or_default(),
            is_active: true,
            created_at: now,
            updated_at: now,
        };
        self.write_plan(ctx, "plan.created", move |_| Ok(plan.clone())).await
    }

    /// Changes parts of a plan.
    pub async fn update_plan(&self, ctx: &Ctx, id: i32, change: PlanChange) -> Result<Plan> {
        let now = self.now();
        self.write_plan(ctx, "plan.updated", move |plans| {
            let plan = plans.iter().find(|plan| plan.id == id).cloned().ok_or(Error::NotFound { what: "plan" })?;
            Ok(Plan {
                name: change.name.clone().unwrap_or(plan.name),
                tier: change.tier.unwrap_or(plan.tier),
                price: change.price.unwrap_or(plan.price),
                currency: change.currency.clone().unwrap_or(plan.currency),
                features: change.features.clone().unwrap_or(plan.features),
                is_active: change.is_active.unwrap_or(plan.is_active),
                updated_at: now,
                ..plan
            })
        })
        .await
    }

    /// Retires a plan.
    pub async fn retire_plan(&self, ctx: &Ctx, id: i32) -> Result<Plan> {
        self.update_plan(ctx, id, PlanChange { is_active: Some(false), ..PlanChange::default() }).await
    }

    async fn write_plan<F>(&self, ctx: &Ctx, action: &'static str, make: F) -> Result<Plan>
    where
        F: Fn(&[Plan]) -> Result<Plan> + Send + Sync + 'static,
    {
        let input = (ctx.clone(), make, self.now(), self.line(), self.caches.clone());
        self.store
            .write(input, move |tx, (ctx, make, now, line, caches)| {
                Box::pin(async move {
                    let plans = storage::plan::list(tx.reader()).await?;
                    let mut plan = make(&plans)?;
                    check_features(&plan.features)?;
                    let name = plan.name.to_lowercase();
                    if plans.iter().any(|other| other.id != plan.id && other.name.to_lowercase() == name) {
                        return Err(Error::Taken { field: "name" });
                    }
                    if plan.id == 0 {
                        plan.id = storage::plan::insert(tx, &plan).await?;
                    } else {
                        storage::plan::update(tx, &plan).await?;
                        if line.is_connected {
                            tx.enqueue(sweep::of_plan(&plan, *now));
                        }
                    }
                    let changes = json!({ "name": plan.name, "price": plan.price, "currency": plan.currency, "is_active": plan.is_active });
                    let entry = audit::Entry { action, target_kind: "plan", target_id: plan.id.to_string(), changes };
                    audit::insert(tx, ctx, entry, *now).await?;
                    let caches = caches.clone();
                    tx.after_commit(move || {
                        caches.plans.forget_all();
                        caches.memberships.forget_all();
                    });
                    Ok(plan)
                })
            })
            .await
    }
}

fn check_features(features: &[PlanFeature]) -> Result<()> {
    for (index, feature) in features.iter().enumerate() {
        if features[..index].iter().any(|earlier| earlier.feature == feature.feature) {
            return Err(Error::invalid(format!("features[{index}].feature"), "must be named once"));
        }
    }
    Ok(())
}

/// A retired plan cannot be chosen.
pub(super) fn choosable(plan: &Plan) -> Result<()> {
    if plan.is_active { Ok(()) } else { Err(Error::State { message: "the plan is retired" }) }
}

/// Puts a subscription to `plan` in the place of the one held; says whether it was held already. A retired plan can
/// be kept and not chosen.
async fn replace(
    tx: &mut WriteTx,
    line: Line,
    held: Option<Subscription>,
    user_id: Uuid,
    plan: &Plan,
    now: Instant,
) -> Result<(Subscription, bool)> {
    if let Some(held) = held {
        let running = held.status_at(now) == SubscriptionStatus::Active;
        if running && held.plan_id == plan.id {
            if !held.cancel_at_period_end {
                return Ok((held, true));
            }
            let resumed = Subscription { cancel_at_period_end: false, ..held }.decided(now);
            storage::subscription::update(tx, &resumed).await?;
            line.tell(tx, Change::of_subscription(&resumed, "resumed")).await?;
            return Ok((resumed, true));
        }
        choosable(plan)?;
        let ended = match running {
            true => Subscription { status: SubscriptionStatus::Replaced, end_date: now, updated_at: now, ..held },
            false => Subscription { status: SubscriptionStatus::Expired, updated_at: now, ..held },
        };
        storage::subscription::update(tx, &ended).await?;
    }
    choosable(plan)?;
    let new = Subscription::starting(now, user_id, plan.id);
    storage::subscription::insert(tx, &new).await?;
    line.tell(tx, Change::of_subscription(&new, "subscribed")).await?;
    Ok((new, false))
}
