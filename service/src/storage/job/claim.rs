//! Claims: ready jobs become leases of one worker.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ConnectionTrait, QueryResult};
use uuid::Uuid;

use super::super::dialect::Dialect;
use super::super::rows::Rows;
use super::super::{WOULD_WAIT, WriteTx, asked};
use super::{JOB, MOVED, count_moves, read_jobs, read_kind, read_kinds, tell, tell_moved};
use crate::model::job::{Job, JobState, Kind, KindRule, Kinds};
use crate::model::transition::{JobStep, Transition};
use crate::model::{Error, Instant, Result};

/// Rounds of one claim: each round sets aside jobs of keys that are busy, so that they hold up nobody else.
const ROUNDS: usize = 8;
/// Jobs whose time has come that one call makes ready.
const PROMOTED: i64 = 1_000;

/// Who claims, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The worker.
    pub worker_id: Uuid,
    /// Jobs of the kinds that share their slots, at most.
    pub most: usize,
    /// Jobs among them of kinds that leave a slot to the others, at most.
    pub most_leaving: usize,
    /// Jobs of the kinds that have slots of their own, at most.
    pub most_apart: usize,
}

impl Claim {
    /// What may still be claimed after these.
    fn without(&self, jobs: &[Job]) -> Claim {
        let count = |counts: fn(&KindRule) -> bool| jobs.iter().filter(|job| counts(&job.kind.rule())).count();
        let apart = count(|rule| rule.is_apart);
        let leaving = count(|rule| rule.leaves_a_slot && !rule.is_apart);
        let most = self.most.saturating_sub(jobs.len() - apart);
        Claim {
            worker_id: self.worker_id,
            most,
            most_leaving: self.most_leaving.saturating_sub(leaving).min(most),
            most_apart: self.most_apart.saturating_sub(apart),
        }
    }

    /// Whether so many of each sort are all it could take, of either.
    fn is_filled_by(&self, kinds: impl Iterator<Item = Kind>) -> bool {
        let (apart, shared): (Vec<Kind>, Vec<Kind>) = kinds.partition(|kind| kind.rule().is_apart);
        (self.most > 0 && shared.len() == self.most) || (self.most_apart > 0 && apart.len() == self.most_apart)
    }
}

struct Candidate {
    id: Uuid,
    kind: Kind,
    key: String,
    turn: i64,
}

/// What a claim took.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The jobs, in the order they were claimed in.
    pub jobs: Vec<Job>,
    /// Whether some were passed by because another hub is at their key in this moment. They are ready still, and the
    /// next claim takes them or finds their key busy.
    pub passed_by: bool,
}

impl Claimed {
    /// Whether the claim took as many as it could of either sort, so that there may be more.
    pub fn fills(&self, claim: &Claim) -> bool {
        claim.is_filled_by(self.jobs.iter().map(|job| job.kind))
    }
}

/// Leases ready jobs to a worker: by priority, keys in turn, no more of a key than its kind allows, none of a paused
/// kind. What it costs depends on how many are claimed, not on how many wait. It waits for no other hub, whatever that
/// one holds: so nobody waits long for what it takes.
pub async fn claim(tx: &mut WriteTx, claim: &Claim) -> Result<Claimed> {
    let mut claimed = Claimed::default();
    for _ in 0..ROUNDS {
        let wanted = claim.without(&claimed.jobs);
        if wanted.most + wanted.most_apart == 0 {
            break;
        }
        let candidates = candidates(tx, &wanted).await?;
        if candidates.is_empty() {
            break;
        }
        let full = wanted.is_filled_by(candidates.iter().map(|candidate| candidate.kind));
        let found = candidates.len();
        let (admitted, held) = admit(tx, candidates).await?;
        claimed.passed_by |= admitted.len() + held.len() < found;
        let any_held = !held.is_empty();
        hold(tx, held).await?;
        claimed.jobs.extend(lease(tx, claim.worker_id, admitted).await?);
        if !(full && any_held) {
            break;
        }
    }
    Ok(claimed)
}

/// Asks for the first of each kind and then the first of all that share slots, and the first of all that have their own:
/// every branch is a walk down one index. Written once, when the store is opened. The limits are of our own making, so
/// that a statement has as many placeholders whatever kinds there are.
pub(in crate::storage) fn candidates_sql(dialect: Dialect, kinds: Kinds) -> String {
    let branch = |kind: &Kind| {
        let most = match kind.rule() {
            KindRule { is_apart: true, .. } => "(SELECT apart FROM wanted)",
            KindRule { leaves_a_slot: true, .. } => "(SELECT leaving FROM wanted)",
            _ => "(SELECT shared FROM wanted)",
        };
        let kind = kind.as_str();
        format!(
            "SELECT * FROM (SELECT id, kind, queue_key, priority, turn FROM jobs WHERE state = 'ready' \
             AND kind = '{kind}' AND NOT EXISTS (SELECT 1 FROM paused_kinds WHERE kind = '{kind}') \
             ORDER BY priority, turn, id LIMIT {most} {skip}) AS {kind}_jobs",
            skip = dialect.skip_locked()
        )
    };
    let sort = |is_apart: bool, most: &str| {
        let kinds = kinds.iter().filter(|kind| kind.rule().is_apart == is_apart);
        let branches = kinds.map(branch).collect::<Vec<_>>().join(" UNION ALL ");
        let first = format!(
            "SELECT id, kind, queue_key, priority, turn FROM ({branches}) AS jobs_{most} ORDER BY priority, turn, id \
             LIMIT (SELECT {most} FROM wanted)"
        );
        (!branches.is_empty()).then(|| format!("SELECT * FROM ({first}) AS first_{most}"))
    };
    let sorts = [sort(false, "shared"), sort(true, "apart")].into_iter().flatten().collect::<Vec<_>>();
    format!(
        "WITH wanted (shared, leaving, apart) AS (SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), CAST($3 AS BIGINT)) \
         SELECT id, kind, queue_key, turn FROM ({}) AS first_jobs ORDER BY priority, turn, id",
        sorts.join(" UNION ALL ")
    )
}

async fn candidates(tx: &mut WriteTx, wanted: &Claim) -> Result<Vec<Candidate>> {
    let dialect = tx.dialect();
    let limits = [wanted.most, wanted.most_leaving, wanted.most_apart].map(|limit| (limit as i64).into());
    let query = dialect.statement(tx.common().candidates.as_str(), limits);
    let kinds = tx.kinds();
    let rows = asked(tx.connection().query_all_raw(query)).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get("", "kind").map_err(super::fault)?;
            let kind = read_kind(&kind, kinds)?;
            asked_now(|| {
                Ok(Candidate {
                    id: row.try_get("", "id")?,
                    kind,
                    key: row.try_get("", "queue_key")?,
                    turn: row.try_get("", "turn")?,
                })
            })
        })
        .collect()
}

fn asked_now<T>(read: impl FnOnce() -> Result<T, sea_orm::DbErr>) -> Result<T> {
    read().map_err(super::fault)
}

/// Parts the candidates into those that may run and those whose key has as many running as it may. Those of keys that
/// another hub has locked are in neither.
async fn admit(tx: &mut WriteTx, mut candidates: Vec<Candidate>) -> Result<(Vec<Candidate>, Vec<Candidate>)> {
    let limited: BTreeSet<(Kind, String)> = candidates
        .iter()
        .filter(|candidate| candidate.kind.rule().per_key.is_some())
        .map(|candidate| (candidate.kind, candidate.key.clone()))
        .collect();
    if limited.is_empty() {
        return Ok((candidates, Vec::new()));
    }
    let locked = try_keys(tx, &limited).await?;
    let is_open = |one: &Candidate| {
        let key = (one.kind, one.key.clone());
        !limited.contains(&key) || locked.contains(&key)
    };
    candidates.retain(is_open);
    if locked.is_empty() {
        return Ok((candidates, Vec::new()));
    }
    let mut running = running(tx, &locked).await?;
    Ok(candidates.into_iter().partition(|candidate| {
        let Some(limit) = candidate.kind.rule().per_key else { return true };
        let running = running.entry((candidate.kind, candidate.key.clone())).or_insert(0);
        let may = *running < i64::from(limit);
        *running += i64::from(may);
        may
    }))
}

/// Takes a lock on each key until the transaction ends, where other hubs could be claiming or ending jobs of it.
///
/// A transaction waits for such locks only while it has none, and for all of them at once, in one order; so no two hubs
/// ever wait for each other. One that has some already asks for more without waiting: when it cannot have them it is
/// undone, and each write it is made of is made again by itself.
pub(super) async fn lock_keys(tx: &mut WriteTx, keys: &BTreeSet<(Kind, String)>) -> Result<()> {
    let dialect = tx.dialect();
    let Some(lock) = dialect.lock_keys().filter(|_| !keys.is_empty()) else { return Ok(()) };
    if tx.take_keys() {
        let locked = try_keys(tx, keys).await?;
        return if locked.len() == keys.len() { Ok(()) } else { Err(Error::unavailable(WOULD_WAIT)) };
    }
    asked(key_rows(keys).query(tx.connection(), dialect, "wanted", &lock)).await.map(drop)
}

/// Takes those of these locks that can be had at once; answers with the keys that are locked.
pub(super) async fn try_keys(tx: &mut WriteTx, keys: &BTreeSet<(Kind, String)>) -> Result<BTreeSet<(Kind, String)>> {
    let dialect = tx.dialect();
    let Some(lock) = dialect.try_lock_keys().filter(|_| !keys.is_empty()) else { return Ok(keys.clone()) };
    tx.take_keys();
    let rows = asked(key_rows(keys).query(tx.connection(), dialect, "wanted", &lock)).await?;
    rows.iter().map(|row| read_key(row, tx.kinds())).collect()
}

pub(super) fn read_key(row: &QueryResult, kinds: Kinds) -> Result<(Kind, String)> {
    let kind: String = row.try_get("", "kind").map_err(super::fault)?;
    Ok((read_kind(&kind, kinds)?, row.try_get("", "queue_key").map_err(super::fault)?))
}

/// The keys as rows of a statement.
fn key_rows(keys: &BTreeSet<(Kind, String)>) -> Rows {
    let mut rows = Rows::new(&["kind", "queue_key"], keys.len());
    for (kind, key) in keys {
        rows.text(kind.as_str()).text(key);
    }
    rows
}

/// How many of each key run now: counted from the leases themselves, under a lock on the key.
async fn running(tx: &mut WriteTx, keys: &BTreeSet<(Kind, String)>) -> Result<HashMap<(Kind, String), i64>> {
    let count = "SELECT wanted.kind, wanted.queue_key, (SELECT COUNT(*) FROM jobs WHERE jobs.state = 'running' \
                 AND jobs.kind = wanted.kind AND jobs.queue_key = wanted.queue_key) AS running FROM wanted";
    let rows = asked(key_rows(keys).query(tx.reader(), tx.dialect(), "wanted", count)).await?;
    rows.iter().map(|row| Ok((read_key(row, tx.kinds())?, row.try_get("", "running").map_err(super::fault)?))).collect()
}

async fn hold(tx: &mut WriteTx, held: Vec<Candidate>) -> Result<()> {
    if held.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(&["id"], held.len());
    for candidate in &held {
        rows.uuid(candidate.id);
    }
    let dialect = tx.dialect();
    let hold = dialect.update_each("jobs", "state = 'held'", "busy", ("state", JobState::Ready.as_str()));
    let hold = format!("{hold} RETURNING jobs.id, kind, queue_key, attempts, lease");
    let rows = asked(rows.query(tx.connection(), dialect, "busy", &hold)).await?;
    tell_moved(tx, &rows, JobStep::Held)?;
    count_moves(tx, held.iter().map(|candidate| candidate.kind), JobState::Ready, JobState::Held);
    Ok(())
}

async fn lease(tx: &mut WriteTx, worker_id: Uuid, admitted: Vec<Candidate>) -> Result<Vec<Job>> {
    if admitted.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Rows::new(&["id", "worker_id"], admitted.len());
    for candidate in &admitted {
        rows.uuid(candidate.id).uuid(worker_id);
    }
    let dialect = tx.dialect();
    let columns: Vec<String> = JOB.split(", ").map(|column| format!("jobs.{column}")).collect();
    let changes = format!(
        "state = 'running', lease = jobs.lease + 1, worker_id = mine.worker_id, started_at = {}",
        dialect.now()
    );
    let lease = dialect.update_each("jobs", &changes, "mine", ("state", JobState::Ready.as_str()));
    let lease = format!("{lease} RETURNING {}", columns.join(", "));
    let leased = asked(rows.query(tx.connection(), dialect, "mine", &lease)).await?;
    let mut jobs = read_jobs(&leased, tx.kinds())?;
    let places: HashMap<Uuid, usize> = admitted.iter().enumerate().map(|(place, one)| (one.id, place)).collect();
    jobs.sort_by_key(|job| places.get(&job.id).copied());
    count_moves(tx, jobs.iter().map(|job| job.kind), JobState::Ready, JobState::Running);
    let running = |job| Transition { worker_id: Some(worker_id), ..Transition::of(job, JobStep::Running) };
    tell(tx, || jobs.iter().map(running).collect());
    let common = tx.common().clone();
    tx.after_commit(move || admitted.iter().for_each(|one| common.turns.reached(one.kind, one.turn)));
    Ok(jobs)
}

/// Makes scheduled jobs ready whose time has come, oldest first; says how many.
pub async fn promote(tx: &mut WriteTx, now: Instant) -> Result<u64> {
    let dialect = tx.dialect();
    let promote = dialect.statement(
        format!(
            "UPDATE jobs SET state = 'ready' WHERE state = 'scheduled' AND id IN (SELECT id FROM jobs \
             WHERE state = 'scheduled' AND run_at <= $1 ORDER BY run_at LIMIT {PROMOTED} {skip}) RETURNING {MOVED}",
            skip = dialect.skip_locked()
        ),
        [now.into()],
    );
    let rows = asked(tx.connection().query_all_raw(promote)).await?;
    let kinds = read_kinds(&rows, tx.kinds())?;
    count_moves(tx, kinds, JobState::Scheduled, JobState::Ready);
    tell_moved(tx, &rows, JobStep::Ready)?;
    Ok(rows.len() as u64)
}

/// What there is to be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a job is ready.
    pub ready: bool,
    /// When the next scheduled job is due; it may be already.
    pub next: Option<Instant>,
}

/// Whether a job is ready of a kind that has slots of its own.
pub async fn look_apart<C: ConnectionTrait>(connection: &C, dialect: Dialect, kinds: Kinds) -> Result<bool> {
    let apart: Vec<&str> = kinds.iter().filter(|kind| kind.rule().is_apart).map(|kind| kind.as_str()).collect();
    if apart.is_empty() {
        return Ok(false);
    }
    let any = apart.iter().map(|kind| format!("EXISTS (SELECT 1 FROM jobs WHERE state = 'ready' AND kind = '{kind}')"));
    let sql = format!("SELECT {} AS is_ready", any.collect::<Vec<_>>().join(" OR "));
    let row = asked(connection.query_one_raw(dialect.statement(sql, []))).await?;
    row.map_or(Ok(false), |row| asked_now(|| row.try_get("", "is_ready")))
}

/// Looks at the head of the queue.
pub async fn look<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Standing> {
    let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'ready') AS is_ready, \
               (SELECT run_at FROM jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT 1) AS next_at";
    let row = asked(connection.query_one_raw(dialect.statement(sql, []))).await?;
    let Some(row) = row else { return Ok(Standing { ready: false, next: None }) };
    asked_now(|| Ok(Standing { ready: row.try_get("", "is_ready")?, next: row.try_get("", "next_at")? }))
}
