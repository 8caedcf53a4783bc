//! The usage ledger: records, amendments, quota and sums, decided and written as sets.
//!
//! Reports of all callers that arrive together become one set in one transaction: their users' rows are held, the
//! records they could be about are read, the model decides, and a few multi-row statements write records, sums and
//! events. Reports of one set that could be about the same batch are taken in rounds, so that the second sees what
//! the first did.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::{Caches, Hub};
use crate::model::event::{EventKind, EventStatus, NewEvent};
use crate::model::membership::{Decision, Membership, Question, decide};
use crate::model::page::{Page, Paged};
use crate::model::usage::{MonthlyUsage, Outcome, Record, Recorded, Report, UsageFilter, amend, identify};
use crate::model::{Ctx, Error, Instant, Month, Reason, Result};
use crate::storage::usage::SumKey;
use crate::storage::user::Holder;
use crate::storage::{self, Batch, WriteTx};

impl Hub {
    /// Records one report.
    pub async fn record_usage(&self, report: Report) -> Result<Recorded> {
        let mut recorded = self.usage.submit(vec![report]).await?;
        recorded.pop().unwrap_or_else(|| Err(Error::internal("a report has no answer")))
    }

    /// Records reports together and answers each, in their order.
    pub async fn record_many(&self, reports: Vec<Report>) -> Result<Vec<Result<Recorded>>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        match self.usage.submit(reports.clone()).await {
            // One report the database refuses spoils the transaction of all; by itself it fails alone.
            Err(Error::Internal { .. }) if reports.len() > 1 => {
                let mut answers = Vec::with_capacity(reports.len());
                for report in reports {
                    answers.push(self.record_usage(report).await);
                }
                Ok(answers)
            }
            answers => answers,
        }
    }

    /// A month's sums of a user.
    pub async fn get_monthly_usage(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        month: Option<Month>,
    ) -> Result<Arc<MonthlyUsage>> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        self.user(user_id).await?;
        self.monthly(user_id, month.unwrap_or_else(|| Month::of(self.now()))).await
    }

    /// A page of a user's records, newest first.
    pub async fn list_usage(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        filter: &UsageFilter,
        page: &Page,
    ) -> Result<Paged<Record>> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        self.user(user_id).await?;
        let records = storage::usage::list(self.store.read(), user_id, filter, page).await?;
        Ok(page.cut(records, |record| record.id))
    }

    /// Makes every monthly sum anew from the ledger, and says how many there are.
    pub async fn rebuild_sums(&self) -> Result<u64> {
        self.store
            .write((self.now(), self.caches.clone()), |tx, (now, caches)| {
                Box::pin(async move {
                    let sums = storage::usage::rebuild_sums(tx, *now).await?;
                    let caches = caches.clone();
                    tx.after_commit(move || caches.usage.forget_all());
                    Ok(sums)
                })
            })
            .await
    }
}

/// The lane of usage reports. An item is what one call brought: one report, or one message of a stream.
pub struct UsageBatch {
    pub(super) caches: Arc<Caches>,
}

impl Batch for UsageBatch {
    type Item = Vec<Report>;
    type Answer = Vec<Result<Recorded>>;

    fn weight(item: &Vec<Report>) -> usize {
        item.len()
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Vec<Report>],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>>> {
        Box::pin(async move {
            let reports: Vec<&Report> = items.iter().flat_map(|item| item.iter()).collect();
            let mut set = Set::read(tx, &reports).await?;
            let mut answers: Vec<Option<Result<Recorded>>> = reports.iter().map(|_| None).collect();
            let mut waiting: Vec<usize> = (0..reports.len()).collect();
            while !waiting.is_empty() {
                waiting = set.round(tx, &reports, waiting, &mut answers).await?;
            }
            set.finish(tx, items, &answers, &self.caches).await?;
            let mut answers = answers
                .into_iter()
                .map(|answer| answer.unwrap_or_else(|| Err(Error::internal("a report was left out"))));
            Ok(items.iter().map(|item| Ok(answers.by_ref().take(item.len()).collect())).collect())
        })
    }
}

/// What a set of reports is decided by, and what it changes.
struct Set {
    holders: HashMap<Uuid, Holder>,
    memberships: HashMap<Uuid, Membership>,
    features: HashSet<String>,
    /// Units by user, month and usage type: what was stored, once `loaded`, and what this set adds.
    used: HashMap<(Uuid, Month, String), i64>,
    loaded: HashSet<(Uuid, Month)>,
    deltas: BTreeMap<SumKey, (i64, i64)>,
}

impl Set {
    async fn read(tx: &WriteTx, reports: &[&Report]) -> Result<Set> {
        let users: Vec<Uuid> =
            reports.iter().map(|report| report.user_id).collect::<HashSet<_>>().into_iter().collect();
        let holders = storage::user::hold(tx, &users).await?;
        let plans = storage::plan::list(tx.reader()).await?;
        let mut memberships = HashMap::with_capacity(users.len());
        for (user_id, subscription) in storage::subscription::current(tx.reader(), &users).await? {
            if let Some(plan) = plans.iter().find(|plan| plan.id == subscription.plan_id) {
                memberships.insert(user_id, Membership { subscription, plan: plan.clone() });
            }
        }
        let features =
            plans.iter().flat_map(|plan| plan.features.iter().map(|feature| feature.feature.clone())).collect();
        Ok(Set {
            holders,
            memberships,
            features,
            used: HashMap::new(),
            loaded: HashSet::new(),
            deltas: BTreeMap::new(),
        })
    }

    /// Decides the reports that no other report of the round could be about, and returns the rest.
    async fn round(
        &mut self,
        tx: &mut WriteTx,
        reports: &[&Report],
        waiting: Vec<usize>,
        answers: &mut [Option<Result<Recorded>>],
    ) -> Result<Vec<usize>> {
        let mut names: HashSet<(Uuid, &str)> = HashSet::new();
        let mut keys: HashSet<(Uuid, &str)> = HashSet::new();
        let (mut round, mut later) = (Vec::with_capacity(waiting.len()), Vec::new());
        for at in waiting {
            let report = reports[at];
            let new_name = names.insert((report.user_id, &report.batch_name));
            let new_key = report.key.as_deref().is_none_or(|key| keys.insert((report.user_id, key)));
            if new_name && new_key { round.push(at) } else { later.push(at) }
        }
        let chosen: Vec<&Report> = round.iter().map(|at| reports[*at]).collect();
        let candidates = storage::usage::candidates(tx, &chosen).await?;
        self.load_used(tx, &chosen, &candidates).await?;
        let mut new = Vec::with_capacity(chosen.len());
        for ((at, report), candidates) in round.into_iter().zip(chosen).zip(candidates) {
            let answer = match identify(report, &candidates) {
                None => self.create(report).inspect(|recorded| new.push(recorded.record.clone())),
                Some(record) => match self.change(record, report) {
                    Ok(None) => Ok(Recorded { outcome: Outcome::Duplicate, record: record.clone() }),
                    Ok(Some(amended)) => {
                        storage::usage::amend(tx, record, &amended).await?;
                        Ok(Recorded { outcome: Outcome::Amended, record: amended })
                    }
                    Err(refused) => Err(refused),
                },
            };
            answers[at] = Some(answer);
        }
        storage::usage::insert(tx, &new).await?;
        Ok(later)
    }

    /// Reads the sums that limits are checked against: of the months the reports count in, and of the months of the
    /// records they could amend.
    async fn load_used(&mut self, tx: &WriteTx, reports: &[&Report], candidates: &[Vec<Record>]) -> Result<()> {
        let mut missing: HashSet<(Uuid, Month)> = HashSet::new();
        for (report, candidates) in reports.iter().zip(candidates) {
            let feature = self.memberships.get(&report.user_id).and_then(|held| held.plan.feature(&report.usage_type));
            if feature.is_some_and(|feature| feature.monthly_limit.is_some()) {
                let months = candidates.iter().map(|record| record.month).chain([report.month()]);
                missing.extend(months.map(|month| (report.user_id, month)).filter(|sum| !self.loaded.contains(sum)));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let users: HashSet<Uuid> = missing.iter().map(|(user_id, _)| *user_id).collect();
        let months: HashSet<Month> = missing.iter().map(|(_, month)| *month).collect();
        let (users, months): (Vec<_>, Vec<_>) = (users.into_iter().collect(), months.into_iter().collect());
        for ((user_id, month, usage_type), amount) in storage::usage::used(tx.reader(), &users, &months).await? {
            if missing.contains(&(user_id, month)) {
                *self.used.entry((user_id, month, usage_type)).or_insert(0) += amount;
            }
        }
        self.loaded.extend(missing);
        Ok(())
    }

    fn create(&mut self, report: &Report) -> Result<Recorded> {
        let holder = self.holders.get(&report.user_id).ok_or(Error::NotFound { what: "user" })?;
        let record = report.record(&holder.creatorup_user_id);
        self.allow(&record, i64::from(record.amount), report.received_at)?;
        self.add(&record, 1);
        Ok(Recorded { outcome: Outcome::Created, record })
    }

    /// The amended record; `None` when the report says nothing new. Only what it adds to its month has to be allowed:
    /// less, or the same in the same month, takes nothing from anyone.
    fn change(&mut self, record: &Record, report: &Report) -> Result<Option<Record>> {
        let Some(amended) = amend(record, report) else { return Ok(None) };
        let stays = amended.month == record.month && amended.usage_type == record.usage_type;
        let more = i64::from(amended.amount) - if stays { i64::from(record.amount) } else { 0 };
        if more > 0 {
            self.allow(&amended, more, report.received_at)?;
        }
        self.add(record, -1);
        self.add(&amended, 1);
        Ok(Some(amended))
    }

    fn allow(&self, record: &Record, amount: i64, now: Instant) -> Result<()> {
        let sum = (record.user_id, record.month, record.usage_type.clone());
        let decision = decide(&Question {
            feature: &record.usage_type,
            amount,
            feature_known: self.features.contains(&record.usage_type),
            user_active: self.holders.get(&record.user_id).is_some_and(|holder| holder.is_active),
            membership: self.memberships.get(&record.user_id),
            used: self.used.get(&sum).copied().unwrap_or(0),
            now,
        });
        if decision.has_access() { Ok(()) } else { Err(denial(&decision, amount)) }
    }

    fn add(&mut self, record: &Record, sign: i64) {
        let amount = sign * i64::from(record.amount);
        *self.used.entry((record.user_id, record.month, record.usage_type.clone())).or_insert(0) += amount;
        let key = (record.user_id, record.month, record.usage_type.clone(), record.batch_type.clone());
        let delta = self.deltas.entry(key).or_insert((0, 0));
        *delta = (delta.0 + amount, delta.1 + sign);
    }

    async fn finish(
        &self,
        tx: &mut WriteTx,
        items: &[&Vec<Report>],
        answers: &[Option<Result<Recorded>>],
        caches: &Arc<Caches>,
    ) -> Result<()> {
        if self.deltas.is_empty() && !changed(answers).any(|_| true) {
            return Ok(());
        }
        let now = items.iter().flat_map(|item| item.iter().map(|report| report.received_at)).max().unwrap_or_default();
        storage::usage::add_to_sums(tx, &self.deltas, now).await?;
        let mut rest = answers;
        for item in items {
            let (own, after) = rest.split_at(item.len());
            rest = after;
            events(own, now).into_iter().for_each(|event| tx.emit(event));
        }
        let touched: HashSet<(Uuid, Month)> =
            self.deltas.keys().map(|(user_id, month, ..)| (*user_id, *month)).collect();
        let caches = caches.clone();
        tx.after_commit(move || touched.iter().for_each(|key| caches.usage.forget(key)));
        Ok(())
    }
}

fn changed(answers: &[Option<Result<Recorded>>]) -> impl Iterator<Item = &Recorded> {
    let written = |answer: &&Recorded| answer.outcome != Outcome::Duplicate;
    answers.iter().flatten().filter_map(|answer| answer.as_ref().ok()).filter(written)
}

/// One event per user and call: it names the record when there is one, and counts them when there are many. The
/// hub keeps the ledger, so with the record written nothing remains to be done.
fn events(answers: &[Option<Result<Recorded>>], at: Instant) -> Vec<NewEvent> {
    let mut by_user: BTreeMap<Uuid, Vec<&Recorded>> = BTreeMap::new();
    for recorded in changed(answers) {
        by_user.entry(recorded.record.user_id).or_default().push(recorded);
    }
    let event = |(user_id, all): (Uuid, Vec<&Recorded>)| {
        let payload = match all.as_slice() {
            [Recorded { outcome, record }] => json!({
                "change": if *outcome == Outcome::Created { "recorded" } else { "amended" },
                "usage_id": record.id,
                "usage_type": record.usage_type,
                "usage_amount": record.amount,
                "month_year": record.month.to_string(),
            }),
            many => json!({
                "change": "recorded",
                "records": many.len(),
                "usage_amount": many.iter().map(|one| i64::from(one.record.amount)).sum::<i64>(),
            }),
        };
        NewEvent { kind: EventKind::UsageSync, user_id, status: EventStatus::Completed, payload, at }
    };
    by_user.into_iter().map(event).collect()
}

fn denial(decision: &Decision, requested: i64) -> Error {
    use crate::model::membership::AccessReason::LimitReached;
    let mut metadata = BTreeMap::from([("access_reason", decision.reason.as_str().to_owned())]);
    metadata.insert("used", decision.used.to_string());
    metadata.insert("requested", requested.to_string());
    if let (Some(limit), Some(remaining)) = (decision.limit, decision.remaining()) {
        metadata.insert("limit", limit.to_string());
        metadata.insert("remaining", remaining.to_string());
    }
    if decision.reason == LimitReached {
        let message = format!(
            "the plan's monthly limit would be exceeded: {requested} asked for, {} left",
            decision.remaining().unwrap_or(0)
        );
        Error::Exhausted { reason: Reason::QuotaExceeded, message, retry_after: None, metadata }
    } else {
        let message = format!("no membership allows this usage: {}", decision.reason.as_str());
        Error::Denied { reason: Reason::MembershipRequired, message, metadata }
    }
}
