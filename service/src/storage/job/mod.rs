//! Jobs: the rows behind [`crate::queue`], and every transition between their states.
//!
//! `jobs` holds what is not over and stays small; what ends leaves it, and the newest of those are kept in
//! `finished_jobs`. Each transition is a set of rows in a caller's transaction, fenced by the lease where a worker
//! asks for it, and counted there, so that nobody ever has to count rows.

mod busy;
mod claim;
mod control;
mod letter;
mod list;
mod listen;
mod rescue;
mod settle;
pub mod turn;
mod watch;
mod worker;

pub use busy::busy_keys;
pub(super) use claim::candidates_sql;
use claim::lock_keys;
pub use claim::{Claim, Claimed, Standing, claim, look, look_apart, promote};
pub use control::{cancel, pause, paused, redrive, resume, retry_now};
pub use letter::take_letters;
pub(super) use list::turns_reached;
pub use list::{clear, count_dead, count_waiting, dead_by_kind, find, list, oldest_ready};
pub use listen::Listener;
pub(super) use listen::Listeners;
use rescue::free_held;
pub use rescue::{Orphans, Rescued, put_back, rescue, set_aside};
pub use settle::{Keep, Settled, Settlement, settle, trim};
pub use watch::{Feed, Watch, snapshot};
use watch::{MOVED, tell, tell_jobs, tell_moved};
pub use worker::{beat, leases, leave, sign_on, take_slot, was_scheduled, workers};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

use super::rows::Rows;
use super::{WriteTx, fault};
use crate::model::job::{Job, JobState, Kind, Kinds, NewJob};
use crate::model::transition::Transition;
use crate::model::{Error, Json, Result};

/// Waits for a job that another transaction has in its hands, until one stands by itself instead: 63 ms in all,
/// for the rest of the transaction waits too.
const PAUSES: &[Duration] = &[
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
];
const COLUMNS: &[&str] = &[
    "id",
    "kind",
    "queue_key",
    "unique_key",
    "state",
    "priority",
    "turn",
    "run_at",
    "payload",
    "event_id",
    "max_retries",
    "created_at",
];
/// What a worker is handed.
const JOB: &str =
    "id, kind, queue_key, unique_key, lease, payload, event_id, attempts, max_retries, rescues, errors, created_at";

/// Adds jobs; only [`WriteTx::commit`] calls this, so a job never stands without its write. One that has a unique
/// key under which another waits is merged into that one, which takes the more urgent priority of the two.
pub(super) async fn insert(tx: &mut WriteTx, jobs: Vec<NewJob>) -> Result<(), DbErr> {
    let (unique, plain): (Vec<NewJob>, Vec<NewJob>) = jobs.into_iter().partition(|job| job.unique_key.is_some());
    if !plain.is_empty() {
        let rows = rows(tx, &plain);
        let dialect = tx.dialect();
        rows.insert(tx.connection(), dialect, "jobs", "").await?;
        count_new(tx, &plain);
        tell(tx, || plain.iter().map(Transition::enqueued).collect());
    }
    if !unique.is_empty() {
        insert_unique(tx, unique).await?;
    }
    Ok(())
}

async fn insert_unique(tx: &mut WriteTx, jobs: Vec<NewJob>) -> Result<(), DbErr> {
    let mut first: Vec<NewJob> = Vec::with_capacity(jobs.len());
    let mut places: HashMap<(Kind, String), usize> = HashMap::new();
    for job in jobs {
        match places.get(&(job.kind, job.unique_key.clone().unwrap_or_default())) {
            Some(place) => first[*place].priority = first[*place].priority.min(job.priority),
            None => {
                places.insert((job.kind, job.unique_key.clone().unwrap_or_default()), first.len());
                first.push(job);
            }
        }
    }
    let mut left = add_unique(tx, first).await?;
    for pause in PAUSES {
        left = merge(tx, left).await?;
        if left.is_empty() {
            return Ok(());
        }
        // Whoever has them, most likely to claim or to hold them, is done in a moment.
        tokio::time::sleep(*pause).await;
        let (waiting, gone) = part(tx, left).await?;
        left = add_unique(tx, gone).await?;
        left.extend(waiting);
    }
    let alone: Vec<NewJob> = merge(tx, left).await?.into_iter().map(|job| NewJob { unique_key: None, ..job }).collect();
    if !alone.is_empty() {
        let rows = rows(tx, &alone);
        let dialect = tx.dialect();
        rows.insert(tx.connection(), dialect, "jobs", "").await?;
        count_new(tx, &alone);
        tell(tx, || alone.iter().map(Transition::enqueued).collect());
    }
    Ok(())
}

/// Adds those of these jobs under whose unique keys no other waits; answers with the rest.
///
/// An insert would wait for another transaction that is adding the key or claims the job that waits under it, and that
/// one may wait for this one in turn. So whoever adds a key has its lock, a key whose lock is taken is left for later,
/// and what waits is not touched.
async fn add_unique(tx: &mut WriteTx, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, DbErr> {
    if jobs.is_empty() {
        return Ok(jobs);
    }
    let query = format!(
        "INSERT INTO jobs ({columns}) SELECT {columns} FROM new_job WHERE {is_mine} AND {waiting} IS NULL \
         ON CONFLICT (kind, unique_key) WHERE unique_key IS NOT NULL AND state <> 'running' DO NOTHING RETURNING id",
        columns = COLUMNS.join(", "),
        is_mine = tx.dialect().try_lock_key("new_job.kind", &format!("'{UNIQUE}' || new_job.unique_key")),
        waiting = waiting_under("new_job"),
    );
    let rows = rows(tx, &jobs);
    let dialect = tx.dialect();
    let added = rows.query(tx.connection(), dialect, "new_job", &query).await?;
    let added = added.iter().map(|row| row.try_get("", "id")).collect::<Result<HashSet<Uuid>, DbErr>>()?;
    let (new, rest): (Vec<NewJob>, Vec<NewJob>) = jobs.into_iter().partition(|job| added.contains(&job.id));
    count_new(tx, &new);
    tell(tx, || new.iter().map(Transition::enqueued).collect());
    Ok(rest)
}

/// Names the lock of a unique key among those of keys: whoever puts a job under it has that until COMMIT.
const UNIQUE: &str = "unique#";

/// The locks under which jobs that run may wait again under their unique keys.
fn unique_locks<'a>(jobs: impl Iterator<Item = &'a Job>) -> impl Iterator<Item = (Kind, String)> {
    jobs.filter_map(|job| Some((job.kind, format!("{UNIQUE}{}", job.unique_key.as_ref()?))))
}

/// Names the job that waits under the unique key of each of `rows`.
fn waiting_under(rows: &str) -> String {
    format!(
        "(SELECT found.id FROM jobs AS found WHERE found.kind = {rows}.kind AND found.unique_key = {rows}.unique_key \
         AND found.unique_key IS NOT NULL AND found.state <> 'running')"
    )
}

/// Asks for the jobs that wait under the unique keys of these: so that PostgreSQL looks each up by its id, whatever plan
/// it keeps.
async fn waiting(
    tx: &mut WriteTx,
    jobs: &[NewJob],
    hold: &str,
) -> Result<HashMap<(String, String), (Uuid, i32)>, DbErr> {
    let dialect = tx.dialect();
    let waiting = format!("SELECT {} FROM merged", waiting_under("merged"));
    let them = [format!("IN ({waiting})"), format!("= ANY (ARRAY({waiting}))")];
    let them = dialect.pick(&them);
    let find = format!("SELECT id, kind, unique_key, priority FROM jobs WHERE id {them} AND state <> 'running' {hold}");
    let mut rows = Rows::new(&["kind", "unique_key"], jobs.len());
    for job in jobs {
        rows.text(job.kind.as_str()).text(job.unique_key.clone().unwrap_or_default());
    }
    let rows = rows.query(tx.connection(), dialect, "merged", &find).await?;
    let read = |row: &QueryResult| {
        let key = (row.try_get("", "kind")?, row.try_get("", "unique_key")?);
        Ok((key, (row.try_get("", "id")?, row.try_get("", "priority")?)))
    };
    rows.iter().map(read).collect()
}

fn key_of(job: &NewJob) -> (String, String) {
    (job.kind.as_str().to_owned(), job.unique_key.clone().unwrap_or_default())
}

/// Parts jobs into those under whose unique keys another waits still and those under which none does.
async fn part(tx: &mut WriteTx, jobs: Vec<NewJob>) -> Result<(Vec<NewJob>, Vec<NewJob>), DbErr> {
    let found = waiting(tx, &jobs, "").await?;
    Ok(jobs.into_iter().partition(|job| found.contains_key(&key_of(job))))
}

/// Merges jobs into those that wait under their unique keys; answers with those for which that cannot be done now.
///
/// Where there are other hubs, one of them could claim the job that waits, look before this transaction commits, find
/// nothing and end. So what is merged into is held until COMMIT, and claims pass it by; many may hold it at once. One
/// that another transaction has in its hands is not waited for without end: who has locks on some jobs and waits for
/// others could wait for one who waits for them. After a while a job stands by itself, without its key.
async fn merge(tx: &mut WriteTx, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, DbErr> {
    if jobs.is_empty() {
        return Ok(jobs);
    }
    let hold = tx.dialect().share_rows();
    let held = waiting(tx, &jobs, hold).await?;
    let mut left = Vec::new();
    for job in jobs {
        let is_merged = match held.get(&key_of(&job)) {
            Some((_, priority)) if *priority <= job.priority => true,
            Some((id, _)) => raise(tx, *id, job.priority).await?,
            None => false,
        };
        if !is_merged {
            left.push(job);
        }
    }
    Ok(left)
}

/// Gives a job that waits a more urgent priority; says whether it could without waiting for anybody.
async fn raise(tx: &mut WriteTx, id: Uuid, priority: i32) -> Result<bool, DbErr> {
    let raise = tx.dialect().statement(
        format!(
            "UPDATE jobs SET priority = $1 WHERE id IN (SELECT id FROM jobs WHERE id = $2 AND state <> 'running' {})",
            tx.dialect().skip_locked()
        ),
        [priority.into(), id.into()],
    );
    Ok(tx.connection().execute_raw(raise).await?.rows_affected() > 0)
}

fn rows(tx: &WriteTx, jobs: &[NewJob]) -> Rows {
    let common = tx.common().clone();
    let mut rows = Rows::new(COLUMNS, jobs.len());
    for job in jobs {
        let run_at = job.run_at.unwrap_or(job.at);
        rows.uuid(job.id).text(job.kind.as_str()).text(&job.key).text_or_null(job.unique_key.clone());
        rows.text(first_state(job).as_str()).int(job.priority).bigint(common.turns.give(job.kind, &job.key));
        rows.time(run_at).json(Some(job.payload.clone())).uuid_or_null(job.event_id);
        rows.int(job.max_retries.unwrap_or(common.max_retries)).time(job.at);
    }
    rows
}

fn first_state(job: &NewJob) -> JobState {
    match job.run_at {
        Some(run_at) if run_at > job.at => JobState::Scheduled,
        _ => JobState::Ready,
    }
}

fn count_new(tx: &mut WriteTx, jobs: &[NewJob]) {
    let mut counts: BTreeMap<(Kind, JobState), i64> = BTreeMap::new();
    jobs.iter().for_each(|job| *counts.entry((job.kind, first_state(job))).or_insert(0) += 1);
    counts.into_iter().for_each(|((kind, state), count)| tx.count_jobs(kind, state, count));
}

/// Counts jobs that go from one state to another.
fn count_moves(tx: &mut WriteTx, kinds: impl IntoIterator<Item = Kind>, from: JobState, to: JobState) {
    let mut counts: BTreeMap<Kind, i64> = BTreeMap::new();
    kinds.into_iter().for_each(|kind| *counts.entry(kind).or_insert(0) += 1);
    for (kind, count) in counts {
        tx.count_jobs(kind, from, -count);
        tx.count_jobs(kind, to, count);
    }
}

fn read_kinds(rows: &[QueryResult], kinds: Kinds) -> Result<Vec<Kind>> {
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get("", "kind").map_err(fault)?;
            read_kind(&kind, kinds)
        })
        .collect()
}

fn read_jobs(rows: &[QueryResult], kinds: Kinds) -> Result<Vec<Job>> {
    rows.iter().map(|row| read_job(row, kinds)).collect()
}

fn read_job(row: &QueryResult, kinds: Kinds) -> Result<Job> {
    let kind: String = row.try_get("", "kind").map_err(fault)?;
    let kind = read_kind(&kind, kinds)?;
    let read = || -> Result<Job, DbErr> {
        Ok(Job {
            id: row.try_get("", "id")?,
            kind,
            key: row.try_get("", "queue_key")?,
            unique_key: row.try_get("", "unique_key")?,
            lease: row.try_get("", "lease")?,
            payload: row.try_get::<Option<Json>>("", "payload")?.unwrap_or_default(),
            event_id: row.try_get("", "event_id")?,
            attempts: row.try_get("", "attempts")?,
            max_retries: row.try_get("", "max_retries")?,
            rescues: row.try_get("", "rescues")?,
            errors: row.try_get("", "errors")?,
            created_at: row.try_get("", "created_at")?,
        })
    };
    read().map_err(fault)
}

fn read_kind(word: &str, kinds: Kinds) -> Result<Kind> {
    Kind::parse(kinds, word).ok_or_else(|| Error::internal(format!("a job of the unknown kind {word:?}")))
}

/// A list of words for a statement; the words are our own.
fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}
