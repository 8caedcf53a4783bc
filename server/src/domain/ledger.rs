//! How the usage ledger is written: records, amendments, quota and sums, decided and written as sets.
//!
//! Reports of all callers that arrive together become one set in one transaction: their users' rows are held, the
//! records they could be about are read, the model decides, and a few multi-row statements write records, sums and
//! events. Reports of one set that could be about the same batch are taken in rounds, so that the second sees what
//! the first did.
//!
//! What a report is decided by comes with it, from the caches of the caller: memberships are never older than this
//! hub's own writes. The sums a limit is checked against are read in the transaction, under the hold, so no number
//! of callers or hubs can overshoot it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::DateTime;
use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::Caches;
use crate::model::event::{EventKind, EventStatus, NewEvent};
use crate::model::membership::{AccessReason, Decision, Membership, Question, decide};
use crate::model::tally::{Metric, Span};
use crate::model::usage::{Outcome, Record, Recorded, Report, Source, amend, identify};
use crate::model::user::{User, UserStatus};
use crate::model::{Error, Instant, Month, Reason, Result};
use crate::storage::usage::SumKey;
use crate::storage::{self, Batch, Emit, WriteTx};

/// A report with what decides over it.
pub struct Entry {
    /// What was reported.
    pub report: Report,
    /// Whose usage it is.
    pub user: Arc<User>,
    /// Their membership, whatever its status.
    pub membership: Option<Arc<Membership>>,
    /// Whether any plan has the usage type as a feature.
    pub feature_known: bool,
}

impl Entry {
    fn has_limit(&self) -> bool {
        let feature = self.membership.as_ref().and_then(|held| held.plan.feature(&self.report.usage_type));
        feature.is_some_and(|feature| feature.monthly_limit.is_some())
    }
}

/// The lane of usage reports. An item is what one call brought: one report, or one message of a stream.
pub struct UsageBatch {
    pub(super) caches: Arc<Caches>,
}

impl Batch for UsageBatch {
    type Item = Vec<Entry>;
    type Answer = Vec<Result<Recorded>>;

    fn weight(item: &Vec<Entry>) -> usize {
        item.len()
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Vec<Entry>],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>>> {
        Box::pin(async move {
            let begun = std::time::Instant::now();
            let entries: Vec<&Entry> = items.iter().flat_map(|item| item.iter()).collect();
            let users: HashSet<Uuid> = entries.iter().map(|entry| entry.user.id).collect();
            storage::user::hold(tx, &users.into_iter().collect::<Vec<_>>()).await?;
            let mut set = Set::default();
            let mut answers: Vec<Option<Result<Recorded>>> = entries.iter().map(|_| None).collect();
            let mut waiting: Vec<usize> = (0..entries.len()).collect();
            while !waiting.is_empty() {
                waiting = set.round(tx, &entries, waiting, &mut answers).await?;
            }
            let decided = begun.elapsed();
            set.finish(tx, items, &answers, &self.caches).await?;
            tracing::trace!(reports = entries.len(), ?decided, finished = ?begun.elapsed(), "usage set");
            let left_out = || Err(Error::internal("a report was left out"));
            let mut answers = answers.into_iter().map(|answer| answer.unwrap_or_else(left_out));
            Ok(items.iter().map(|item| Ok(answers.by_ref().take(item.len()).collect())).collect())
        })
    }
}

/// What a set of reports changes.
#[derive(Default)]
struct Set {
    /// Units by user, month and usage type: what was stored, once `loaded`, and what this set adds.
    used: HashMap<(Uuid, Month, String), i64>,
    loaded: HashSet<(Uuid, Month)>,
    deltas: BTreeMap<SumKey, (i64, i64)>,
    /// Records and units for the statistics, by usage type and the hour they are counted in.
    counts: BTreeMap<(String, i64), (i64, i64)>,
}

impl Set {
    /// Decides the reports that no other report of the round could be about, and returns the rest.
    async fn round(
        &mut self,
        tx: &mut WriteTx,
        entries: &[&Entry],
        waiting: Vec<usize>,
        answers: &mut [Option<Result<Recorded>>],
    ) -> Result<Vec<usize>> {
        // Of one name, reports with keys of their own are about batches of their own; one without a key could be about
        // any of them.
        let mut names: HashMap<(Uuid, &str), bool> = HashMap::with_capacity(waiting.len());
        let mut keys: HashSet<(Uuid, &str)> = HashSet::with_capacity(waiting.len());
        let (mut round, mut later) = (Vec::with_capacity(waiting.len()), Vec::new());
        for at in waiting {
            let report = &entries[at].report;
            let is_keyed = report.key.is_some();
            let seen = names.entry((report.user_id, &report.batch_name));
            let meets_unkeyed = match &seen {
                std::collections::hash_map::Entry::Vacant(_) => false,
                std::collections::hash_map::Entry::Occupied(all_keyed) => !(is_keyed && *all_keyed.get()),
            };
            let all_keyed = seen.or_insert(true);
            *all_keyed &= is_keyed;
            let new_key = report.key.as_deref().is_none_or(|key| keys.insert((report.user_id, key)));
            if new_key && !meets_unkeyed { round.push(at) } else { later.push(at) }
        }
        let chosen: Vec<&Report> = round.iter().map(|at| &entries[*at].report).collect();
        let begun = std::time::Instant::now();
        let candidates = storage::usage::candidates(tx, &chosen).await?;
        tracing::trace!(reports = chosen.len(), took = ?begun.elapsed(), "candidates");
        self.load_used(tx, round.iter().map(|at| entries[*at]), &candidates).await?;
        let mut new = Vec::with_capacity(round.len());
        let mut found: HashSet<Uuid> = HashSet::new();
        for (at, candidates) in round.into_iter().zip(candidates) {
            let entry = entries[at];
            answers[at] = Some(match identify(&entry.report, &candidates) {
                None => self.create(entry).inspect(|recorded| new.push(recorded.record.clone())),
                // Another report of this round was about the same record; it has to be read again.
                Some(record) if !found.insert(record.id) => {
                    later.push(at);
                    continue;
                }
                Some(record) => self.change(tx, entry, record).await?,
            });
        }
        storage::usage::insert(tx, new).await?;
        Ok(later)
    }

    /// Reads the sums that limits are checked against: of the months the reports count in, and of the months of the
    /// records they could amend.
    async fn load_used(
        &mut self,
        tx: &WriteTx,
        entries: impl Iterator<Item = &Entry>,
        candidates: &[Vec<Record>],
    ) -> Result<()> {
        let mut missing: HashSet<(Uuid, Month)> = HashSet::new();
        for (entry, candidates) in entries.zip(candidates).filter(|(entry, _)| entry.has_limit()) {
            let months = candidates.iter().map(|record| record.month).chain([entry.report.month()]);
            missing.extend(months.map(|month| (entry.user.id, month)).filter(|sum| !self.loaded.contains(sum)));
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

    fn create(&mut self, entry: &Entry) -> Result<Recorded> {
        let record = entry.report.record(entry.user.creatorup_user_id.as_deref().unwrap_or_default());
        self.allow(entry, &record, i64::from(record.amount))?;
        self.add(&record, 1);
        Ok(Recorded { outcome: Outcome::Created, record })
    }

    /// Amends the record, when the report says something new. The inner result is the report's own refusal. Only
    /// what it adds to its month has to be allowed: less, or the same in the same month, takes nothing from anyone.
    async fn change(&mut self, tx: &mut WriteTx, entry: &Entry, record: &Record) -> Result<Result<Recorded>> {
        let Some(amended) = amend(record, &entry.report) else {
            let mut record = record.clone();
            // From now on the key alone finds the record, whatever else a later report says.
            if let (None, Some(key)) = (&record.key, &entry.report.key) {
                storage::usage::adopt_key(tx, record.id, key).await?;
                record.key = Some(key.clone());
            }
            return Ok(Ok(Recorded { outcome: Outcome::Duplicate, record }));
        };
        let stays = amended.month == record.month && amended.usage_type == record.usage_type;
        let more = i64::from(amended.amount) - if stays { i64::from(record.amount) } else { 0 };
        if more > 0
            && let Err(refused) = self.allow(entry, &amended, more)
        {
            return Ok(Err(refused));
        }
        self.add(record, -1);
        self.add(&amended, 1);
        storage::usage::amend(tx, record, &amended).await?;
        Ok(Ok(Recorded { outcome: Outcome::Amended, record: amended }))
    }

    /// Whether the plan allows it. What CreatorUp reports as done by webhook is recorded whatever the plan says: the
    /// work was done, and a ledger that leaves it out would only be wrong. What is asked for next is refused.
    fn allow(&self, entry: &Entry, record: &Record, amount: i64) -> Result<()> {
        if entry.report.source == Source::Webhook {
            return Ok(());
        }
        let used = match entry.has_limit() {
            true => self.used.get(&(record.user_id, record.month, record.usage_type.clone())).copied().unwrap_or(0),
            false => 0,
        };
        let decision = decide(&Question {
            feature: &record.usage_type,
            amount,
            feature_known: entry.feature_known,
            user_active: entry.user.status == UserStatus::Active,
            membership: entry.membership.as_deref(),
            used,
            now: entry.report.received_at,
        });
        if decision.has_access() { Ok(()) } else { Err(denial(&decision, amount)) }
    }

    fn add(&mut self, record: &Record, sign: i64) {
        let amount = sign * i64::from(record.amount);
        *self.used.entry((record.user_id, record.month, record.usage_type.clone())).or_insert(0) += amount;
        let key = (record.user_id, record.month, record.usage_type.clone(), record.batch_type.clone());
        let delta = self.deltas.entry(key).or_insert((0, 0));
        *delta = (delta.0 + amount, delta.1 + sign);
        let hour = Span::Hour.start(record.counted_at());
        let count = self.counts.entry((record.usage_type.clone(), hour)).or_insert((0, 0));
        *count = (count.0 + sign, count.1 + amount);
    }

    async fn finish(
        &mut self,
        tx: &mut WriteTx,
        items: &[&Vec<Entry>],
        answers: &[Option<Result<Recorded>>],
        caches: &Arc<Caches>,
    ) -> Result<()> {
        let arrivals = items.iter().flat_map(|item| item.iter().map(|entry| entry.report.received_at));
        let now = arrivals.max().unwrap_or_default();
        let touched: HashSet<(Uuid, Month)> =
            self.deltas.keys().map(|(user_id, month, ..)| (*user_id, *month)).collect();
        self.deltas.retain(|_, delta| *delta != (0, 0));
        storage::usage::add_to_sums(tx, &self.deltas, now).await?;
        for ((usage_type, hour), (records, amount)) in std::mem::take(&mut self.counts) {
            let at = DateTime::from_timestamp(hour, 0).unwrap_or_default();
            tx.tally(Metric::Usage, &usage_type, at, records, amount);
        }
        let mut rest = answers;
        for item in items {
            let (own, after) = rest.split_at(item.len());
            rest = after;
            events(item, own, now).into_iter().for_each(|event| {
                tx.emit(event);
            });
        }
        if !touched.is_empty() {
            let caches = caches.clone();
            tx.after_commit(move || touched.iter().for_each(|key| caches.usage.forget(key)));
        }
        Ok(())
    }
}

/// One event per user and call: it names the record when there is one, and counts them when there are many. The
/// hub keeps the ledger, so with the record written nothing remains to be done. What a webhook reports has an event
/// already: the one its job completes.
fn events(entries: &[Entry], answers: &[Option<Result<Recorded>>], at: Instant) -> Vec<NewEvent> {
    let mut by_user: BTreeMap<Uuid, Vec<&Recorded>> = BTreeMap::new();
    let answered = entries.iter().zip(answers).filter(|(entry, _)| entry.report.source != Source::Webhook);
    let written = answered.filter_map(|(_, answer)| answer.as_ref()?.as_ref().ok());
    for recorded in written.filter(|recorded| recorded.outcome != Outcome::Duplicate) {
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
        NewEvent { kind: EventKind::UsageSync, user_id, status: EventStatus::Completed, payload: payload.into(), at }
    };
    by_user.into_iter().map(event).collect()
}

fn denial(decision: &Decision, requested: i64) -> Error {
    let mut metadata = BTreeMap::from([("access_reason", decision.reason.as_str().to_owned())]);
    metadata.insert("requested", requested.to_string());
    if let (Some(limit), Some(remaining)) = (decision.limit, decision.remaining()) {
        metadata.insert("used", decision.used.to_string());
        metadata.insert("limit", limit.to_string());
        metadata.insert("remaining", remaining.to_string());
    }
    if decision.reason == AccessReason::LimitReached {
        let left = decision.remaining().unwrap_or(0);
        let message = format!("the plan's monthly limit would be exceeded: {requested} asked for, {left} left");
        Error::Exhausted { reason: Reason::QuotaExceeded, message, retry_after: None, metadata }
    } else {
        let message = format!("no membership allows this usage: {}", decision.reason.as_str());
        Error::Denied { reason: Reason::MembershipRequired, message, metadata }
    }
}
