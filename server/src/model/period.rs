//! A period that ends now, and the buckets of running counts that make it up.

use chrono::TimeDelta;

use super::tally::Span;
use super::{Error, Instant, Result};

/// Buckets of a minute are kept for three days, those of an hour for 400.
const MOST_HOURS: i64 = 72;
const MOST_DAYS: i64 = 366;

/// A length of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Hours, exact to the minute.
    Hours(i64),
    /// Days of 24 hours, exact to the hour.
    Days(i64),
}

/// A period that ends at an instant: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first instant: the start of a minute or an hour, so the period is longer than asked for by less than that.
    pub start: Instant,
    /// Its end.
    pub end: Instant,
    finest: Span,
}

/// Buckets of a span that start in `[from, to)`, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// How long each bucket is.
    pub span: Span,
    /// Start of the first.
    pub from: i64,
    /// No bucket starts here or later.
    pub to: i64,
}

impl Period {
    /// Reads `<n>h` or `<n>d`; 30 days when there is nothing to read.
    pub fn parse(text: Option<&str>) -> Result<Period> {
        let refused = || Error::invalid("period", "must be 1h to 72h or 1d to 366d");
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Period::Days(30)) };
        let (digits, unit) = text.split_at_checked(text.len() - 1).ok_or_else(refused)?;
        if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let number: i64 = digits.parse().map_err(|_| refused())?;
        match unit {
            "h" if (1..=MOST_HOURS).contains(&number) => Ok(Period::Hours(number)),
            "d" if (1..=MOST_DAYS).contains(&number) => Ok(Period::Days(number)),
            _ => Err(refused()),
        }
    }

    /// The period that ends at `now`.
    pub fn until(self, now: Instant) -> Window {
        let (length, finest) = match self {
            Period::Hours(hours) => (TimeDelta::hours(hours), Span::Minute),
            Period::Days(days) => (TimeDelta::days(days), Span::Hour),
        };
        let start = finest.start(now - length);
        Window { start: chrono::DateTime::from_timestamp(start, 0).unwrap_or(now), end: now, finest }
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Period::Hours(hours) => write!(f, "{hours}h"),
            Period::Days(days) => write!(f, "{days}d"),
        }
    }
}

impl Window {
    /// The buckets of the window: fine ones at its start, days from the first midnight on. Nothing has happened after
    /// its end, so the newest bucket needs no cutting.
    ///
    /// `finest` is the shortest span there is; where the window is finer, it begins with the bucket its start lies in.
    pub fn stretches(&self, finest: Span) -> Vec<Stretch> {
        let (second, end) = (self.start.timestamp(), self.end);
        let midnight = ceil(second, 86_400);
        let after = Span::Day.start(end) + 86_400;
        let hour = ceil(second, 3_600).min(midnight);
        let mut stretches = Vec::with_capacity(3);
        if self.finest == Span::Minute && finest == Span::Minute {
            stretches.push(Stretch { span: Span::Minute, from: second, to: hour });
            stretches.push(Stretch { span: Span::Hour, from: hour, to: midnight });
        } else {
            stretches.push(Stretch { span: Span::Hour, from: Span::Hour.start(self.start), to: midnight });
        }
        stretches.push(Stretch { span: Span::Day, from: midnight, to: after });
        stretches.retain(|stretch| stretch.from < stretch.to);
        stretches
    }
}

fn ceil(second: i64, step: i64) -> i64 {
    second + (-second).rem_euclid(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(period: &str, now: &str, finest: Span) -> Vec<String> {
        let window = Period::parse(Some(period)).unwrap().until(now.parse().unwrap());
        let time = |second: i64| chrono::DateTime::from_timestamp(second, 0).unwrap().format("%d %H:%M").to_string();
        let shown = |one: &Stretch| format!("{} {} to {}", one.span.as_str(), time(one.from), time(one.to));
        window.stretches(finest).iter().map(shown).collect()
    }

    #[test]
    fn a_period_is_hours_or_days_within_bounds() {
        assert_eq!(Period::parse(None).unwrap(), Period::Days(30));
        for text in ["1h", "72h", "1d", "366d", "30d"] {
            assert_eq!(Period::parse(Some(text)).unwrap().to_string(), text);
        }
        for text in ["0d", "0h", "73h", "367d", "d", "30", "-1d", "1w", "30 d", "30D", "+3d", "１d", "9999999999d", "é"]
        {
            let refused = Period::parse(Some(text)).unwrap_err();
            assert!(matches!(&refused, Error::Invalid { field, .. } if field == "period"), "{text}: {refused}");
        }
    }

    #[test]
    fn hours_are_cut_at_the_minute_and_days_at_the_hour() {
        let now = "2026-03-15T12:34:56Z";
        let minutes = ["minute 14 12:34 to 14 13:00", "hour 14 13:00 to 15 00:00", "day 15 00:00 to 16 00:00"];
        assert_eq!(cut("24h", now, Span::Minute), minutes);
        // Where there are no minutes, the hour the period begins in is whole.
        assert_eq!(cut("24h", now, Span::Hour), ["hour 14 12:00 to 15 00:00", "day 15 00:00 to 16 00:00"]);
        assert_eq!(cut("2d", now, Span::Minute), ["hour 13 12:00 to 14 00:00", "day 14 00:00 to 16 00:00"]);
        // Within a day there are no days, and at midnight nothing but days.
        assert_eq!(cut("1h", now, Span::Minute), ["minute 15 11:34 to 15 12:00", "hour 15 12:00 to 16 00:00"]);
        assert_eq!(cut("1d", "2026-03-15T00:00:00Z", Span::Hour), ["day 14 00:00 to 16 00:00"]);
    }

    #[test]
    fn the_stretches_of_a_window_leave_nothing_out_and_take_nothing_twice() {
        let mut now: Instant = "2026-03-15T00:00:00Z".parse().unwrap();
        for _ in 0..200 {
            now += TimeDelta::seconds(1_234);
            for period in [Period::Hours(1), Period::Hours(24), Period::Hours(72), Period::Days(1), Period::Days(30)] {
                for finest in [Span::Minute, Span::Hour] {
                    let window = period.until(now);
                    let stretches = window.stretches(finest);
                    assert!(stretches.windows(2).all(|pair| pair[0].to == pair[1].from), "{stretches:?}");
                    assert!(stretches[0].from <= window.start.timestamp() && window.start <= now);
                    assert!(stretches.last().unwrap().to > now.timestamp());
                }
            }
        }
    }
}
