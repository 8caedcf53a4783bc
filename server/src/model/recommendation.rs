//! What to do about an integration: a table of rules over the figures of its health, each of which says what it rests
//! on.
//!
//! A sentence begins with how urgent it is: 🔴 now, 🟠 soon, 🟡 when there is time, ℹ️ to know. The rules stand in the
//! order in which they are told.

use std::fmt::Write as _;

use super::Instant;
use super::failure::FailureClass;
use super::integration::{LogStatus, TestRecord, failure_label};
use super::integration_health::{Counted, Figures, HealthStatus, HealthWindow, Requests, Source, days_since, rate};

/// What is said when no rule applies.
pub const ALL_WELL: &str = "✅ Integration is healthy. No action required.";

/// Milliseconds on average above which answers are slow.
const SLOW: i64 = 2_000;
/// Per cent of requests above which a provider that limits them is worth a word.
const LIMITED_PERCENT: i64 = 5;
/// A kind of failure is a pattern when there are this many, they are half of all failures, and this share of requests.
const PATTERN: i64 = 3;
/// In per cent of requests: what is rarer is no pattern, and does not rise.
const NOTICEABLE_PERCENT: i64 = 2;
/// Days after which a test is too long ago.
const TEST_DAYS: i32 = 7;
/// Failures in the last hour below which they do not rise.
const RISING: i64 = 3;

/// What rules look at.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// When.
    pub window: HealthWindow,
    /// What was counted.
    pub counted: &'a Counted,
    /// What was made of it.
    pub figures: Figures,
    /// Failures by what they are called, most frequent first.
    pub errors: &'a [(&'static str, i64)],
    /// The last test.
    pub last_test: Option<&'a TestRecord>,
    /// Whether the integration is at work.
    pub is_active: bool,
    /// Its webhooks.
    pub webhooks: &'a [WebhookStanding],
}

impl Evidence<'_> {
    /// What failed most often, of those failures; the hub's own calls where nothing or everything says so.
    fn mostly(&self, is_meant: impl Fn(&Option<FailureClass>) -> bool) -> Source {
        let of = |source: Source| -> i64 {
            let sources = self.counted.sources.iter();
            sources.filter(|((class, one), _)| *one == source && is_meant(class)).map(|(_, count)| count).sum()
        };
        let (tests, callbacks, deliveries) = (of(Source::Test), of(Source::Callback), of(Source::Delivery));
        match () {
            () if deliveries > tests + callbacks => Source::Delivery,
            () if callbacks > tests + deliveries => Source::Callback,
            () => Source::Test,
        }
    }
}

/// How a webhook stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookStanding {
    /// Where it is sent.
    pub url: String,
    /// Whether it is told anything.
    pub is_active: bool,
    /// When the hub disabled it.
    pub disabled_at: Option<Instant>,
    /// Why the hub disabled it.
    pub disabled_reason: Option<String>,
    /// Until when nothing is tried.
    pub breaker_open_until: Option<Instant>,
    /// Deliveries that are held, counted up to [`WebhookStanding::MOST_HELD`].
    pub held: i64,
}

impl WebhookStanding {
    /// Deliveries that are held are counted up to this.
    pub const MOST_HELD: i64 = 1_000;
}

/// A rule: what it is called, and what it says when it applies.
pub struct Rule {
    /// For people who read the table.
    pub name: &'static str,
    says: fn(&Evidence<'_>) -> Vec<String>,
}

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule { name: "refused credentials", says: |seen| refused_credentials(seen).into_iter().collect() },
    Rule { name: "band", says: |seen| band(seen).into_iter().collect() },
    Rule { name: "no data", says: |seen| no_data(seen).into_iter().collect() },
    Rule { name: "failed test", says: |seen| failed_test(seen).into_iter().collect() },
    Rule { name: "rising failures", says: |seen| rising(seen).into_iter().collect() },
    Rule { name: "error pattern", says: |seen| pattern(seen).into_iter().collect() },
    Rule { name: "unproved callbacks", says: |seen| unproved(seen).into_iter().collect() },
    Rule { name: "deliveries not let in", says: |seen| not_let_in(seen).into_iter().collect() },
    Rule { name: "rate limit", says: |seen| limited(seen).into_iter().collect() },
    Rule { name: "slow answers", says: |seen| slow(seen).into_iter().collect() },
    Rule { name: "webhooks", says: webhooks },
    Rule { name: "test schedule", says: |seen| test_schedule(seen).into_iter().collect() },
    Rule { name: "inactive integration", says: |seen| inactive(seen).into_iter().collect() },
];

/// What to do, the most urgent first; [`ALL_WELL`] when there is nothing.
pub fn recommend(seen: &Evidence<'_>) -> Vec<String> {
    let said: Vec<String> = RULES.iter().flat_map(|rule| (rule.says)(seen)).collect();
    if said.is_empty() { vec![ALL_WELL.to_owned()] } else { said }
}

fn refused_credentials(seen: &Evidence<'_>) -> Option<String> {
    const RENEW: &str = "Renew the credential at the provider and enter it here, then test the connection.";
    if seen.counted.refused_lately > 0 {
        let times = times(seen.counted.refused_lately);
        return Some(format!("🔴 The credentials were refused {times} in the last 15 minutes. {RENEW}"));
    }
    let test = seen.last_test.filter(|test| is_failure(test, Some(FailureClass::Auth)))?;
    Some(format!("🔴 The credentials were refused at the last test, {}. {RENEW}", time(test.at)))
}

fn unproved(seen: &Evidence<'_>) -> Option<String> {
    let count = seen.counted.unproved_lately;
    (count > 0).then(|| {
        format!(
            "🟠 Authentication of callbacks failed {} in the last 15 minutes. When they are the provider's, compare the \
             signing secret with the one there, and renew it here when they differ.",
            times(count)
        )
    })
}

fn not_let_in(seen: &Evidence<'_>) -> Option<String> {
    let count = seen.counted.not_let_in_lately;
    (count > 0).then(|| {
        format!(
            "🟠 Receivers of webhooks refused the hub's signature {} in the last 15 minutes. Compare the webhook's \
             secret with the one there, and rotate it when they differ.",
            times(count)
        )
    })
}

fn band(seen: &Evidence<'_>) -> Option<String> {
    const RECEIVERS: &str =
        "See that whatever receives the webhooks works, and look into the failed entries of the log.";
    let is_theirs = seen.mostly(|_| true) == Source::Delivery;
    let (word, advice) = match seen.figures.status {
        HealthStatus::Critical if is_theirs => ("🔴 Critical", RECEIVERS),
        HealthStatus::Critical => {
            ("🔴 Critical", "Test the connection now, and see what the provider says of its state.")
        }
        HealthStatus::Degraded if is_theirs => ("🟠 Degraded", RECEIVERS),
        HealthStatus::Degraded => ("🟠 Degraded", "Test the connection, and look into the failed entries of the log."),
        HealthStatus::Warning => ("🟡 Warning", "Look into the failed entries of the log."),
        HealthStatus::Healthy | HealthStatus::Unknown => return None,
    };
    let Requests { failed, .. } = seen.counted.requests;
    let total = seen.counted.requests.total();
    let rate = percent(seen.figures.success_rate?);
    let mut said = format!("{word}: {failed} of {} failed in {}, {rate} succeeded", requests(total), window(seen));
    if let Some((label, count)) = seen.errors.first() {
        // Writing to a string cannot fail.
        let _ = write!(said, "; most frequent: {label}, {}", times(*count));
    }
    Some(format!("{said}. {advice}"))
}

fn no_data(seen: &Evidence<'_>) -> Option<String> {
    let is_unknown = seen.figures.status == HealthStatus::Unknown;
    is_unknown.then(|| {
        format!(
            "ℹ️ Nothing was asked of the integration in {}, so its health is not known. Test the connection.",
            window(seen)
        )
    })
}

fn failed_test(seen: &Evidence<'_>) -> Option<String> {
    let test = seen.last_test.filter(|test| is_failure(test, None))?;
    let label = test.class.map_or("Unknown error", failure_label);
    let message = test.message.trim_end_matches('.');
    // What a test says begins with it.
    let kind = if message.starts_with(label) { String::new() } else { format!(" ({label})") };
    Some(format!("🟠 The last test failed, {}{kind}: {message}.", time(test.at)))
}

fn rising(seen: &Evidence<'_>) -> Option<String> {
    let (last, all) = (seen.counted.last_hour, seen.counted.requests);
    let before = Requests { success: all.success - last.success, failed: all.failed - last.failed };
    if last.failed < RISING || before.total() <= 0 || last.failed * 100 < NOTICEABLE_PERCENT * last.total() {
        return None;
    }
    // Twice the share of before, without dividing.
    if last.failed * before.total() < 2 * before.failed * last.total() {
        return None;
    }
    Some(format!(
        "🟠 Failures are rising: {} of {} failed in the last hour ({}), against {} of {} in the time before ({}).",
        last.failed,
        requests(last.total()),
        percent(rate(last.failed, last.total())),
        before.failed,
        before.total(),
        percent(rate(before.failed, before.total())),
    ))
}

fn pattern(seen: &Evidence<'_>) -> Option<String> {
    let (label, count) = *seen.errors.first()?;
    let (failed, total) = (seen.counted.requests.failed, seen.counted.requests.total());
    if count < PATTERN || count * 2 < failed || count * 100 < NOTICEABLE_PERCENT * total {
        return None;
    }
    let share = percent(rate(count, failed));
    let class = seen.counted.failures.keys().flatten().find(|class| failure_label(**class) == label);
    let source = seen.mostly(|one| one.as_ref() == class);
    let advice = match (class, source) {
        (None, _) => "Look into the failed entries of the log.",
        (Some(class), Source::Test) => advice(*class),
        (Some(_), Source::Callback) => "Look into the failed entries of the log, and compare the provider's settings.",
        (Some(class), Source::Delivery) => advice_of_delivery(*class),
    };
    let of = match source {
        Source::Test => "",
        Source::Callback => ", mostly of callbacks",
        Source::Delivery => ", mostly of deliveries to webhooks",
    };
    Some(format!("🟡 {label} is the pattern: {count} of {failed} failures in {} ({share}){of}. {advice}", window(seen)))
}

/// What to do when it is a webhook's receiver that fails so.
fn advice_of_delivery(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Network | FailureClass::Timeout | FailureClass::Down => {
            "See that whatever receives the webhooks works, and answers before it does its work."
        }
        FailureClass::Auth | FailureClass::Permission => "Compare the webhook's secret with the receiver's.",
        FailureClass::RateLimited => "Lower the rate limit of the webhook to what its receiver takes.",
        FailureClass::Tls => "Check the certificate of the webhook's address.",
        FailureClass::Blocked | FailureClass::Redirect => "Correct the webhook's address.",
        FailureClass::Config | FailureClass::Refused | FailureClass::Garbage => {
            "Look into what the receiver refused in the log."
        }
    }
}

fn advice(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Network => "Check that the hub's network reaches the address.",
        FailureClass::Tls => "Check the certificate of the address that is called.",
        FailureClass::Timeout => "Check the provider's state, and the network between.",
        FailureClass::Blocked => "Check the address, or allow its network in OUTBOUND_ALLOWED_NETWORKS.",
        FailureClass::Auth => "Renew the credential.",
        FailureClass::Permission => "Give the key the permission it lacks, at the provider.",
        FailureClass::Config => "Correct the configuration of the integration.",
        FailureClass::RateLimited => "Send less at a time, or ask the provider for a higher limit.",
        FailureClass::Down => "See what the provider says of its state.",
        FailureClass::Redirect => "Enter the address it redirects to: redirects are not followed.",
        FailureClass::Refused => "Look into what was refused in the log.",
        FailureClass::Garbage => "Check that the address is the provider's, and no proxy or page in between.",
    }
}

fn limited(seen: &Evidence<'_>) -> Option<String> {
    let limited = seen.counted.failures.get(&Some(FailureClass::RateLimited)).copied().unwrap_or(0);
    let total = seen.counted.requests.total();
    (limited * 100 > LIMITED_PERCENT * total).then(|| {
        format!(
            "🟡 The rate limit was met by {limited} of {} in {} ({}). {}",
            requests(total),
            window(seen),
            percent(rate(limited, total)),
            match seen.mostly(|class| *class == Some(FailureClass::RateLimited)) {
                Source::Delivery => advice_of_delivery(FailureClass::RateLimited),
                _ => advice(FailureClass::RateLimited),
            }
        )
    })
}

fn slow(seen: &Evidence<'_>) -> Option<String> {
    let average = seen.figures.avg_response_time.filter(|average| *average > SLOW)?;
    let timed = requests(seen.counted.timed);
    Some(format!(
        "🟡 Slow: {average} ms on average over {timed} in {}; up to {SLOW} ms is usual. Look in the \
         log for what is slow: the provider, a webhook's receiver, or the network between.",
        window(seen)
    ))
}

fn webhooks(seen: &Evidence<'_>) -> Vec<String> {
    let all = seen.webhooks;
    let mut said = Vec::new();
    for one in all.iter().filter(|one| !one.is_active && one.disabled_at.is_some()) {
        let reason = one.disabled_reason.as_deref().unwrap_or("too many deliveries failed").trim_end_matches('.');
        let at = one.disabled_at.map(time).unwrap_or_default();
        said.push(format!(
            "🟠 The webhook {} was disabled by the hub, {at}: {reason}. Repair what receives it, then enable it.",
            address(one)
        ));
    }
    for one in all.iter().filter(|one| one.is_active) {
        if let Some(until) = one.breaker_open_until.filter(|until| *until > seen.window.end) {
            said.push(format!(
                "🟡 Too many deliveries to the webhook {} failed: nothing is tried until {}.",
                address(one),
                time(until)
            ));
        }
    }
    let off = all.iter().filter(|one| !one.is_active && one.disabled_at.is_none()).count();
    if off > 0 {
        let are = if off == 1 { "is" } else { "are" };
        said.push(format!("ℹ️ {off} of {} webhooks {are} switched off, and told nothing.", all.len()));
    }
    let held: i64 = all.iter().map(|one| one.held).sum();
    if held > 0 {
        let more = if all.iter().any(|one| one.held >= WebhookStanding::MOST_HELD) { " or more" } else { "" };
        let deliveries = if held == 1 { "delivery is" } else { "deliveries are" };
        said.push(format!(
            "🟡 {held}{more} {deliveries} held for disabled webhooks. Enable them, then replay what is held."
        ));
    }
    said
}

/// Where a webhook is sent, without what may be a token.
fn address(webhook: &WebhookStanding) -> &str {
    webhook.url.split('?').next().unwrap_or_default()
}

fn test_schedule(seen: &Evidence<'_>) -> Option<String> {
    let Some(test) = seen.last_test else {
        return Some("🟡 The connection was never tested. Test it.".to_owned());
    };
    let days = days_since(test.at, seen.window.end);
    let is_late = (seen.window.end - test.at) > chrono::TimeDelta::days(TEST_DAYS.into());
    is_late.then(|| {
        format!("🟡 The connection was last tested {}, more than {} days ago. Test it.", time(test.at), days - 1)
    })
}

fn inactive(seen: &Evidence<'_>) -> Option<String> {
    const SAID: &str = "ℹ️ The integration is inactive: it takes no callbacks and is not tested by schedule. Activate it, \
                        or delete it when it is no longer needed.";
    (!seen.is_active).then(|| SAID.to_owned())
}

/// Whether a test failed: by that class, or by any but refused credentials, which have a rule of their own.
fn is_failure(test: &TestRecord, class: Option<FailureClass>) -> bool {
    let is_that = match class {
        Some(_) => test.class == class,
        None => test.class != Some(FailureClass::Auth),
    };
    test.status == LogStatus::Failed && is_that
}

fn window(seen: &Evidence<'_>) -> String {
    match seen.window.hours {
        1 => "the last hour".to_owned(),
        hours => format!("the last {hours} hours"),
    }
}

fn requests(count: i64) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}

fn times(count: i64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// Tenths of a per cent.
fn percent(tenths: i64) -> String {
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn time(at: Instant) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests;
