//! How an integration is: the formula, whose words stand in the contract at GetIntegrationHealth.
//!
//! Everything is reckoned in whole numbers from the figures as they are shown, so that whoever recomputes it comes to
//! the same.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use uuid::Uuid;

use super::failure::FailureClass;
use super::integration::{Action, TestRecord, failure_label};
use super::tally::Span;
use super::words::words;
use super::{Error, Instant, Result};

/// The version of the formula.
pub const FORMULA: i32 = 1;
/// Hours of the window when nobody says.
const HOURS: i64 = 24;
/// Milliseconds up to which an answer is as fast as it need be, and from which on it is as slow as can be.
const FAST: i64 = 1_000;
const SLOW: i64 = 10_000;
/// The most that is left of a score while the credentials are refused.
const SCORE_WITHOUT_CREDENTIALS: i32 = 30;
/// What failed for a reason nobody wrote down.
const UNKNOWN_FAILURE: &str = "Unknown error";

words! {
    /// The band of a success rate.
    HealthStatus {
        /// 95 per cent or more.
        Healthy = "healthy",
        /// 80 per cent or more.
        Warning = "warning",
        /// 50 per cent or more.
        Degraded = "degraded",
        /// Less than 50 per cent.
        Critical = "critical",
        /// Nothing was asked.
        Unknown = "unknown",
    }
}

/// The bands and where each begins, in tenths of a per cent.
const BANDS: [(i64, HealthStatus); 3] =
    [(950, HealthStatus::Healthy), (800, HealthStatus::Warning), (500, HealthStatus::Degraded)];

/// A length of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthWindow {
    /// Hours that were asked for.
    pub hours: i64,
    /// Its first instant.
    pub start: Instant,
    /// Its end.
    pub end: Instant,
}

impl HealthWindow {
    /// The window of so many hours that ends at `now`.
    pub fn new(hours: Option<i32>, now: Instant) -> Result<HealthWindow> {
        let hours = hours.map_or(HOURS, i64::from);
        if !(1..=720).contains(&hours) {
            return Err(Error::invalid("hours", "must be 1 to 720"));
        }
        let start = Span::Minute.start(now - TimeDelta::hours(hours));
        Ok(HealthWindow { hours, start: chrono::DateTime::from_timestamp(start, 0).unwrap_or(now), end: now })
    }
}

/// Requests that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// That succeeded.
    pub success: i64,
    /// That failed.
    pub failed: i64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> i64 {
        self.success + self.failed
    }
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The provider, when the hub asked it, or the hub itself.
    Test,
    /// A callback of the provider, which could not be used.
    Callback,
    /// A delivery to a webhook: whoever receives it.
    Delivery,
}

impl Source {
    /// What failed in an entry of this action. Of what is called a webhook only a callback can be unreadable or come
    /// when the integration does not work; nobody is asked for it.
    pub fn of(action: Action, class: Option<FailureClass>) -> Source {
        match (action, class) {
            (Action::Webhook, Some(FailureClass::Config | FailureClass::Garbage)) => Source::Callback,
            (Action::Webhook, _) => Source::Delivery,
            _ => Source::Test,
        }
    }
}

/// What was counted in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests.
    pub requests: Requests,
    /// Those that failed, by class; none where nobody wrote it down.
    pub failures: BTreeMap<Option<FailureClass>, i64>,
    /// The same by class and by what failed.
    pub sources: BTreeMap<(Option<FailureClass>, Source), i64>,
    /// How many were timed.
    pub timed: i64,
    /// Milliseconds these took together.
    pub millis: i64,
    /// Minutes in which there was a request.
    pub observed_minutes: i64,
    /// Minutes in which one succeeded.
    pub good_minutes: i64,
    /// Requests of the last hour, as far as it is in the window.
    pub last_hour: Requests,
    /// Tests and errors of the last 15 minutes: the provider refused the credentials.
    pub refused_lately: i64,
    /// Callbacks that proved nothing, in the last 15 minutes. Anybody can send them, so they are no requests.
    pub unproved_lately: i64,
    /// Deliveries to webhooks that were not let in, in the last 15 minutes.
    pub not_let_in_lately: i64,
}

/// How an integration is.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationHealth {
    /// Whose.
    pub integration_id: Uuid,
    /// When it was looked at.
    pub window: HealthWindow,
    /// What was counted.
    pub counted: Counted,
    /// Made of it.
    pub figures: Figures,
    /// The last test.
    pub last_test: Option<TestRecord>,
    /// Days since then, begun ones counted.
    pub days_since_last_test: Option<i32>,
    /// What failed, most frequent first.
    pub errors: Vec<(&'static str, i64)>,
    /// What to do.
    pub recommendations: Vec<String>,
}

/// What the formula makes of what was counted. Rates are in tenths of a per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The band.
    pub status: HealthStatus,
    /// 0 to 100.
    pub score: Option<i32>,
    /// What succeeded.
    pub success_rate: Option<i64>,
    /// Milliseconds.
    pub avg_response_time: Option<i64>,
    /// Minutes that were good, of those observed.
    pub uptime: Option<i64>,
}

impl Figures {
    /// The formula. `is_refused` while the newest test failed because the credentials are refused.
    pub fn of(counted: &Counted, is_refused: bool) -> Figures {
        let avg_response_time = (counted.timed > 0).then(|| (counted.millis + counted.timed / 2) / counted.timed);
        let total = counted.requests.total();
        if total == 0 {
            let status = HealthStatus::Unknown;
            return Figures { status, score: None, success_rate: None, avg_response_time, uptime: None };
        }
        let success_rate = rate(counted.requests.success, total);
        let uptime = rate(counted.good_minutes, counted.observed_minutes.max(1));
        let slow = avg_response_time.unwrap_or(0).clamp(FAST, SLOW) - FAST;
        let speed = 1_000 - slow * 1_000 / (SLOW - FAST);
        let score = (70 * success_rate + 20 * uptime + 10 * speed + 500) / 1_000;
        let most = if is_refused { SCORE_WITHOUT_CREDENTIALS } else { 100 };
        Figures {
            status: band(success_rate),
            score: Some((score.min(success_rate / 10) as i32).min(most)),
            success_rate: Some(success_rate),
            avg_response_time,
            uptime: Some(uptime),
        }
    }
}

/// A share in tenths of a per cent, to the nearest. But never up to the bound of a band or to all: 94.99 per cent is
/// not 95, and what failed once did not always succeed.
pub fn rate(part: i64, whole: i64) -> i64 {
    let exact_down = part * 1_000 / whole;
    let nearest = (part * 2_000 + whole) / (whole * 2);
    let is_bound = nearest == 1_000 || BANDS.iter().any(|(bound, _)| *bound == nearest);
    if is_bound { exact_down } else { nearest }
}

fn band(success_rate: i64) -> HealthStatus {
    BANDS.iter().find(|(bound, _)| success_rate >= *bound).map_or(HealthStatus::Critical, |(_, status)| *status)
}

/// Days from one instant to another, begun ones counted; 0 only for the same instant.
pub fn days_since(at: Instant, now: Instant) -> i32 {
    let micros = (now - at).num_microseconds().unwrap_or(i64::MAX).max(0);
    let day = 86_400_000_000;
    i32::try_from(micros / day + i64::from(micros % day > 0)).unwrap_or(i32::MAX)
}

/// Failures by what they are called, most frequent first.
pub fn distribution(failures: &BTreeMap<Option<FailureClass>, i64>) -> Vec<(&'static str, i64)> {
    let named = |class: &Option<FailureClass>| class.map_or(UNKNOWN_FAILURE, failure_label);
    let mut errors: Vec<_> = failures.iter().map(|(class, count)| (named(class), *count)).collect();
    errors.retain(|(_, count)| *count > 0);
    errors.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests, their mean duration, and minutes good and observed.
    fn figures(success: i64, failed: i64, avg: i64, minutes: (i64, i64)) -> Figures {
        let timed = success + failed;
        let requests = Requests { success, failed };
        let (good_minutes, observed_minutes) = minutes;
        let counted =
            Counted { requests, timed, millis: avg * timed, good_minutes, observed_minutes, ..Counted::default() };
        Figures::of(&counted, false)
    }

    #[test]
    fn the_printed_figures_make_the_printed_score() {
        let expected = Figures {
            status: HealthStatus::Healthy,
            score: Some(98),
            success_rate: Some(980),
            avg_response_time: Some(245),
            uptime: Some(1_000),
        };
        assert_eq!(figures(980, 20, 245, (600, 600)), expected);
    }

    #[test]
    fn a_band_begins_at_its_lower_bound_and_no_rounding_reaches_it() {
        use HealthStatus::{Critical, Degraded, Healthy, Warning};
        let of = |success: i64| {
            let figures = figures(success, 10_000 - success, 100, (1, 1));
            (figures.status, figures.success_rate.unwrap())
        };
        let bands = [(10_000, Healthy, 1_000), (9_999, Healthy, 999), (9_996, Healthy, 999), (9_500, Healthy, 950)];
        let more = [(9_499, Warning, 949), (8_000, Warning, 800), (7_999, Degraded, 799), (5_000, Degraded, 500)];
        let least = [(4_999, Critical, 499), (4_994, Critical, 499), (6_667, Degraded, 667), (0, Critical, 0)];
        for (success, status, rate) in bands.into_iter().chain(more).chain(least) {
            assert_eq!(of(success), (status, rate), "{success} of 10,000");
        }
    }

    #[test]
    fn the_score_is_made_of_success_uptime_and_speed_and_never_exceeds_success() {
        let score = |figures: Figures| figures.score.unwrap();
        assert_eq!(score(figures(100, 0, 1_000, (1, 1))), 100);
        assert_eq!(score(figures(100, 0, 1_450, (1, 1))), 100, "9.5 of 10 for speed round up");
        assert_eq!(score(figures(100, 0, 5_500, (1, 1))), 95);
        assert_eq!(score(figures(100, 0, 10_000, (1, 1))), 90);
        assert_eq!(score(figures(100, 0, 60_000, (1, 1))), 90);
        assert_eq!(score(figures(100, 0, 100, (1, 2))), 90);
        assert_eq!(score(figures(60, 40, 100, (10, 10))), 60, "72 by the sum, and 60 succeeded");
        assert_eq!(score(figures(0, 7, 100, (0, 7))), 0);
        assert_eq!(score(figures(999, 1, 100, (1, 1))), 99);
    }

    #[test]
    fn refused_credentials_leave_little_of_a_score() {
        let counted = Counted {
            requests: Requests { success: 100, failed: 0 },
            observed_minutes: 1,
            good_minutes: 1,
            ..Counted::default()
        };
        assert_eq!(Figures::of(&counted, true).score, Some(30));
        assert_eq!(Figures::of(&counted, false).score, Some(100), "nothing was timed, so nothing was slow");
        let failed = Counted { requests: Requests { success: 1, failed: 9 }, ..counted };
        assert_eq!(Figures::of(&failed, true).score, Some(10));
    }

    #[test]
    fn without_requests_nothing_is_known() {
        let figures = Figures::of(&Counted::default(), false);
        assert_eq!((figures.status, figures.score, figures.uptime), (HealthStatus::Unknown, None, None));
        assert_eq!((figures.success_rate, figures.avg_response_time), (None, None));
    }

    #[test]
    fn the_average_is_of_what_was_timed() {
        let counted = Counted { timed: 4, millis: 10, ..Counted::default() };
        assert_eq!(Figures::of(&counted, false).avg_response_time, Some(3));
    }

    #[test]
    fn begun_days_count() {
        let at = |text: &str| text.parse::<Instant>().unwrap();
        let tested = at("2026-02-21T10:00:00Z");
        assert_eq!(days_since(tested, at("2026-02-21T15:30:00Z")), 1);
        assert_eq!(days_since(tested, at("2026-02-22T10:00:00Z")), 1);
        assert_eq!(days_since(tested, at("2026-02-22T10:00:00.000001Z")), 2);
        assert_eq!(days_since(tested, tested), 0);
        assert_eq!(days_since(tested, at("2026-02-21T09:59:59Z")), 0, "a clock that was set back");
    }

    #[test]
    fn errors_are_told_most_frequent_first() {
        let failures =
            [(Some(FailureClass::Auth), 5), (Some(FailureClass::Timeout), 15), (None, 5), (Some(FailureClass::Tls), 0)];
        let errors = distribution(&failures.into_iter().collect());
        assert_eq!(errors, [("Timeout error", 15), ("Authentication failed", 5), ("Unknown error", 5)]);
    }

    #[test]
    fn a_window_begins_with_a_whole_minute() {
        let now: Instant = "2026-02-21T15:30:40Z".parse().unwrap();
        let start = |hours: Option<i32>| HealthWindow::new(hours, now).unwrap().start.to_rfc3339();
        assert_eq!(start(None), "2026-02-20T15:30:00+00:00");
        assert_eq!(start(Some(1)), "2026-02-21T14:30:00+00:00");
        assert_eq!(start(Some(720)), "2026-01-22T15:30:00+00:00");
        assert!(HealthWindow::new(Some(0), now).is_err() && HealthWindow::new(Some(721), now).is_err());
    }
}
