//! Whose turn it is: start-time fair queueing, so that keys take turns and one long backlog holds nobody up.
//!
//! A job's turn is one later than the last of its key, and not earlier than the turn its kind has come to. Jobs are
//! claimed in the order of their turns, so a key with a thousand jobs and a key with one share a kind as two people
//! share a queue, and a claim is a walk down an index however many keys there are.
//!
//! The turns given are remembered in memory, per hub: what is forgotten at a restart costs a few places in the
//! queue, never a job. The turn a kind has come to is what this hub has claimed or, with each look at a queue that is
//! shared, has seen that others claimed: a hub that seldom claims gives nobody an earlier turn than the others do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::job::Kind;

/// Keys remembered; beyond, those whose turn has passed are forgotten.
const REMEMBERED: usize = 100_000;

/// The turns given by this hub.
#[derive(Default)]
pub struct Turns(Mutex<Given>);

#[derive(Default)]
struct Given {
    /// The turn each kind has come to.
    now: HashMap<Kind, i64>,
    /// The last turn given to a key.
    last: HashMap<Kind, HashMap<String, i64>>,
    remembered: usize,
}

impl Turns {
    /// The turn of the next job of a key.
    pub fn give(&self, kind: Kind, key: &str) -> i64 {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = given.now.get(&kind).copied().unwrap_or(0);
        if given.remembered > REMEMBERED {
            given.forget();
        }
        let keys = given.last.entry(kind).or_default();
        if let Some(last) = keys.get_mut(key) {
            *last = (*last).max(now) + 1;
            return *last;
        }
        keys.insert(key.to_owned(), now + 1);
        given.remembered += 1;
        now + 1
    }

    /// Notes the turn a kind has come to.
    pub fn reached(&self, kind: Kind, turn: i64) {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = given.now.entry(kind).or_insert(turn);
        *now = turn.max(*now);
    }
}

impl Given {
    fn forget(&mut self) {
        for (kind, keys) in &mut self.last {
            let now = self.now.get(kind).copied().unwrap_or(0);
            keys.retain(|_, last| *last > now);
        }
        self.remembered = self.last.values().map(HashMap::len).sum();
        if self.remembered > REMEMBERED {
            // So many keys wait at once that fairness among them means little.
            self.last.clear();
            self.remembered = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::tests::{CLEANUP, PROBE};

    #[test]
    fn keys_take_turns_and_a_newcomer_waits_for_nobodys_backlog() {
        let turns = Turns::default();
        let busy: Vec<i64> = (0..1_000).map(|_| turns.give(PROBE, "busy")).collect();
        assert_eq!(busy, (1..=1_000).collect::<Vec<_>>());
        turns.reached(PROBE, 10);
        assert_eq!(turns.give(PROBE, "new"), 11);
        assert_eq!(turns.give(PROBE, "new"), 12);
        turns.reached(PROBE, 500);
        assert_eq!(turns.give(PROBE, "new"), 501);
        assert_eq!(turns.give(PROBE, "busy"), 1_001);
        assert_eq!(turns.give(CLEANUP, "busy"), 1);
    }

    #[test]
    fn a_million_keys_are_not_remembered() {
        let turns = Turns::default();
        for at in 0..300_000 {
            turns.give(PROBE, &at.to_string());
        }
        assert!(turns.0.lock().unwrap().remembered <= REMEMBERED + 1);
    }
}
