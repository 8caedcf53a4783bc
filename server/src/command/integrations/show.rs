//! Integrations and what belongs to them, for people.

use upbridge_client::v1;
use upbridge_server::http::to_json;
use upbridge_server::model::integration::{Action, Category, Environment, LogStatus, Provider};

use crate::command::table::columns;

/// The word of a number of the contract.
pub fn word<T: Copy>(all: &[T], number: i32, word: fn(T) -> &'static str) -> String {
    let value = usize::try_from(number - 1).ok().and_then(|place| all.get(place));
    value.map_or("?", |value| word(*value)).to_owned()
}

/// Text line by line.
pub fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// The providers there are.
pub fn providers(providers: &[v1::ProviderInfo]) -> String {
    let row = |info: &v1::ProviderInfo| {
        let credential = |one: &v1::CredentialInfo| match one.required {
            true => one.name.clone(),
            false => format!("{}?", one.name),
        };
        [
            word(Provider::ALL, info.provider, Provider::as_str),
            word(Category::ALL, info.category, Category::as_str),
            info.credentials.iter().map(credential).collect::<Vec<_>>().join(" "),
            info.callback_proof.clone(),
        ]
    };
    columns(["PROVIDER", "CATEGORY", "CREDENTIALS", "CALLBACKS"], &providers.iter().map(row).collect::<Vec<_>>())
}

/// One integration.
pub fn one(one: &v1::Integration) -> String {
    let json: serde_json::Value = serde_json::from_str(&to_json(one)).unwrap_or_default();
    let text = |name: &str| match json.get(name) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    named(vec![
        ("id", one.id.clone()),
        ("partner", one.partner_id.clone()),
        ("provider", word(Provider::ALL, one.provider, Provider::as_str)),
        ("name", one.name.clone()),
        ("environment", word(Environment::ALL, one.environment, Environment::as_str)),
        ("active", one.is_active.to_string()),
        ("credentials", text("credentials")),
        ("base URL", one.base_url.clone().unwrap_or_default()),
        ("callbacks", one.callback_path.clone()),
        ("last test", one.last_test.as_ref().map(last_test).unwrap_or_default()),
        ("encrypted by", one.encryption_key_id.clone()),
        ("added", time(one.created_at.as_ref())),
        ("changed", time(one.updated_at.as_ref())),
    ])
}

/// A last test in a line.
pub fn last_test(test: &v1::IntegrationTestSummary) -> String {
    format!(
        "{} {}: {}",
        time(test.tested_at.as_ref()),
        word(LogStatus::ALL, test.status, LogStatus::as_str),
        test.message
    )
}

/// How a test went.
pub fn test(tested: &v1::TestConnectionResponse) -> String {
    let (test, diagnosis) = (tested.test.clone().unwrap_or_default(), tested.diagnosis.clone().unwrap_or_default());
    let environment = test.details.map(|details| word(Environment::ALL, details.environment, Environment::as_str));
    named(vec![
        ("status", word(LogStatus::ALL, test.status, LogStatus::as_str)),
        ("message", test.message),
        ("environment", environment.unwrap_or_default()),
        ("class", diagnosis.error_class.unwrap_or_default()),
        ("code", diagnosis.error_code.unwrap_or_default()),
        ("answered", diagnosis.provider_status.map(|status| status.to_string()).unwrap_or_default()),
        ("account", diagnosis.account.unwrap_or_default()),
        ("warnings", diagnosis.warnings.join("; ")),
        ("latency", format!("{} ms", diagnosis.latency_ms)),
    ])
}

/// A page of what happened.
pub fn logs(listed: &v1::ListIntegrationLogsResponse) -> String {
    let row = |log: &v1::IntegrationLog| {
        [
            time(log.created_at.as_ref()),
            word(Action::ALL, log.action, Action::as_str),
            word(LogStatus::ALL, log.status, LogStatus::as_str),
            log.duration.map(|duration| duration.to_string()).unwrap_or_default(),
            log.message.replace('\n', " "),
        ]
    };
    let rows: Vec<_> = listed.logs.iter().map(row).collect();
    let mut text = columns(["WHEN", "ACTION", "STATUS", "MS", "MESSAGE"], &rows);
    if let Some(at) = &listed.pagination {
        text += &format!("\n\npage {} of {}, {} entries", at.page, at.total_pages, at.total);
    }
    text
}

/// How an integration is.
pub fn health(answer: &v1::GetIntegrationHealthResponse) -> String {
    let health = answer.health.clone().unwrap_or_default();
    let metrics = health.metrics.unwrap_or_default();
    let or_none = |value: Option<String>| value.unwrap_or_default();
    let last = health.last_test.clone().unwrap_or_default();
    let last = last.tested_at.as_ref().map(|at| format!("{at}: {}", last.message.clone().unwrap_or_default()));
    let mut facts = vec![
        ("status", health.health_status().as_str_name().rsplit('_').next().unwrap_or_default().to_lowercase()),
        ("score", or_none(health.health_score.map(|score| score.to_string()))),
        ("requests", metrics.total_requests.to_string()),
        ("succeeded", metrics.success_count.to_string()),
        ("failed", metrics.failed_count.to_string()),
        ("success rate", or_none(metrics.success_rate.map(|rate| format!("{rate} %")))),
        ("uptime", or_none(metrics.uptime.map(|uptime| format!("{uptime} %")))),
        ("answers in", or_none(metrics.avg_response_time.map(|millis| format!("{millis} ms")))),
        ("last test", or_none(last)),
    ];
    facts
        .extend(health.error_distribution.iter().map(|error| ("error", format!("{} × {}", error.count, error.r#type))));
    lines([named(facts)].into_iter().chain(health.recommendations.iter().cloned()))
}

/// Values under their names; what is empty is left out.
fn named(mut facts: Vec<(&str, String)>) -> String {
    facts.retain(|(_, value)| !value.is_empty());
    lines(facts.iter().map(|(name, value)| format!("{name:13} {value}")))
}

/// A time, or nothing.
pub fn time<T: std::fmt::Display>(at: Option<&T>) -> String {
    at.map(ToString::to_string).unwrap_or_default()
}
