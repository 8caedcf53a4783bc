//! What happened to integrations, as it is looked for, counted and shown.

pub mod buckets;
pub mod dates;

use std::collections::BTreeMap;

use uuid::Uuid;

use self::dates::Dates;
use super::integration::{Action, LogStatus};
use super::{Instant, Json};

/// Entries on a page when nobody says how many.
const PAGE_SIZE: u32 = 50;

/// Something that happened to an integration.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// UUID, version 7.
    pub id: Uuid,
    /// What it happened to.
    pub integration_id: Uuid,
    /// What happened.
    pub action: Action,
    /// How it ended.
    pub status: LogStatus,
    /// For people.
    pub message: String,
    /// What was asked.
    pub request: Option<Json>,
    /// What was answered.
    pub response: Option<Json>,
    /// Why it failed, with its class.
    pub error: Option<Json>,
    /// Milliseconds it took.
    pub duration: Option<i32>,
    /// The address of whoever caused it.
    pub ip: Option<String>,
    /// The user agent of whoever caused it.
    pub user_agent: Option<String>,
    /// Who caused it.
    pub user_id: Option<Uuid>,
    /// When.
    pub at: Instant,
}

/// Which entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only of this action.
    pub action: Option<Action>,
    /// Only with this status.
    pub status: Option<LogStatus>,
    /// Only of these dates.
    pub dates: Dates,
}

impl LogFilter {
    /// Whether entries of this kind come through, whatever their dates.
    pub fn takes(&self, action: Action, status: LogStatus) -> bool {
        self.action.is_none_or(|wanted| wanted == action) && self.status.is_none_or(|wanted| wanted == status)
    }

    /// Whether entries of every kind come through.
    pub fn takes_all(&self) -> bool {
        self.action.is_none() && self.status.is_none()
    }

    /// How many of what was counted come through.
    pub fn total(&self, counts: &LogCounts) -> i64 {
        counts.iter().filter(|((action, status), _)| self.takes(*action, *status)).map(|(_, count)| count).sum()
    }
}

/// A numbered page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// From 1.
    pub number: u32,
    /// Entries at most.
    pub size: u32,
}

impl LogPage {
    /// A page the codec has checked; the first of 50 when nobody says.
    pub fn new(number: Option<i32>, size: Option<i32>) -> LogPage {
        LogPage {
            number: number.map_or(1, |number| number.max(1).unsigned_abs()),
            size: size.map_or(PAGE_SIZE, |size| size.clamp(1, 200).unsigned_abs()),
        }
    }

    /// Entries before it.
    pub fn offset(&self) -> i64 {
        i64::from(self.number - 1) * i64::from(self.size)
    }

    /// Pages that `total` entries fill.
    pub fn of(&self, total: i64) -> i64 {
        let size = i64::from(self.size);
        total / size + i64::from(total % size > 0)
    }
}

/// How many entries there are of each action and status.
pub type LogCounts = BTreeMap<(Action, LogStatus), i64>;

/// A page of entries, with the counts of all.
#[derive(Clone, Debug, PartialEq)]
pub struct LogList {
    /// Newest first.
    pub entries: Vec<LogEntry>,
    /// Of everything within the dates.
    pub counts: LogCounts,
    /// Of what the filters let through.
    pub total: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_up_to_the_begun_one() {
        let page = LogPage::new(Some(3), None);
        assert_eq!((page.offset(), page.of(0), page.of(50), page.of(51), page.of(150)), (100, 0, 1, 2, 3));
        assert_eq!(LogPage::new(None, Some(200)), LogPage { number: 1, size: 200 });
    }
}
