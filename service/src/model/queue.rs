//! The queue in numbers, read from running counts and never from its history.

use std::time::Duration;

use uuid::Uuid;

use super::Instant;
use super::job::{JobState, Kind};
use super::tally::Sum;

/// How many jobs stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// May be claimed, or would be but for another job of their key that runs.
    pub waiting: i64,
    /// Of those waiting, the ones that wait for another job of their key to end.
    pub held: i64,
    /// A worker has them.
    pub active: i64,
    /// Their time has not come: retries that wait, and jobs asked for later.
    pub delayed: i64,
    /// Ever succeeded.
    pub completed: i64,
    /// Ever given up: the tries were used up, or trying again was pointless. One driven again and given up again counts
    /// twice.
    pub failed: i64,
    /// Ever called off by an administrator, or merged into a newer job of their unique key.
    pub cancelled: i64,
}

/// The jobs of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct KindStats {
    /// The kind.
    pub kind: Kind,
    /// How many stand where.
    pub counts: JobCounts,
    /// Since when its jobs are not claimed; `None` when they are.
    pub paused_since: Option<Instant>,
}

/// How long tries took, whatever their end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessingTime {
    /// Tries that ended.
    pub tries: i64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// Nineteen of twenty took no longer.
    pub p95: Duration,
    /// On average.
    pub mean: Duration,
}

/// A worker as the database knows it: one life of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// New at every start.
    pub id: Uuid,
    /// Process and machine, for people.
    pub name: String,
    /// When it signed on, by the database's clock.
    pub started_at: Instant,
    /// When it was last heard of, by the database's clock.
    pub beat_at: Instant,
    /// How long ago that was.
    pub silent: Duration,
    /// Jobs it has.
    pub active: i64,
}

/// The queue in more detail than a dashboard needs.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueReport {
    /// The numbers everybody sees.
    pub stats: QueueStats,
    /// Of tries that ended in the last 24 hours, to the hour; of all kinds first, then of each in its order.
    pub times: (Option<ProcessingTime>, Vec<Option<ProcessingTime>>),
    /// Dead letters there are now, of each kind in its order.
    pub dead: Vec<i64>,
    /// Workers, newest first.
    pub workers: Vec<Worker>,
    /// The database's name.
    pub backend: &'static str,
    /// Bytes the queue takes there, where that is known.
    pub bytes: Option<i64>,
}

/// The queue at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueStats {
    /// When it was read.
    pub as_of: Instant,
    /// All jobs.
    pub counts: JobCounts,
    /// Dead letters that can be driven again: the newest of those that were given up.
    pub dead: i64,
    /// When the oldest job that could run now was asked for; `None` when none waits.
    pub oldest_ready: Option<Instant>,
    /// Of tries that ended in this hour or the one before; `None` when there were none.
    pub processing_time: Option<ProcessingTime>,
    /// Every kind, in the order of importance.
    pub kinds: Vec<KindStats>,
}

impl QueueStats {
    /// How long the oldest job that could run now has waited.
    pub fn oldest_ready_age(&self) -> Option<Duration> {
        let age = self.as_of - self.oldest_ready?;
        Some(age.to_std().unwrap_or_default())
    }
}

impl JobCounts {
    /// Counts of one kind, from the running counts of jobs, which are labelled `kind.state`.
    pub fn of(kind: impl Into<Kind>, sums: &[Sum]) -> JobCounts {
        let kind = kind.into();
        let mut counts = JobCounts::default();
        for sum in sums {
            let Some((word, state)) = sum.label.split_once('.') else { continue };
            if word != kind.as_str() {
                continue;
            }
            let place = match JobState::parse(state) {
                Some(JobState::Ready | JobState::Held) => &mut counts.waiting,
                Some(JobState::Running) => &mut counts.active,
                Some(JobState::Scheduled) => &mut counts.delayed,
                Some(JobState::Done) => &mut counts.completed,
                Some(JobState::Dead) => &mut counts.failed,
                Some(JobState::Cancelled) => &mut counts.cancelled,
                None => continue,
            };
            *place += sum.count;
            if state == JobState::Held.as_str() {
                counts.held += sum.count;
            }
        }
        counts
    }
}

impl std::iter::Sum for JobCounts {
    fn sum<I: Iterator<Item = JobCounts>>(all: I) -> JobCounts {
        all.fold(JobCounts::default(), |sum, one| JobCounts {
            waiting: sum.waiting + one.waiting,
            held: sum.held + one.held,
            active: sum.active + one.active,
            delayed: sum.delayed + one.delayed,
            completed: sum.completed + one.completed,
            failed: sum.failed + one.failed,
            cancelled: sum.cancelled + one.cancelled,
        })
    }
}

impl ProcessingTime {
    /// Reads the running counts of tries, which are labelled `kind.class`: a class is a quarter of a doubling of
    /// microseconds, so a percentile is off by a fifth at most.
    pub fn of(sums: &[Sum]) -> Option<ProcessingTime> {
        let mut classes: Vec<(u32, i64)> = sums.iter().filter_map(class).filter(|(_, count)| *count > 0).collect();
        classes.sort_unstable();
        let tries: i64 = classes.iter().map(|(_, count)| count).sum();
        let micros: i64 = sums.iter().map(|sum| sum.amount).sum();
        (tries > 0).then(|| ProcessingTime {
            tries,
            p50: percentile(&classes, tries, 0.50),
            p95: percentile(&classes, tries, 0.95),
            mean: Duration::from_micros((micros.max(0) / tries) as u64),
        })
    }
}

/// The running counts of one kind.
pub fn of_kind(kind: impl Into<Kind>, sums: &[Sum]) -> Vec<Sum> {
    let kind = kind.into();
    let is_of = |sum: &&Sum| sum.label.split_once('.').is_some_and(|(word, _)| word == kind.as_str());
    sums.iter().filter(is_of).cloned().collect()
}

fn class(sum: &Sum) -> Option<(u32, i64)> {
    let (_, class) = sum.label.rsplit_once('.')?;
    Some((class.parse().ok()?, sum.count))
}

/// Within a class, tries are taken to lie evenly on its logarithmic scale.
fn percentile(classes: &[(u32, i64)], tries: i64, part: f64) -> Duration {
    let rank = part * tries as f64;
    let mut before = 0.0;
    for (class, count) in classes {
        let count = *count as f64;
        if before + count >= rank {
            let place = f64::from(*class) + (rank - before) / count;
            return Duration::from_secs_f64((place / 4.0).exp2() / 1e6);
        }
        before += count;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::tests::{CLEANUP, PROBE};

    fn sum(label: &str, count: i64, amount: i64) -> Sum {
        Sum { label: label.to_owned(), starts_at: 0, count, amount }
    }

    #[test]
    fn states_of_a_kind_are_added_to_what_people_call_them() {
        let sums = [
            sum("probe.ready", 3, 0),
            sum("probe.held", 2, 0),
            sum("probe.running", 1, 0),
            sum("probe.scheduled", 4, 0),
            sum("probe.done", 50, 0),
            sum("probe.dead", 6, 0),
            sum("probe.cancelled", 7, 0),
            sum("cleanup.ready", 100, 0),
            sum("nonsense", 100, 0),
        ];
        let expected = JobCounts { waiting: 5, held: 2, active: 1, delayed: 4, completed: 50, failed: 6, cancelled: 7 };
        assert_eq!(JobCounts::of(PROBE, &sums), expected);
        let all: JobCounts = [expected, JobCounts::of(CLEANUP, &sums)].into_iter().sum();
        assert_eq!((all.waiting, all.completed), (105, 50));
    }

    #[test]
    fn a_percentile_is_off_by_a_fifth_at_most() {
        assert_eq!(ProcessingTime::of(&[]), None);
        // A hundred tries of 1 ms, 2 ms, … 100 ms, as the queue classes them.
        let class = |micros: i64| (4.0 * (micros as f64).log2()).floor() as u32;
        let sums: Vec<Sum> = (1..=100).map(|ms| sum(&format!("probe.{}", class(ms * 1_000)), 1, ms * 1_000)).collect();
        let time = ProcessingTime::of(&sums).unwrap();
        assert_eq!((time.tries, time.mean), (100, Duration::from_micros(50_500)));
        let near = |found: Duration, true_ms: f64| (found.as_secs_f64() * 1e3 / true_ms - 1.0).abs() < 0.2;
        assert!(near(time.p50, 50.0) && near(time.p95, 95.0), "{time:?}");
    }
}
