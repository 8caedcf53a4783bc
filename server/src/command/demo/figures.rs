//! The numbers at the end.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Paint;
use crate::command::table::columns;

/// What one user used in this month, by either side's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whose it is.
    pub user: &'static str,
    /// Units and batches as the hub counts them.
    pub hub: (i64, i64),
    /// Units and batches as CreatorUp counts them.
    pub creatorup: (i64, i64),
}

/// Everything that is counted at the end.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// All users of the hub, the administrator among them, and those whom CreatorUp has confirmed.
    pub users: (i64, i64),
    /// Batches there are, and those that were rendered.
    pub batches: (i64, i64),
    /// Videos that were rendered.
    pub videos: i64,
    /// Usage webhooks that the hub has applied.
    pub webhooks: i64,
    /// Longest time from the end of a batch to its place in the hub's ledger, in milliseconds.
    pub slowest_report_ms: Option<i64>,
    /// From CreatorUp's return until it knew what it had missed, in milliseconds.
    pub catch_up_ms: i64,
    /// Usage by user.
    pub usage: Vec<Usage>,
    /// The hub's queue: jobs that wait, run, wait for their time, are done, are dead letters.
    pub queue: [i64; 5],
    /// Share of the sync events that came to a good end.
    pub success_rate: Option<f64>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Figures {
    /// Whether both sides say the same about everybody, and everybody is known to both.
    pub fn agree(&self) -> bool {
        let (all, synced) = self.users;
        all == synced && !self.usage.is_empty() && self.usage.iter().all(|usage| usage.hub == usage.creatorup)
    }

    /// For programs.
    pub fn json(&self, took: Duration, kept: Option<Value>) -> Value {
        let usage = self.usage.iter().map(|usage| {
            json!({
                "user": usage.user,
                "hub": { "units": usage.hub.0, "batches": usage.hub.1 },
                "creatorup": { "units": usage.creatorup.0, "batches": usage.creatorup.1 },
            })
        });
        let [waiting, active, delayed, done, dead] = self.queue;
        let mut all = json!({
            "agree": self.agree(),
            "took_ms": took.as_millis() as u64,
            "users": { "total": self.users.0, "synced": self.users.1 },
            "batches": { "total": self.batches.0, "completed": self.batches.1, "videos": self.videos },
            "webhooks": { "processed": self.webhooks, "slowest_ms": self.slowest_report_ms },
            "catch_up_ms": self.catch_up_ms,
            "usage": usage.collect::<Vec<_>>(),
            "queue": { "waiting": waiting, "active": active, "delayed": delayed, "done": done, "dead": dead },
            "success_rate": self.success_rate,
            "skipped": self.skipped,
        });
        if let Some(kept) = kept {
            all["kept"] = kept;
        }
        all
    }

    /// For people.
    pub fn table(&self, took: Duration, paint: Paint) -> String {
        let both = |(units, batches): (i64, i64)| format!("{units} in {batches}");
        let mut rows: Vec<[String; 3]> = self
            .usage
            .iter()
            .map(|usage| [format!("{}, units in batches", usage.user), both(usage.hub), both(usage.creatorup)])
            .collect();
        let sum = |side: fn(&Usage) -> (i64, i64)| {
            self.usage.iter().map(side).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
        };
        rows.push(["all of this month".to_owned(), both(sum(|one| one.hub)), both(sum(|one| one.creatorup))]);
        let [waiting, active, delayed, done, dead] = self.queue;
        let rate = self.success_rate.map_or("none yet".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
        let report = self
            .slowest_report_ms
            .map_or(String::new(), |slowest| format!(", the slowest {slowest} ms after the batch"));
        let lines = [
            ("users synced", format!("{} of {}", self.users.1, self.users.0)),
            ("batches", format!("{}, {} rendered, {} videos", self.batches.0, self.batches.1, self.videos)),
            ("webhooks", format!("{} applied{report}", self.webhooks)),
            (
                "hub's queue",
                format!("{waiting} waiting, {active} running, {delayed} delayed, {done} done, {dead} dead"),
            ),
            ("success rate", rate),
            ("caught up in", format!("{} ms", self.catch_up_ms)),
            ("left out", if self.skipped.is_empty() { "nothing".to_owned() } else { self.skipped.join("; ") }),
        ];
        let lines = lines.map(|(name, value)| format!("{name:<14}{value}")).join("\n");
        let verdict = match self.agree() {
            true => paint.good("Both sides agree."),
            false => paint.bad("The two sides do not agree."),
        };
        let usage = columns(["USAGE", "HUB", "CREATORUP"], &rows);
        format!("\n{usage}\n\n{lines}\n\n{verdict} {:.1} seconds.", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let usage = Usage { user: "Ana", hub: (2, 1), creatorup: (2, 1) };
        Figures { users: (5, 5), usage: vec![usage], ..Figures::default() }
    }

    #[test]
    fn the_sides_agree_only_when_every_user_is_known_and_counted_alike() {
        assert!(figures().agree());
        assert!(!Figures { users: (5, 4), ..figures() }.agree());
        assert!(!Figures { usage: Vec::new(), ..figures() }.agree(), "nothing is no proof");
        for creatorup in [(3, 1), (2, 2)] {
            let usage = Usage { user: "Ana", hub: (2, 1), creatorup };
            assert!(!Figures { usage: vec![usage], ..figures() }.agree(), "{creatorup:?}");
        }
    }
}
