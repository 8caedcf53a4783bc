//! On which days a page of entries lies.

use super::LogPage;
use super::dates::{Dates, FAR, instant, length};
use crate::model::tally::Span;

/// Finds the days that hold a page, from how many entries each has.
#[derive(Debug)]
pub struct Days {
    dates: Dates,
    /// Entries of the page and before it, in all.
    reached: i64,
    offset: i64,
    /// Entries that are newer than the day to come.
    newer: i64,
    /// Entries that are newer than `dates.to` by now.
    passed: i64,
    has_begun: bool,
    is_found: bool,
}

impl Days {
    /// Looks for a page within `dates`, which end with `newest` entries after their last whole day.
    pub fn new(dates: Dates, newest: i64, page: LogPage) -> Days {
        let (offset, reached) = (page.offset(), page.offset() + i64::from(page.size));
        let (has_begun, is_found) = (newest > offset, newest >= reached);
        Days { dates, reached, offset, newer: newest, passed: 0, has_begun, is_found }
    }

    /// Whether all of the page is on days that were added.
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Adds the next older day, by its first second.
    pub fn add(&mut self, start: i64, count: i64) {
        if self.is_found {
            return;
        }
        if !self.has_begun && self.newer + count > self.offset {
            self.dates.to = Some(instant(start + length(Span::Day)));
            self.passed = self.newer;
            self.has_begun = true;
        }
        self.newer += count;
        if self.newer >= self.reached {
            self.dates.from = Some(instant(start));
            self.is_found = true;
        }
    }

    /// The days, and how many entries of them come before the page. `first` is the first second of the oldest whole day.
    pub fn done(mut self, first: i64) -> (Dates, i64) {
        if !self.has_begun && first > -FAR {
            // It is before every whole day.
            self.dates.to = Some(instant(first));
            self.passed = self.newer;
        }
        (self.dates, self.offset - self.passed)
    }
}
