//! What happened to an integration, page by page, with counts of all of it.
//!
//! Totals and statistics are read from running counts, and only the ends of a range that no bucket fits are counted
//! entry by entry. In a long log, a late page and one of few among many are looked for on their own days, and in their
//! own hours, which the counts tell: they cost what the first page does.

use uuid::Uuid;

use super::Hub;
use crate::model::integration_log::buckets::Buckets;
use crate::model::integration_log::dates::Dates;
use crate::model::integration_log::{LogCounts, LogFilter, LogList, LogPage};
use crate::model::tally::Span;
use crate::model::{Error, Result};
use crate::storage::{self, integration_count, integration_log};

/// Entries that an index is walked along without knowing the days.
const WALKED: i64 = 5_000;
/// Entries of a day that are passed by without knowing its hours.
const PASSED: i64 = 2_000;
/// Days, or hours, that are looked at in one statement.
const BUCKETS: u32 = 64;

impl Hub {
    /// A page of an integration's log, newest first.
    pub async fn list_integration_logs(&self, id: Uuid, filter: &LogFilter, page: LogPage) -> Result<LogList> {
        let (read, dialect) = (self.store.read(), self.store.dialect());
        if storage::integration::find(read, id).await?.is_none() {
            return Err(Error::NotFound { what: "integration" });
        }
        let counts = self.count_integration_logs(id, filter.dates).await?;
        let total = filter.total(&counts);
        if page.offset() >= total {
            return Ok(LogList { entries: Vec::new(), counts, total });
        }
        let (mut filter, mut place) = (*filter, (page.offset(), page.size));
        let reached = page.offset() + i64::from(page.size);
        if counts.values().sum::<i64>() > WALKED && (!filter.takes_all() || reached > WALKED) {
            (filter.dates, place.0) = self.narrow(id, &filter, place, Span::Day).await?;
        }
        if place.0 > PASSED && filter.dates.has_hours(self.now()) {
            (filter.dates, place.0) = self.narrow(id, &filter, place, Span::Hour).await?;
        }
        let entries = integration_log::page(read, dialect, id, &filter, place).await?;
        Ok(LogList { entries, counts, total })
    }

    async fn count_integration_logs(&self, id: Uuid, dates: Dates) -> Result<LogCounts> {
        let pieces = dates.pieces(self.now());
        integration_count::of_kinds(self.store.read(), self.store.dialect(), id, &pieces).await
    }

    /// The days, or the hours, that hold the `size` entries after so many; and how many entries of them come before.
    async fn narrow(
        &self,
        id: Uuid,
        filter: &LogFilter,
        (offset, size): (i64, u32),
        span: Span,
    ) -> Result<(Dates, i64)> {
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let (whole, newest) = filter.dates.whole(span);
        let newer = match newest {
            Some(dates) => filter.total(&self.count_integration_logs(id, dates).await?),
            None => 0,
        };
        let mut buckets = Buckets::new(span, filter.dates, newer, (offset, size));
        let mut before = whole.1;
        while !buckets.is_found() {
            let range = (whole.0, before);
            let found = integration_count::of_buckets(read, dialect, id, filter, span, range, BUCKETS).await?;
            for (start, count) in &found {
                buckets.add(*start, *count);
                before = *start;
            }
            if found.len() < BUCKETS as usize {
                break;
            }
        }
        Ok(buckets.done(whole.0))
    }
}
