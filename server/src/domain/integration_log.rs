//! What happened to an integration, page by page, with counts of all of it.
//!
//! Totals and statistics are read from running counts, and only the ends of a range that no bucket fits are counted
//! entry by entry. In a long log, a late page and one of few among many are looked for on their own days, which the
//! counts tell: they cost what the first page does.

use uuid::Uuid;

use super::Hub;
use crate::model::integration_log::dates::Dates;
use crate::model::integration_log::days::Days;
use crate::model::integration_log::{LogCounts, LogFilter, LogList, LogPage};
use crate::model::{Error, Result};
use crate::storage::{self, integration_count, integration_log};

/// Entries that an index is walked along without knowing the days.
const WALKED: i64 = 5_000;
/// Days that are looked at in one statement.
const DAYS: u32 = 64;

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
        let reached = page.offset() + i64::from(page.size);
        let is_long = counts.values().sum::<i64>() > WALKED && (!filter.takes_all() || reached > WALKED);
        let (dates, passed) =
            if is_long { self.days_of_page(id, filter, page).await? } else { (filter.dates, page.offset()) };
        let filter = LogFilter { dates, ..*filter };
        let entries = integration_log::page(read, dialect, id, &filter, (passed, page.size)).await?;
        Ok(LogList { entries, counts, total })
    }

    async fn count_integration_logs(&self, id: Uuid, dates: Dates) -> Result<LogCounts> {
        let pieces = dates.pieces(self.now());
        integration_count::of_kinds(self.store.read(), self.store.dialect(), id, &pieces).await
    }

    /// The days that hold a page, and how many entries of them come before it.
    async fn days_of_page(&self, id: Uuid, filter: &LogFilter, page: LogPage) -> Result<(Dates, i64)> {
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let (whole, newest) = filter.dates.whole_days();
        let newer = match newest {
            Some(dates) => filter.total(&self.count_integration_logs(id, dates).await?),
            None => 0,
        };
        let mut days = Days::new(filter.dates, newer, page);
        let mut before = whole.1;
        while !days.is_found() {
            let found = integration_count::of_days(read, dialect, id, filter, (whole.0, before), DAYS).await?;
            for (start, count) in &found {
                days.add(*start, *count);
                before = *start;
            }
            if found.len() < DAYS as usize {
                break;
            }
        }
        Ok(days.done(whole.0))
    }
}
