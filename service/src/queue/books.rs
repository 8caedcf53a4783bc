//! A worker's books: what it holds as it knows itself. They are compared with what the database says it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::model::job::{Job, KindRule};

/// The leases of one life of a worker.
#[derive(Default)]
pub(super) struct Books(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    held: HashMap<Uuid, Held>,
    /// Counts up as a claim begins and as it ends, so it is odd while one is under way.
    claims: u64,
}

struct Held {
    lease: i64,
    leaves_a_slot: bool,
    is_apart: bool,
    called_off: CancellationToken,
}

/// How many jobs a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// In the slots that all kinds share.
    pub shared: usize,
    /// Of those, how many leave a slot to the others.
    pub leaving: usize,
    /// In the slots of those that are apart.
    pub apart: usize,
}

/// The books at one instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The jobs with their leases.
    pub leases: HashMap<Uuid, i64>,
    claims: u64,
}

/// What a comparison with the database found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Held in the books, and no longer in the database: called off, or taken.
    pub lost: Vec<(Uuid, i64)>,
    /// Held in the database, and not in the books: nobody here works on these.
    pub forgotten: Vec<(Uuid, i64)>,
}

/// A job's line in the books, which is struck out when the task that has it ends, however it does.
pub(super) struct Line {
    books: Arc<Books>,
    id: Uuid,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.books.pages().held.remove(&self.id);
    }
}

impl Books {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a claim begins, or that all it took is entered: until then the database knows more than the books.
    pub fn turn_claim(&self) {
        self.pages().claims += 1;
    }

    /// Enters a job; answers with its line, and with what tells its handler to stop.
    pub fn enter(self: &Arc<Self>, job: &Job) -> (Line, CancellationToken) {
        let called_off = CancellationToken::new();
        let KindRule { leaves_a_slot, is_apart, .. } = job.kind.rule();
        let held = Held { lease: job.lease, leaves_a_slot, is_apart, called_off: called_off.clone() };
        self.pages().held.insert(job.id, held);
        (Line { books: self.clone(), id: job.id }, called_off)
    }

    /// How many jobs are held.
    pub fn count(&self) -> Count {
        let pages = self.pages();
        let count = |counts: fn(&Held) -> bool| pages.held.values().filter(|held| counts(held)).count();
        let apart = count(|held| held.is_apart);
        Count { shared: pages.held.len() - apart, leaving: count(|held| held.leaves_a_slot && !held.is_apart), apart }
    }

    /// Stops the handler of a job, under any lease or under this one.
    pub fn stop(&self, id: Uuid, lease: Option<i64>) {
        if let Some(held) = self.pages().held.get(&id).filter(|held| lease.is_none_or(|lease| lease == held.lease)) {
            held.called_off.cancel();
        }
    }

    /// The books as they are.
    pub fn read(&self) -> Page {
        let pages = self.pages();
        Page { leases: pages.held.iter().map(|(id, held)| (*id, held.lease)).collect(), claims: pages.claims }
    }

    /// Compares the books, as they were `before` the database was asked, with what it said.
    ///
    /// What was in the books was in the database by then, unless its lease is over. The other way round holds only
    /// while nothing was being claimed.
    pub fn compare(&self, before: &Page, stored: &HashMap<Uuid, i64>) -> Findings {
        let not_in = |one: &HashMap<Uuid, i64>, other: &HashMap<Uuid, i64>| {
            let missing = one.iter().filter(|(id, lease)| other.get(id) != Some(lease));
            missing.map(|(id, lease)| (*id, *lease)).collect::<Vec<_>>()
        };
        let is_quiet = before.claims.is_multiple_of(2) && self.pages().claims == before.claims;
        let forgotten = if is_quiet { not_in(stored, &before.leases) } else { Vec::new() };
        Findings { lost: not_in(&before.leases, stored), forgotten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Json;
    use crate::model::job::{Kind, KindSpec};

    const RULE: KindRule = KindRule {
        priority: 1,
        deadline: std::time::Duration::from_secs(60),
        per_key: None,
        leaves_a_slot: true,
        is_apart: false,
    };
    const ANY: Kind = Kind::new(&KindSpec { word: "any", rule: RULE });

    fn job(lease: i64) -> Job {
        Job {
            id: Uuid::now_v7(),
            kind: ANY,
            key: String::new(),
            unique_key: None,
            lease,
            payload: Json::Null,
            event_id: None,
            attempts: 0,
            max_retries: 3,
            rescues: 0,
            errors: None,
            created_at: Default::default(),
        }
    }

    #[test]
    fn what_only_one_side_knows_is_found_and_a_claim_under_way_is_not_taken_for_forgotten() {
        let (books, ours, theirs) = (Arc::new(Books::default()), job(2), job(1));
        let stored = |jobs: &[&Job]| jobs.iter().map(|job| (job.id, job.lease)).collect::<HashMap<_, _>>();
        let (line, called_off) = books.enter(&ours);
        assert_eq!(books.compare(&books.read(), &stored(&[&ours])), Findings::default());
        let lost = Findings { lost: vec![(ours.id, 2)], forgotten: vec![] };
        assert_eq!(books.compare(&books.read(), &stored(&[])), lost);
        let forgotten = Findings { lost: vec![], forgotten: vec![(theirs.id, 1)] };
        assert_eq!(books.compare(&books.read(), &stored(&[&ours, &theirs])), forgotten);
        let before = books.read();
        books.turn_claim();
        assert_eq!(books.compare(&before, &stored(&[&ours, &theirs])), Findings::default(), "a claim has begun");
        assert_eq!(books.compare(&books.read(), &stored(&[&ours, &theirs])), Findings::default(), "it is under way");
        books.turn_claim();
        assert_eq!(books.compare(&before, &stored(&[&ours, &theirs])), Findings::default(), "one came and went");
        assert_eq!(books.compare(&books.read(), &stored(&[&ours, &theirs])), forgotten);
        books.stop(ours.id, Some(1));
        assert!(!called_off.is_cancelled(), "another lease of it");
        books.stop(ours.id, Some(2));
        assert!(called_off.is_cancelled());
        assert_eq!(books.count(), Count { shared: 1, leaving: 1, apart: 0 });
        drop(line);
        assert_eq!(books.count(), Count { shared: 0, leaving: 0, apart: 0 });
    }
}
