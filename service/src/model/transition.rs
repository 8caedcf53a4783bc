//! What happens to a job, as those who watch the queue are told.

use uuid::Uuid;

use super::job::{Job, Kind, NewJob};
use super::words::words;

words! {
    /// What happens to a job.
    JobStep {
        /// It was asked for.
        Enqueued = "enqueued",
        /// It may be claimed: its time came, its key is free again, or its worker died or handed it back.
        Ready = "ready",
        /// It waits for another job of its key to end.
        Held = "held",
        /// A worker claimed it.
        Running = "running",
        /// A try failed; it waits for the next.
        Scheduled = "scheduled",
        /// It succeeded.
        Done = "done",
        /// It was given up.
        Dead = "dead",
        /// It was called off, or merged into another of its unique key.
        Cancelled = "cancelled",
    }
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The job.
    pub id: Uuid,
    /// What it does.
    pub kind: Kind,
    /// Whose turn it takes.
    pub key: String,
    /// What happened.
    pub step: JobStep,
    /// Tries that had failed by then.
    pub attempts: i32,
    /// How often it had been claimed.
    pub lease: i64,
    /// Who has it, while it runs.
    pub worker_id: Option<Uuid>,
    /// What went wrong, when something did.
    pub error: Option<String>,
}

impl Transition {
    /// A job that was asked for.
    pub fn enqueued(job: &NewJob) -> Transition {
        Transition {
            id: job.id,
            kind: job.kind,
            key: job.key.clone(),
            step: JobStep::Enqueued,
            attempts: 0,
            lease: 0,
            worker_id: None,
            error: None,
        }
    }

    /// A job that comes to a step.
    pub fn of(job: &Job, step: JobStep) -> Transition {
        Transition {
            id: job.id,
            kind: job.kind,
            key: job.key.clone(),
            step,
            attempts: job.attempts,
            lease: job.lease,
            worker_id: None,
            error: None,
        }
    }

    /// A try that failed.
    pub fn failed(job: &Job, step: JobStep, error: impl Into<String>) -> Transition {
        Transition { attempts: job.attempts + 1, error: Some(error.into()), ..Transition::of(job, step) }
    }
}

/// Which transitions somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransitionFilter {
    /// Only of this job.
    pub id: Option<Uuid>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this key.
    pub key: Option<String>,
}

impl TransitionFilter {
    /// Whether it is one of those.
    pub fn admits(&self, transition: &Transition) -> bool {
        self.id.is_none_or(|id| id == transition.id)
            && self.kind.is_none_or(|kind| kind == transition.kind)
            && self.key.as_ref().is_none_or(|key| *key == transition.key)
    }
}
