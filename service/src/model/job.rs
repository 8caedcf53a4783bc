//! Work that is remembered for later: what it is, where it stands, and when it is tried again.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use rand::Rng;
use uuid::Uuid;

use super::words::words;
use super::{Instant, Json, JsonText};

words! {
    /// Where a job stands.
    JobState {
        /// Its time has not come.
        Scheduled = "scheduled",
        /// It may be claimed.
        Ready = "ready",
        /// Its key has as many running jobs as it may; one is freed when one of those ends.
        Held = "held",
        /// A worker has it on lease.
        Running = "running",
        /// It succeeded.
        Done = "done",
        /// It was given up: a dead letter.
        Dead = "dead",
        /// An administrator called it off.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether the job is over.
    pub fn is_over(self) -> bool {
        matches!(self, JobState::Done | JobState::Dead | JobState::Cancelled)
    }
}

/// What all jobs of a kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRule {
    /// Lower goes first; jobs of one priority take turns by key.
    pub priority: i32,
    /// A handler that takes longer is stopped and has failed.
    pub deadline: Duration,
    /// Jobs of one key that run at once, over all servers on the database; `None` is as many as there are slots.
    pub per_key: Option<u32>,
    /// Whether such jobs leave a slot to the other kinds, however many of them there are: for those that take long, or
    /// as long as somebody else's server does.
    pub leaves_a_slot: bool,
    /// Whether such jobs have slots of their own ([`Options::apart`](crate::queue::Options::apart)): for those that do
    /// little but wait for others' servers, so that any number of slow ones takes no slot from the rest.
    pub is_apart: bool,
}

/// A kind of job and its rule, as the server that does such jobs declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSpec {
    /// The word it is stored, counted and shown as: lower case and underscores, because statements quote it.
    pub word: &'static str,
    /// What all its jobs have in common.
    pub rule: KindRule,
}

/// What a job does. Each server has its own kinds, which it hands to its store as a list in the order of importance; a
/// kind is as cheap to copy and to compare as the place it is declared at.
#[derive(Clone, Copy, Debug)]
pub struct Kind(&'static KindSpec);

impl Kind {
    /// The kind a server declares so.
    pub const fn new(spec: &'static KindSpec) -> Kind {
        Kind(spec)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        self.0.word
    }

    /// Its rule.
    pub fn rule(self) -> KindRule {
        self.0.rule
    }

    /// The kind of a word among those a server has.
    pub fn parse(kinds: Kinds, word: &str) -> Option<Kind> {
        kinds.iter().find(|kind| kind.as_str() == word).copied()
    }
}

/// Every kind of job a server has, in the order of importance.
pub type Kinds = &'static [Kind];

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        std::ptr::eq(self.0, other.0) || self.0.word == other.0.word
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.word.hash(state);
    }
}

/// In the order of importance, and of one importance by the word: whoever takes locks in this order waits for nobody who
/// does too.
impl Ord for Kind {
    fn cmp(&self, other: &Kind) -> Ordering {
        let rank = |kind: &Kind| (kind.0.rule.priority, kind.0.word);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Kind) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

words! {
    /// Where the record stands that a job stands and falls with.
    EventStatus {
        /// It waits for its job.
        Pending = "pending",
        /// Its job succeeded.
        Completed = "completed",
        /// Its job was given up.
        Failed = "failed",
    }
}

/// What became of the record that a job stands and falls with.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// The record: the job's `event_id`.
    pub id: Uuid,
    /// `Pending` when it is tried again.
    pub status: EventStatus,
    /// Tries after the first, so far.
    pub retries: i32,
    /// What the job answered.
    pub response: Option<Json>,
    /// What went wrong last; a record that completes keeps what it says.
    pub error: Option<String>,
}

/// Work to be remembered in the transaction of the write that causes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// UUID, version 7.
    pub id: Uuid,
    /// What it does.
    pub kind: Kind,
    /// Whose turn it takes: a user, an endpoint. Jobs of different keys take turns.
    pub key: String,
    /// At most one job of a kind waits under such a key; a second one is merged into it.
    pub unique_key: Option<String>,
    /// Lower goes first.
    pub priority: i32,
    /// Not before this; `None` is at once.
    pub run_at: Option<Instant>,
    /// What the handler needs. No secrets: they are read when they are used.
    pub payload: JsonText,
    /// The record that stands and falls with the job; what it is, the server's companion knows.
    pub event_id: Option<Uuid>,
    /// Tries after the first; `None` is what the server is configured with.
    pub max_retries: Option<i32>,
    /// When it was asked for.
    pub at: Instant,
}

impl NewJob {
    /// A job of a kind with its rule's priority, to be done at once.
    pub fn new(kind: impl Into<Kind>, key: impl Into<String>, payload: impl Into<JsonText>, at: Instant) -> NewJob {
        let kind = kind.into();
        let priority = kind.rule().priority;
        let id = Uuid::now_v7();
        NewJob {
            id,
            kind,
            key: key.into(),
            unique_key: None,
            priority,
            run_at: None,
            payload: payload.into(),
            event_id: None,
            max_retries: None,
            at,
        }
    }

    /// Merges it into a job of its kind that already waits under this key.
    pub fn unique(mut self, key: impl Into<String>) -> NewJob {
        self.unique_key = Some(key.into());
        self
    }

    /// Ties a record to it, which completes and fails with the job.
    pub fn for_event(mut self, event_id: Uuid) -> NewJob {
        self.event_id = Some(event_id);
        self
    }
}

/// A job a worker holds on lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// UUID, version 7.
    pub id: Uuid,
    /// What it does.
    pub kind: Kind,
    /// Whose turn it takes.
    pub key: String,
    /// The key under which at most one job of the kind waits.
    pub unique_key: Option<String>,
    /// The fence: counts the claims of this job. What the worker says about the job is believed only with it.
    pub lease: i64,
    /// What the handler needs.
    pub payload: Json,
    /// The record that stands and falls with it.
    pub event_id: Option<Uuid>,
    /// Tries that failed.
    pub attempts: i32,
    /// Tries after the first, at most.
    pub max_retries: i32,
    /// Workers that died while they had it.
    pub rescues: i32,
    /// What went wrong before, oldest first: `[{at, attempt, lease, error}]`.
    pub errors: Option<Json>,
    /// When it was asked for.
    pub created_at: Instant,
}

impl Job {
    /// Whether a failure of this try is the last.
    pub fn is_last_try(&self) -> bool {
        self.attempts >= self.max_retries
    }
}

/// A job with what its worker does not need to know.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// The job.
    pub job: Job,
    /// Where it stands.
    pub state: JobState,
    /// Lower goes first.
    pub priority: i32,
    /// When it may run; absent when it is over.
    pub run_at: Option<Instant>,
    /// When its last claim was.
    pub started_at: Option<Instant>,
    /// When it was over.
    pub finished_at: Option<Instant>,
    /// Who has it.
    pub worker_id: Option<Uuid>,
}

/// Which jobs are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this key.
    pub key: Option<String>,
    /// Only those asked for before this one.
    pub before: Option<Uuid>,
}

/// Which dead letters are driven again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redrive {
    /// Only this one.
    pub id: Option<Uuid>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this key.
    pub key: Option<String>,
    /// How many at most, oldest first.
    pub most: u64,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It succeeded; the answer is kept with the job's record.
    Done(Option<Json>),
    /// It failed and may succeed later, not before the given time when there is one.
    Retry {
        /// For people; holds no secret.
        error: String,
        /// What the other side asked for (`Retry-After`).
        after: Option<Duration>,
    },
    /// It failed and always will.
    Dead {
        /// For people; holds no secret.
        error: String,
    },
    /// It was interrupted and spends no try.
    Released,
}

impl Outcome {
    /// A failure that may pass.
    pub fn retry(error: impl ToString) -> Outcome {
        Outcome::Retry { error: error.to_string(), after: None }
    }

    /// A failure that will not.
    pub fn dead(error: impl ToString) -> Outcome {
        Outcome::Dead { error: error.to_string() }
    }
}

/// How long a failed job waits. Exponential with full jitter, kept in the job's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure; it grows fourfold: 1 s, 4 s, 16 s.
    pub base: Duration,
    /// The longest wait of all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The longest wait after `failures` failures (1 is the first).
    pub fn ceiling(&self, failures: i32) -> Duration {
        let doublings = 2 * failures.saturating_sub(1).clamp(0, 15) as u32;
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }

    /// A wait: anything up to the ceiling, so that what failed together does not come back together; never earlier
    /// than the other side asked for, as far as the cap allows.
    pub fn wait(&self, failures: i32, asked: Option<Duration>) -> Duration {
        let jittered = self.ceiling(failures).mul_f64(rand::rng().random_range(0.0..=1.0));
        jittered.max(asked.unwrap_or_default().min(self.cap))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const fn spec(word: &'static str, priority: i32) -> KindSpec {
        let rule = KindRule {
            priority,
            deadline: Duration::from_secs(60),
            per_key: None,
            leaves_a_slot: false,
            is_apart: false,
        };
        KindSpec { word, rule }
    }

    /// Kinds of a server that is made up.
    pub const CLEANUP: Kind = Kind::new(&spec("cleanup", 40));
    pub const PROBE: Kind = Kind::new(&spec("probe", 50));

    #[test]
    fn a_kind_is_its_word_and_ranks_by_its_importance() {
        let again = Kind::new(Box::leak(Box::new(spec("probe", 50))));
        assert_eq!((PROBE, Kind::parse(&[CLEANUP, PROBE], "probe")), (again, Some(again)));
        assert!(CLEANUP < PROBE && Kind::parse(&[CLEANUP], "probe").is_none());
    }

    #[test]
    fn waits_grow_fourfold_up_to_a_cap_and_honour_what_was_asked_for() {
        let backoff = Backoff::default();
        let ceilings: Vec<u64> = (1..=6).map(|failures| backoff.ceiling(failures).as_secs()).collect();
        assert_eq!(ceilings, [1, 4, 16, 64, 256, 300]);
        assert_eq!(backoff.ceiling(i32::MAX).as_secs(), 300);
        for _ in 0..1_000 {
            assert!(backoff.wait(2, None) <= Duration::from_secs(4));
            let asked = Duration::from_secs(30);
            assert_eq!(backoff.wait(1, Some(asked)), asked);
            assert_eq!(backoff.wait(1, Some(Duration::from_secs(9_000))), backoff.cap);
        }
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<Duration> = (0..100).map(|_| Backoff::default().wait(3, None)).collect();
        assert!(waits.len() > 90, "{}", waits.len());
    }
}
