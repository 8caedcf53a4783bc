//! The queue as administrators see it.

use chrono::TimeDelta;

use super::Hub;
use crate::model::Result;
use crate::model::job::JobKind;
use crate::model::queue::{JobCounts, KindStats, ProcessingTime, QueueStats};
use crate::model::tally::{Metric, Span};
use crate::storage::{self, tally};

/// Dead letters counted at most: the queue keeps far fewer.
const COUNTED: u64 = 100_000;

impl Hub {
    /// The queue in numbers. What it costs does not depend on how much waits or ever was done.
    pub async fn queue_stats(&self) -> Result<QueueStats> {
        let (store, now) = (&self.store, self.now());
        let (read, dialect) = (store.read(), store.dialect());
        let sums = tally::sums(read, dialect, (Metric::Jobs, Span::Total), (0, 1), false).await?;
        let since = Span::Hour.start(now - TimeDelta::hours(1));
        let times = tally::sums(read, dialect, (Metric::JobTimes, Span::Hour), (since, i64::MAX), false).await?;
        let paused = storage::job::paused(read, dialect).await?;
        let kind = |kind: &JobKind| KindStats {
            kind: *kind,
            counts: JobCounts::of(*kind, &sums),
            paused_since: paused.iter().find(|(paused, _)| paused == kind).map(|(_, since)| *since),
        };
        let kinds: Vec<KindStats> = JobKind::ALL.iter().map(kind).collect();
        Ok(QueueStats {
            as_of: now,
            counts: kinds.iter().map(|kind| kind.counts).sum(),
            dead: storage::job::count_dead(read, dialect, COUNTED).await?,
            oldest_ready: storage::job::oldest_ready(read, dialect).await?,
            processing_time: ProcessingTime::of(&times),
            kinds,
        })
    }
}
