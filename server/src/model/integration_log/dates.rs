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
/// Each comes with 1 where it is added, or with -1 where it is taken away: buckets go up to the bound that is nearest to
/// an end, whether before it or after it, so no end leaves more than half a bucket to be counted otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Whole buckets.
    pub stretches: Vec<(i64, Stretch)>,
    /// What is left over at the ends: `[from, to)`.
    pub rests: Vec<(i64, (Instant, Instant))>,
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
            pieces.stretches.push((1, Stretch { span: Span::Total, from: 0, to: 1 }));
            return pieces;
        }
        let range = (self.from.unwrap_or(instant(-FAR)), self.to.unwrap_or(instant(FAR)));
        pieces.fill(1, range, &[Span::Day, Span::Hour, Span::Minute], now);
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
        let few = |(from, to): (Instant, Instant)| to - from <= TimeDelta::days(2) && is_kept(Span::Hour, from, now);
        self.from.zip(self.to).is_some_and(few)
    }
}

impl Pieces {
    /// Adds a range, or takes it away, in buckets of the first of `spans` and its ends in shorter ones.
    fn fill(&mut self, sign: i64, (from, to): (Instant, Instant), spans: &[Span], now: Instant) {
        if from >= to {
            return;
        }
        let Some((span, shorter)) = spans.split_first().filter(|(span, _)| is_kept(**span, from, now)) else {
            self.rests.push((sign, (from, to)));
            return;
        };
        let (first, last) = (instant(nearest(from, *span)), instant(nearest(to, *span)));
        if (first - from).abs() + (last - to).abs() >= to - from {
            // There is less to count in the range than between it and the buckets.
            return self.fill(sign, (from, to), shorter, now);
        }
        self.stretches.push((sign, Stretch { span: *span, from: first.timestamp(), to: last.timestamp() }));
        // Of each two ranges one is empty.
        for (sign, range) in [(sign, (from, first)), (-sign, (first, from)), (sign, (last, to)), (-sign, (to, last))] {
            self.fill(sign, range, shorter, now);
        }
    }
}

/// A midnight beyond every entry: 10000-01-01T00:00:00Z.
pub(super) const FAR: i64 = 253_402_300_800;

pub(super) fn length(span: Span) -> i64 {
    match span {
        Span::Minute => 60,
        Span::Hour => 3_600,
        _ => 86_400,
    }
}

/// Whether there surely are buckets around `at`: for a day less than they are kept, because whoever removes them goes by
/// a clock of their own, and the nearest may be half a day before.
fn is_kept(span: Span, at: Instant, now: Instant) -> bool {
    match span {
        Span::Minute => now - at < TimeDelta::days(INTEGRATION_MINUTE_DAYS - 1),
        Span::Hour => now - at < TimeDelta::days(HOUR_COUNT_DAYS - 1),
        _ => true,
    }
}

/// The start of a bucket that is nearest to `at`.
fn nearest(at: Instant, span: Span) -> i64 {
    floor(at.timestamp() + length(span) / 2, length(span))
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
    use std::collections::BTreeMap;

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
        let shown = stretches
            .map(|(sign, one)| format!("{sign:+} {} {} to {}", one.span.as_str(), time(one.from), time(one.to)));
        let rests = pieces
            .rests
            .iter()
            .map(|(sign, (from, to))| format!("{sign:+} {} to {}", from.format("%d %T%.f"), to.format("%d %T%.f")));
        shown.chain(rests).collect()
    }

    #[test]
    fn a_range_is_cut_into_the_coarsest_buckets_and_what_is_left_over() {
        let now = "2026-03-15T12:00:00Z";
        assert_eq!(cut("", "", now), ["+1 total 01 00:00 to 01 00:00"]);
        let pieces = [
            "+1 day 14 00:00 to 15 00:00",
            "+1 hour 13 23:00 to 14 00:00",
            "+1 minute 13 22:59 to 13 23:00",
            "+1 hour 15 00:00 to 15 02:00",
            "+1 minute 15 02:00 to 15 02:02",
            "+1 13 22:58:40 to 13 22:59:00",
            "+1 15 02:02:00 to 15 02:02:00.500",
        ];
        assert_eq!(cut("2026-03-13T22:58:40Z", "2026-03-15T02:02:00.5Z", "2026-03-14T12:00:00Z"), pieces);
        // What the nearest buckets have beyond the range is taken away.
        let pieces = [
            "+1 day 13 00:00 to 15 00:00",
            "-1 hour 13 00:00 to 13 03:00",
            "+1 minute 13 02:50 to 13 03:00",
            "-1 hour 14 23:00 to 15 00:00",
            "-1 minute 14 22:40 to 14 23:00",
            "-1 13 02:50:00 to 13 02:50:10",
            "-1 14 22:39:40 to 14 22:40:00",
        ];
        assert_eq!(cut("2026-03-13T02:50:10Z", "2026-03-14T22:39:40Z", now), pieces);
        assert_eq!(cut("2026-03-15T10:00:10Z", "2026-03-15T10:00:30Z", now), ["+1 15 10:00:10 to 15 10:00:30"]);
        assert_eq!(cut("2026-03-14T11:55:00Z", "2026-03-14T12:05:00Z", now), ["+1 minute 14 11:55 to 14 12:05"]);
        assert_eq!(cut("2026-03-15T10:00:00Z", "2026-03-15T10:00:00Z", now), [""; 0]);
        assert_eq!(cut("2026-03-15T00:00:00Z", "", now), ["+1 day 15 00:00 to now on"]);
        // Minutes that old may be gone, so an hour's entries are counted, and of hours a day's.
        let pieces = ["+1 day ever to 01 00:00", "+1 hour 01 00:00 to 01 05:00", "+1 01 05:00:00 to 01 05:20:00"];
        assert_eq!(cut("", "2026-02-01T05:20:00Z", now), pieces);
        assert_eq!(cut("", "2024-03-01T05:30:00Z", now), ["+1 day ever to 01 00:00", "+1 01 00:00:00 to 01 05:30:00"]);
        assert_eq!(cut("", "2024-03-01T20:30:00Z", now), ["+1 day ever to 02 00:00", "-1 01 20:30:00 to 02 00:00:00"]);
        assert_eq!(cut("", "9999-12-31T23:59:59Z", now)[0], "+1 day ever to now on");
    }

    #[test]
    fn the_pieces_of_a_range_come_to_the_range_and_leave_half_a_bucket_at_each_end() {
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
            let stretches = pieces.stretches.iter().map(|(sign, one)| (*sign, instant(one.from), instant(one.to)));
            let rests = pieces.rests.iter().map(|(sign, (from, to))| (*sign, *from, *to));
            // How often what begins here is counted more than what ends here.
            let mut steps: BTreeMap<Instant, i64> = BTreeMap::new();
            for (sign, from, to) in stretches.chain(rests) {
                assert!(from < to);
                *steps.entry(from).or_default() += sign;
                *steps.entry(to).or_default() -= sign;
            }
            steps.retain(|_, step| *step != 0);
            let expected = if from < to { BTreeMap::from([(from, 1), (to, -1)]) } else { BTreeMap::new() };
            assert_eq!(steps, expected, "{pieces:?}");
            let aligned = |one: &Stretch| one.from % length(one.span) == 0 && one.to % length(one.span) == 0;
            assert!(pieces.stretches.iter().all(|(_, one)| aligned(one)));
            let left: TimeDelta = pieces.rests.iter().map(|(_, (from, to))| *to - *from).sum();
            let span = [Span::Minute, Span::Hour].into_iter().find(|span| is_kept(*span, from, now));
            assert!(left <= TimeDelta::seconds(length(span.unwrap_or(Span::Day))), "{from} to {to}: {pieces:?}");
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
