//! Ranges of time, and the buckets of running counts they are counted from.

use chrono::{DateTime, NaiveDate, NaiveTime, SubsecRound, TimeDelta, Utc};

use crate::model::period::Stretch;
use crate::model::retention::{HOUR_COUNT_DAYS, INTEGRATION_MINUTE_DAYS};
use crate::model::tally::Span;
use crate::model::{Error, Instant, Result};

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

    /// Starts of the whole days or hours within, `[first, last)`, and what is left over after them.
    pub fn whole(&self, span: Span) -> ((i64, i64), Option<Dates>) {
        let first = self.from.map_or(-FAR, |at| ceil(at, length(span)));
        let last = self.to.map_or(FAR, |at| floor(at.timestamp(), length(span)));
        if first > last {
            return ((first, first), Some(*self));
        }
        let newest = self.to.filter(|to| instant(last) < *to);
        ((first, last), newest.map(|to| Dates { from: Some(instant(last)), to: Some(to) }))
    }

    /// Whether it is a few days long and each hour within has its bucket.
    pub fn has_hours(&self, now: Instant) -> bool {
        let few = |(from, to): (Instant, Instant)| to - from <= TimeDelta::days(2) && finest(from, now) != Span::Day;
        self.from.zip(self.to).is_some_and(few)
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
pub(super) const FAR: i64 = 100_000_000 * 86_400;

pub(super) fn length(span: Span) -> i64 {
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

pub(super) fn instant(second: i64) -> Instant {
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
}
