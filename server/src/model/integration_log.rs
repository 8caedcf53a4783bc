//! What happened to integrations, as it is looked for, counted and shown.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

use super::integration::{Action, LogStatus};
use super::period::Stretch;
use super::retention::{HOUR_COUNT_DAYS, INTEGRATION_MINUTE_DAYS};
use super::tally::Span;
use super::{Error, Instant, Json, Result};

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

/// A range of time `[from, to)`, open where there is no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dates {
    /// Its first instant.
    pub from: Option<Instant>,
    /// The first instant after it.
    pub to: Option<Instant>,
}

/// What a range of time is counted from: buckets of running counts, and for what no bucket fits the entries themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Whole buckets.
    pub stretches: Vec<Stretch>,
    /// What is left over at the ends: `[from, to)`.
    pub rests: Vec<(Instant, Instant)>,
}

impl Dates {
    /// Reads two dates, or times: a date as the last one includes its day.
    pub fn parse(start_date: Option<&str>, end_date: Option<&str>) -> Result<Dates> {
        let from = start_date.map(|text| read(text, "start_date", TimeDelta::zero())).transpose()?;
        let to = end_date.map(|text| read(text, "end_date", TimeDelta::days(1))).transpose()?;
        // A day holds something; an instant may be asked for in vain.
        let is_day = end_date.is_some_and(|text| text.len() == 10);
        match (from, to) {
            (Some(from), Some(to)) if from > to || (is_day && from == to) => {
                Err(Error::invalid("start_date", "must not be after end_date"))
            }
            _ => Ok(Dates { from, to }),
        }
    }

    /// Cuts the range into buckets and what is left over. Buckets of a minute and of an hour are not kept for ever; an
    /// end that is older is counted from the entries of its hour or its day.
    pub fn pieces(&self, now: Instant) -> Pieces {
        let mut pieces = Pieces::default();
        if *self == Dates::default() {
            pieces.stretches.push(Stretch { span: Span::Total, from: 0, to: 1 });
            return pieces;
        }
        let first = self.from.map(|at| (at, finest(at, now)));
        let last = self.to.map(|at| (at, finest(at, now)));
        // Whole buckets between the ends; far away where there is none.
        let from = first.map_or(-FAR, |(at, span)| ceil(at, length(span)));
        let to = last.map_or(FAR, |(at, span)| floor(at.timestamp(), length(span)));
        if from > to {
            // Both ends are in one bucket, or the coarser one of the first takes the last in.
            pieces.rests.extend(self.from.zip(self.to));
        } else {
            pieces.rests.extend(first.map(|(at, _)| (at, instant(from))));
            pieces.cut(from, to);
            pieces.rests.extend(last.map(|(at, _)| (instant(to), at)));
        }
        pieces.rests.retain(|(from, to)| from < to);
        pieces.stretches.retain(|stretch| stretch.from < stretch.to);
        pieces
    }
}

impl Dates {
    /// Starts of the whole days within, `[first, last)`, and what is left over after them.
    pub fn whole_days(&self) -> ((i64, i64), Option<Dates>) {
        let day = length(Span::Day);
        let first = self.from.map_or(-FAR, |at| ceil(at, day));
        let last = self.to.map_or(FAR, |at| floor(at.timestamp(), day));
        if first > last {
            return ((first, first), Some(*self));
        }
        let newest = self.to.filter(|to| instant(last) < *to);
        ((first, last), newest.map(|to| Dates { from: Some(instant(last)), to: Some(to) }))
    }
}

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

impl Pieces {
    /// Fills `[from, to)` with buckets: finer ones up to the first whole hour and day, and from the last on.
    fn cut(&mut self, from: i64, to: i64) {
        let up = |second: i64, span: Span| second + (-second).rem_euclid(length(span));
        let (hour_from, hour_to) = (up(from, Span::Hour), floor(to, length(Span::Hour)));
        if hour_from > hour_to {
            self.push(Span::Minute, from, to);
            return;
        }
        let (day_from, day_to) = (up(hour_from, Span::Day), floor(hour_to, length(Span::Day)));
        self.push(Span::Minute, from, hour_from);
        if day_from > day_to {
            self.push(Span::Hour, hour_from, hour_to);
        } else {
            self.push(Span::Hour, hour_from, day_from);
            self.push(Span::Day, day_from, day_to);
            self.push(Span::Hour, day_to, hour_to);
        }
        self.push(Span::Minute, hour_to, to);
    }

    fn push(&mut self, span: Span, from: i64, to: i64) {
        self.stretches.push(Stretch { span, from, to });
    }
}

/// A midnight beyond every entry.
const FAR: i64 = 100_000_000 * 86_400;

fn length(span: Span) -> i64 {
    match span {
        Span::Minute => 60,
        Span::Hour => 3_600,
        _ => 86_400,
    }
}

/// The shortest buckets there surely are around `at`: a day less than they are kept for, because whoever removes them
/// goes by a clock of their own.
fn finest(at: Instant, now: Instant) -> Span {
    let age = now - at;
    if age < TimeDelta::days(INTEGRATION_MINUTE_DAYS - 1) {
        Span::Minute
    } else if age < TimeDelta::days(HOUR_COUNT_DAYS - 1) {
        Span::Hour
    } else {
        Span::Day
    }
}

fn floor(second: i64, length: i64) -> i64 {
    second - second.rem_euclid(length)
}

fn ceil(at: Instant, length: i64) -> i64 {
    let second = at.timestamp() + i64::from(at.timestamp_subsec_nanos() > 0);
    second + (-second).rem_euclid(length)
}

fn instant(second: i64) -> Instant {
    DateTime::from_timestamp(second, 0).unwrap_or_default()
}

/// A date as its first instant and `more`, or a time as it is; kept within the years that have four digits, because
/// times are compared as text where they are kept as text.
fn read(text: &str, field: &'static str, more: TimeDelta) -> Result<Instant> {
    let refused = || {
        let example = "such as 2026-02-21, or an RFC 3339 time such as 2026-02-21T10:00:00Z (in a query, + is %2B)";
        Error::invalid(field, format!("must be a date {example}"))
    };
    let at = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) if text.len() == 10 => date.and_time(NaiveTime::MIN).and_utc() + more,
        _ => DateTime::parse_from_rfc3339(text).map_err(|_| refused())?.with_timezone(&Utc),
    };
    Ok(at.trunc_subsecs(6).clamp(instant(FIRST), instant(LAST)))
}

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    fn cut(from: &str, to: &str, now: &str) -> Vec<String> {
        let end = |text: &str| (!text.is_empty()).then(|| at(text));
        let pieces = Dates { from: end(from), to: end(to) }.pieces(at(now));
        let time = |second: i64| match second {
            second if second == -FAR => "ever".to_owned(),
            FAR => "now on".to_owned(),
            second => instant(second).format("%d %H:%M").to_string(),
        };
        let stretches = pieces.stretches.iter();
        let shown = stretches.map(|one| format!("{} {} to {}", one.span.as_str(), time(one.from), time(one.to)));
        let rests =
            pieces.rests.iter().map(|(from, to)| format!("{} to {}", from.format("%d %T%.f"), to.format("%d %T%.f")));
        shown.chain(rests).collect()
    }

    #[test]
    fn a_range_is_cut_into_the_coarsest_buckets_and_what_is_left_over() {
        let now = "2026-03-15T12:00:00Z";
        assert_eq!(cut("", "", now), ["total 01 00:00 to 01 00:00"]);
        let pieces = [
            "minute 13 22:59 to 13 23:00",
            "hour 13 23:00 to 14 00:00",
            "day 14 00:00 to 15 00:00",
            "hour 15 00:00 to 15 02:00",
            "minute 15 02:00 to 15 02:02",
            "13 22:58:30 to 13 22:59:00",
            "15 02:02:00 to 15 02:02:00.500",
        ];
        assert_eq!(cut("2026-03-13T22:58:30Z", "2026-03-15T02:02:00.5Z", "2026-03-14T12:00:00Z"), pieces);
        assert_eq!(cut("2026-03-15T10:00:10Z", "2026-03-15T10:00:50Z", now), ["15 10:00:10 to 15 10:00:50"]);
        assert_eq!(cut("2026-03-15T10:00:00Z", "2026-03-15T10:00:00Z", now), [""; 0]);
        assert_eq!(cut("2026-03-15T00:00:00Z", "", now), ["day 15 00:00 to now on"]);
        // Minutes that old may be gone, so an hour's entries are counted, and of hours a day's.
        let pieces = ["day ever to 01 00:00", "hour 01 00:00 to 01 05:00", "01 05:00:00 to 01 05:30:00"];
        assert_eq!(cut("", "2026-02-01T05:30:00Z", now), pieces);
        assert_eq!(cut("", "2024-03-01T05:30:00Z", now), ["day ever to 01 00:00", "01 00:00:00 to 01 05:30:00"]);
    }

    #[test]
    fn the_pieces_of_a_range_leave_nothing_out_and_take_nothing_twice() {
        let now = at("2026-03-15T12:00:00Z");
        let mut state = 7_u64;
        let mut random = |most: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as i64).rem_euclid(most)
        };
        for _ in 0..5_000 {
            let scale = [90, 7_200, 200_000, 5_000_000, 50_000_000][random(5) as usize];
            let from = now - TimeDelta::seconds(random(scale)) - TimeDelta::milliseconds(random(2) * random(1_000));
            let to = from + TimeDelta::seconds(random(scale)) + TimeDelta::milliseconds(random(2) * random(1_000));
            let pieces = Dates { from: Some(from), to: Some(to) }.pieces(now);
            let stretches = pieces.stretches.iter().map(|one| (instant(one.from), instant(one.to)));
            let mut parts: Vec<(Instant, Instant)> = stretches.chain(pieces.rests.iter().copied()).collect();
            parts.sort();
            assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0), "{from} to {to}: {parts:?}");
            let ends = parts.first().zip(parts.last()).map(|(first, last)| (first.0, last.1));
            assert_eq!(ends, (from < to).then_some((from, to)));
            let aligned = |one: &Stretch| one.from % length(one.span) == 0 && one.to % length(one.span) == 0;
            assert!(pieces.stretches.iter().all(aligned));
        }
    }

    #[test]
    fn dates_include_their_last_day_and_times_do_not_include_their_end() {
        let dates = Dates::parse(Some("2026-02-21"), Some("2026-02-21")).unwrap();
        assert_eq!(dates.from.zip(dates.to), Some((at("2026-02-21T00:00:00Z"), at("2026-02-22T00:00:00Z"))));
        let dates = Dates::parse(Some("2026-02-21T10:00:00+07:00"), None).unwrap();
        assert_eq!(dates, Dates { from: Some(at("2026-02-21T03:00:00Z")), to: None });
        assert_eq!(Dates::parse(None, Some("9999-12-31")).unwrap().to, Some(at("9999-12-31T23:59:59Z")));
        for bad in [
            "2026-02-30",
            "21-02-2026",
            "2026-02-21T10:00:00",
            "2026-02-21T10:00:00 07:00",
            "yesterday, noon",
            "2026/02/21",
        ] {
            let refused = Dates::parse(None, Some(bad)).unwrap_err();
            assert!(matches!(&refused, Error::Invalid { field, .. } if field == "end_date"), "{bad}: {refused}");
        }
        assert!(Dates::parse(Some("2026-02-22"), Some("2026-02-21T23:59:59Z")).is_err());
        assert!(Dates::parse(Some("2026-02-22"), Some("2026-02-21")).is_err());
        assert!(Dates::parse(Some("2026-02-22T00:00:00Z"), Some("2026-02-22T00:00:00Z")).is_ok());
    }

    #[test]
    fn pages_are_counted_up_to_the_begun_one() {
        let page = LogPage::new(Some(3), None);
        assert_eq!((page.offset(), page.of(0), page.of(50), page.of(51), page.of(150)), (100, 0, 1, 2, 3));
        assert_eq!(LogPage::new(None, Some(200)), LogPage { number: 1, size: 200 });
    }
}
