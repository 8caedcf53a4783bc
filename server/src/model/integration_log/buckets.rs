//! In which buckets of the running counts a page of entries lies.

use super::dates::{Dates, FAR, instant, length};
use crate::model::tally::Span;

/// Finds the days, or the hours, that hold a page, from how many entries each has.
#[derive(Debug)]
pub struct Buckets {
    span: Span,
    dates: Dates,
    /// Entries of the page and before it, in all.
    reached: i64,
    offset: i64,
    /// Entries that are newer than the bucket to come.
    newer: i64,
    /// Entries that are newer than `dates.to` by now.
    passed: i64,
    has_begun: bool,
    is_found: bool,
}

impl Buckets {
    /// Looks for the `size` entries after so many of `dates`, which end with `newest` entries after their last whole
    /// bucket.
    pub fn new(span: Span, dates: Dates, newest: i64, (offset, size): (i64, u32)) -> Buckets {
        let reached = offset + i64::from(size);
        let (has_begun, is_found) = (newest > offset, newest >= reached);
        Buckets { span, dates, reached, offset, newer: newest, passed: 0, has_begun, is_found }
    }

    /// Whether all of the page is in buckets that were added.
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Adds the next older bucket, by its first second.
    pub fn add(&mut self, start: i64, count: i64) {
        if self.is_found {
            return;
        }
        if !self.has_begun && self.newer + count > self.offset {
            self.dates.to = Some(instant(start + length(self.span)));
            self.passed = self.newer;
            self.has_begun = true;
        }
        self.newer += count;
        if self.newer >= self.reached {
            self.dates.from = Some(instant(start));
            self.is_found = true;
        }
    }

    /// Their range of time, and how many entries of it come before the page. `first` is the first second of the oldest
    /// whole bucket.
    pub fn done(mut self, first: i64) -> (Dates, i64) {
        if !self.has_begun && first > -FAR {
            // It is before every whole bucket.
            self.dates.to = Some(instant(first));
            self.passed = self.newer;
        }
        (self.dates, self.offset - self.passed)
    }
}
