//! Each rule on both sides of its bound.

use chrono::TimeDelta;

use super::*;
use crate::model::integration_health::distribution;

fn now() -> Instant {
    "2026-02-21T15:30:00Z".parse().unwrap()
}

fn test(status: LogStatus, class: Option<FailureClass>, ago: TimeDelta) -> TestRecord {
    TestRecord { at: now() - ago, status, message: "Provider says no.".to_owned(), class, latency: 100 }
}

/// What is looked at in a test; by itself nothing is to be done about it.
struct Scene {
    counted: Counted,
    last_test: Option<TestRecord>,
    is_active: bool,
    webhooks: Vec<WebhookStanding>,
    hours: i32,
}

impl Scene {
    fn well() -> Scene {
        Scene::of(1_000, 0, &[])
    }

    fn of(success: i64, failed: i64, failures: &[(FailureClass, i64)]) -> Scene {
        let counted = Counted {
            requests: Requests { success, failed },
            failures: failures.iter().map(|(class, count)| (Some(*class), *count)).collect(),
            timed: success + failed,
            millis: 245 * (success + failed),
            observed_minutes: 100,
            good_minutes: 100,
            ..Counted::default()
        };
        let last_test = Some(test(LogStatus::Success, None, TimeDelta::days(1)));
        Scene { counted, last_test, is_active: true, webhooks: Vec::new(), hours: 24 }
    }

    fn said(&self) -> Vec<String> {
        let errors = distribution(&self.counted.failures);
        let is_refused = self.last_test.as_ref().is_some_and(|test| test.class == Some(FailureClass::Auth));
        recommend(&Evidence {
            window: HealthWindow::new(Some(self.hours), now()).unwrap(),
            counted: &self.counted,
            figures: Figures::of(&self.counted, is_refused),
            errors: &errors,
            last_test: self.last_test.as_ref(),
            is_active: self.is_active,
            webhooks: &self.webhooks,
        })
    }

    /// What begins like that.
    fn finds(&self, begin: &str) -> Option<String> {
        self.said().into_iter().find(|line| line.starts_with(begin))
    }
}

#[test]
fn the_printed_figures_need_no_action_and_it_is_said_in_the_printed_words() {
    let scene = Scene::of(980, 20, &[(FailureClass::Timeout, 15), (FailureClass::Auth, 5)]);
    assert_eq!(scene.said(), ["\u{2705} Integration is healthy. No action required."]);
    assert_eq!(ALL_WELL.as_bytes()[..4], [0xe2, 0x9c, 0x85, b' ']);
}

#[test]
fn the_healthy_words_stand_alone() {
    let mut scene = Scene::well();
    assert_eq!(scene.said(), [ALL_WELL]);
    scene.is_active = false;
    assert_eq!(scene.said().len(), 1);
    assert!(!scene.said().contains(&ALL_WELL.to_owned()));
}

#[test]
fn a_band_below_healthy_is_said_with_its_counts() {
    let of = |success: i64| Scene::of(success, 1_000 - success, &[(FailureClass::Down, 1_000 - success)]);
    let begins = |success: i64, begin: &str| of(success).finds(begin).is_some();
    assert!(begins(499, "🔴 Critical") && begins(500, "🟠 Degraded") && begins(799, "🟠 Degraded"));
    assert!(begins(800, "🟡 Warning") && begins(949, "🟡 Warning"));
    assert!(of(950).said().iter().all(|line| !line.contains("Warning")));
    let said = of(499).finds("🔴 Critical").unwrap();
    let expected = "🔴 Critical: 501 of 1000 requests failed in the last 24 hours, 49.9 % succeeded; most frequent: \
                    Provider unavailable, 501 times. Test the connection now";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn slow_is_more_than_two_seconds_on_average() {
    let of = |millis: i64| {
        let mut scene = Scene::of(10, 0, &[]);
        scene.counted.millis = millis;
        scene
    };
    assert_eq!(of(20_000).said(), [ALL_WELL]);
    let said = of(20_010).said();
    assert!(said[0].starts_with("🟡 Slow: 2001 ms on average over 10 requests in the last 24 hours;"), "{said:?}");
}

#[test]
fn refused_credentials_are_renewed() {
    let mut scene = Scene::well();
    scene.counted.refused_lately = 1;
    let said = scene.said();
    assert!(said[0].starts_with("🔴 The credentials were refused once in the last 15 minutes. Renew the credential"));
    // Of an earlier refusal the last test remembers.
    scene.counted.refused_lately = 0;
    scene.last_test = Some(test(LogStatus::Failed, Some(FailureClass::Auth), TimeDelta::hours(3)));
    let said = scene.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("🔴 The credentials were refused at the last test, 2026-02-21 12:30 UTC. Renew"));
}

#[test]
fn calls_that_prove_nothing_are_said_to() {
    let mut scene = Scene::well();
    scene.counted.unproved_lately = 2;
    let said = scene.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("🟠 Authentication of callbacks failed twice in the last 15 minutes."));
    let mut scene = Scene::well();
    scene.counted.not_let_in_lately = 1;
    let said = scene.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("🟠 Receivers of webhooks refused the hub's signature once in the last 15 minutes."));
}

#[test]
fn a_failed_test_is_said_with_its_class_and_message() {
    let mut scene = Scene::well();
    scene.last_test = Some(test(LogStatus::Failed, Some(FailureClass::Timeout), TimeDelta::hours(1)));
    assert_eq!(scene.said(), ["🟠 The last test failed, 2026-02-21 14:30 UTC (Timeout error): Provider says no."]);
    // What the hub's own tests say begins with the class.
    scene.last_test.as_mut().unwrap().message = "Timeout error: nobody answered.".to_owned();
    assert_eq!(scene.said(), ["🟠 The last test failed, 2026-02-21 14:30 UTC: Timeout error: nobody answered."]);
}

#[test]
fn a_rate_limit_is_worth_a_word_above_five_per_cent_of_requests() {
    let of = |limited: i64| Scene::of(1_000 - limited, limited, &[(FailureClass::RateLimited, limited)]);
    assert_eq!(of(50).finds("🟡 The rate limit"), None);
    let said = of(51).finds("🟡 The rate limit").unwrap();
    assert!(said.contains("met by 51 of 1000 requests in the last 24 hours (5.1 %)"), "{said}");
}

#[test]
fn a_pattern_is_three_failures_half_of_all_and_noticeable() {
    let found = |success: i64, failures: &[(FailureClass, i64)]| {
        let failed = failures.iter().map(|(_, count)| count).sum();
        Scene::of(success, failed, failures).finds("🟡 Timeout error is the pattern")
    };
    use FailureClass::{Auth, Down, Network, Timeout, Tls};
    assert!(found(10, &[(Timeout, 2)]).is_none());
    let said = found(10, &[(Timeout, 3), (Auth, 2), (Down, 1)]).unwrap();
    assert!(said.contains(": 3 of 6 failures in the last 24 hours (50.0 %). Check the provider's state"), "{said}");
    assert!(found(10, &[(Timeout, 3), (Auth, 2), (Down, 1), (Tls, 1)]).is_none());
    assert!(found(147, &[(Timeout, 3)]).is_some(), "2 % of 150");
    assert!(found(148, &[(Timeout, 3)]).is_none(), "less than 2 % of 151");
    assert!(found(0, &[(Network, 9), (Timeout, 1)]).is_none());
}

#[test]
fn what_fails_at_receivers_is_not_laid_to_the_provider() {
    use FailureClass::{Auth, Down, Garbage, RateLimited};
    let of = |class: FailureClass, tests: i64, callbacks: i64, deliveries: i64| {
        let failed = tests + callbacks + deliveries;
        let mut scene = Scene::of(failed / 2, failed, &[(class, failed)]);
        let sources = [(Source::Test, tests), (Source::Callback, callbacks), (Source::Delivery, deliveries)];
        scene.counted.sources = sources.into_iter().map(|(source, count)| ((Some(class), source), count)).collect();
        scene
    };
    for (scene, pattern, band) in [
        (of(Down, 2, 0, 1), "(100.0 %). See what the provider says of its state.", "see what the provider says"),
        (of(Down, 2, 0, 2), "(100.0 %). See what the provider says of its state.", "see what the provider says"),
        (of(Down, 1, 0, 2), ", mostly of deliveries to webhooks. See that whatever receives", "whatever receives"),
        (of(Auth, 0, 0, 3), "Compare the webhook's secret with the receiver's.", "whatever receives"),
        (of(Garbage, 0, 3, 0), ", mostly of callbacks. Look into the failed entries", "see what the provider says"),
    ] {
        let said = scene.said();
        assert!(said.iter().any(|line| line.contains("is the pattern") && line.contains(pattern)), "{said:?}");
        assert!(scene.finds("🔴 Critical").unwrap().contains(band), "{said:?}");
    }
    let limited =
        |tests: i64, deliveries: i64| of(RateLimited, tests, 0, deliveries).finds("🟡 The rate limit").unwrap();
    assert!(limited(9, 1).contains("ask the provider for a higher limit"));
    assert!(limited(1, 9).contains("Lower the rate limit of the webhook"));
}

#[test]
fn a_test_is_due_after_seven_days_and_when_there_was_none() {
    let of = |ago: TimeDelta| {
        let mut scene = Scene::well();
        scene.last_test = Some(test(LogStatus::Success, None, ago));
        scene.said()
    };
    assert_eq!(of(TimeDelta::days(7)), [ALL_WELL]);
    let late = "🟡 The connection was last tested 2026-02-14 15:29 UTC, more than 7 days ago. Test it.";
    assert_eq!(of(TimeDelta::days(7) + TimeDelta::seconds(1)), [late]);
    assert!(of(TimeDelta::days(30) + TimeDelta::seconds(1))[0].contains("more than 30 days ago"));
    let never = Scene { last_test: None, ..Scene::well() };
    assert_eq!(never.said(), ["🟡 The connection was never tested. Test it."]);
}

#[test]
fn without_requests_nothing_is_called_healthy() {
    let said = Scene::of(0, 0, &[]).said();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("ℹ️ Nothing was asked of the integration in the last 24 hours"), "{said:?}");
}

#[test]
fn failures_rise_when_their_share_doubles_within_the_last_hour() {
    let of = |last: (i64, i64), before: (i64, i64)| {
        let mut scene = Scene::of(last.0 + before.0, last.1 + before.1, &[]);
        scene.counted.last_hour = Requests { success: last.0, failed: last.1 };
        scene.finds("🟠 Failures are rising")
    };
    let said = of((97, 3), (985, 15)).unwrap();
    assert!(said.contains("3 of 100 requests failed in the last hour (3.0 %), against 15 of 1000"), "{said}");
    assert!(said.ends_with("in the time before (1.5 %)."), "{said}");
    assert!(of((97, 3), (984, 16)).is_none(), "not twice as many");
    assert!(of((98, 2), (1_000, 0)).is_none(), "two are too few");
    assert!(of((148, 3), (10_000, 0)).is_none(), "less than 2 % of the hour");
    assert!(of((0, 50), (0, 0)).is_none(), "nothing to compare with");
}

#[test]
fn webhooks_that_tell_nothing_are_named() {
    let mut scene = Scene::well();
    let webhook = |url: &str| WebhookStanding { url: url.to_owned(), is_active: true, ..WebhookStanding::default() };
    scene.webhooks = vec![webhook("https://a.example"), webhook("https://b.example")];
    assert_eq!(scene.said(), [ALL_WELL]);
    scene.webhooks[0].breaker_open_until = Some(now());
    assert_eq!(scene.said(), [ALL_WELL], "the breaker closes now");
    scene.webhooks[0].breaker_open_until = Some(now() + TimeDelta::minutes(5));
    scene.webhooks[1].is_active = false;
    let open =
        "🟡 Too many deliveries to the webhook https://a.example failed: nothing is tried until 2026-02-21 15:35 UTC.";
    assert_eq!(scene.said(), [open, "ℹ️ 1 of 2 webhooks is switched off, and told nothing."]);
    scene.webhooks.remove(0);
    scene.webhooks[0].disabled_at = Some(now() - TimeDelta::hours(1));
    scene.webhooks[0].disabled_reason = Some("10 deliveries in a row failed".to_owned());
    scene.webhooks[0].held = 12;
    let disabled = "🟠 The webhook https://b.example was disabled by the hub, 2026-02-21 14:30 UTC: 10 deliveries in a row \
                    failed. Repair what receives it, then enable it.";
    let held = "🟡 12 deliveries are held for disabled webhooks. Enable them, then replay what is held.";
    assert_eq!(scene.said(), [disabled, held]);
    scene.webhooks[0].held = WebhookStanding::MOST_HELD;
    assert!(scene.said()[1].starts_with("🟡 1000 or more deliveries are held"));
}

#[test]
fn an_inactive_integration_is_said_to_be() {
    let scene = Scene { is_active: false, ..Scene::well() };
    assert!(scene.said()[0].starts_with("ℹ️ The integration is inactive"));
}
