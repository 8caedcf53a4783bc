//! The breaker of a webhook: while most of what is tried fails, nothing is tried for a while, and then one delivery.
//!
//! It is apart from disabling. It opens within minutes, spends no try of what waits meanwhile, and closes by itself;
//! a webhook is disabled only by deliveries that were given up.

use chrono::TimeDelta;

use crate::model::Instant;

/// How far back tries count.
const WINDOW: TimeDelta = TimeDelta::minutes(5);
/// Tries before anything is judged.
const LEAST: i32 = 10;
/// Percent of them that must have failed.
const SHARE: i32 = 70;
/// How long it is open at first; twice as long with each time in a row.
const FIRST: TimeDelta = TimeDelta::seconds(30);
/// The longest it is open.
const LONGEST: TimeDelta = TimeDelta::minutes(10);

/// What a webhook's breaker remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// When the window began.
    pub window_at: Option<Instant>,
    /// Tries since.
    pub tried: i32,
    /// Tries since that failed.
    pub failed: i32,
    /// Times it opened in a row.
    pub trips: i32,
    /// Until when it is open, or was when it opened last.
    pub open_until: Option<Instant>,
}

impl Breaker {
    /// Until when nothing may be tried; `None` when something may.
    pub fn open(&self, now: Instant) -> Option<Instant> {
        self.open_until.filter(|until| *until > now)
    }

    /// Whether one delivery is to show how things stand.
    pub fn is_half_open(&self, now: Instant) -> bool {
        self.trips > 0 && self.open(now).is_none()
    }

    /// Takes note of how a try ended.
    pub fn note(&mut self, is_success: bool, now: Instant) {
        if self.open(now).is_some() {
            // It was on its way already when the breaker opened.
            return;
        }
        if self.trips > 0 {
            return if is_success { *self = Breaker::default() } else { self.trip(now) };
        }
        if self.window_at.is_none_or(|began| now - began >= WINDOW || now < began) {
            *self = Breaker { window_at: Some(now), ..Breaker::default() };
        }
        self.tried += 1;
        self.failed += i32::from(!is_success);
        if self.tried >= LEAST && i64::from(self.failed) * 100 >= i64::from(self.tried) * i64::from(SHARE) {
            self.trip(now);
        }
    }

    fn trip(&mut self, now: Instant) {
        let open = (FIRST * (1 << self.trips.clamp(0, 10))).min(LONGEST);
        let trips = self.trips.saturating_add(1);
        *self = Breaker { trips, open_until: Some(now + open), ..Breaker::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Instant {
        Instant::default() + TimeDelta::seconds(seconds)
    }

    fn noted(tries: &str) -> Breaker {
        let mut breaker = Breaker::default();
        tries.chars().for_each(|one| breaker.note(one == '.', at(0)));
        breaker
    }

    #[test]
    fn it_opens_when_seven_of_ten_fail_and_not_before_there_are_ten() {
        assert_eq!(noted("xxxxxxxxx").open(at(0)), None);
        assert_eq!(noted("xxxxxxxxxx").open(at(0)), Some(at(30)));
        assert_eq!(noted("...xxxxxxx").open(at(29)), Some(at(30)));
        assert_eq!(noted("....xxxxxx").open(at(0)), None);
        assert_eq!(noted("....xxxxxxxxxx").open(at(0)), Some(at(30)), "ten of fourteen are seven in ten");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut breaker = noted("xxxxxxxxx");
        breaker.note(false, at(300));
        assert_eq!((breaker.tried, breaker.open(at(300))), (1, None));
    }

    #[test]
    fn it_opens_twice_as_long_each_time_in_a_row_up_to_ten_minutes_and_one_success_closes_it() {
        let mut breaker = noted("xxxxxxxxxx");
        let mut now = at(30);
        for open in [60, 120, 240, 480, 600, 600] {
            assert!(breaker.is_half_open(now));
            breaker.note(false, now);
            assert_eq!(breaker.open(now), Some(now + TimeDelta::seconds(open)));
            breaker.note(false, now);
            assert_eq!(breaker.open(now), Some(now + TimeDelta::seconds(open)), "a late failure changes nothing");
            now += TimeDelta::seconds(open);
        }
        breaker.note(true, now);
        assert_eq!(breaker, Breaker::default());
    }
}
