//! What all providers' answers over HTTP have in common.
//!
//! The body comes before the status: providers answer 200 and mean a refusal, and a proxy between answers for them.

use http::StatusCode;

use crate::model::Json;
use crate::model::connection::{Fault, FaultCode, Verdict};

/// An answer as it came.
pub struct Heard<'a> {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`; empty when it has none.
    pub content_type: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

impl Heard<'_> {
    /// The body, when it is a JSON object.
    pub fn object(&self) -> Option<Object> {
        match serde_json::from_slice(self.body) {
            Ok(Json::Object(members)) => Some(Object(members)),
            _ => None,
        }
    }

    fn is_html(&self) -> bool {
        let begins = self.body.trim_ascii_start().starts_with(b"<");
        begins || self.content_type.to_ascii_lowercase().contains("html")
    }

    /// What an answer means that says no more than its status does.
    pub fn by_status(&self, name: &str, key: &str) -> Fault {
        use FaultCode::*;
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let number = self.status;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.is_html() => Fault::new(
                UnexpectedResponse,
                format!(
                    "a page for people came with status {number} instead of an answer of {name}; something between, \
                     such as a proxy or a firewall, refuses the hub, or the address is not {name}'s"
                ),
            ),
            StatusCode::UNAUTHORIZED => Fault::new(AuthFailed, refused(name, key)),
            StatusCode::FORBIDDEN => Fault::new(
                PermissionDenied,
                format!(
                    "{name} knows the {key} but does not let it do this; check its permissions and allowed addresses"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => rate_limited(name),
            StatusCode::NOT_FOUND => Fault::new(
                Configuration,
                format!("there is nothing of {name} at this address; check the base URL and the environment"),
            ),
            status if status.is_server_error() => unavailable(name, number),
            status if status.is_redirection() => Fault::new(
                UnexpectedResponse,
                format!("{name}'s address leads elsewhere, which is not followed; check the base URL"),
            ),
            _ => Fault::new(
                UnexpectedResponse,
                format!(
                    "the answer (status {number}) is not one of {name}; check the base URL, and whether a proxy is in between"
                ),
            ),
        }
    }
}

/// What to do about a key that is refused.
pub fn refused(name: &str, key: &str) -> String {
    format!("{name} refused the {key}; check that it is whole, not revoked, and from this environment")
}

/// Asked too often.
pub fn rate_limited(name: &str) -> Fault {
    Fault::new(FaultCode::RateLimited, format!("{name} wants to be asked less often; try again in a few minutes"))
}

/// The provider is not well.
pub fn unavailable(name: &str, status: u16) -> Fault {
    let hint = format!("{name} has a fault of its own (status {status}); try again later and look at its status page");
    Fault::new(FaultCode::ProviderUnavailable, hint)
}

/// The members of an object, whose names are found regardless of case.
pub struct Object(serde_json::Map<String, Json>);

impl Object {
    /// A member.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0
            .get(name)
            .or_else(|| self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, json)| json))
    }

    /// A member that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A member that is an object.
    pub fn object(&self, name: &str) -> Option<Object> {
        Some(Object(self.get(name)?.as_object()?.clone()))
    }

    /// A member that is a number, or text that is one.
    pub fn number(&self, name: &str) -> Option<u64> {
        let json = self.get(name)?;
        json.as_u64().or_else(|| json.as_str()?.trim().parse().ok())
    }

    /// A member that says yes or no.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }
}

/// What a date in an answer means for the account: a fault when it is past, a warning when it is near.
pub enum Expiry {
    /// It is far, or there is none.
    Far,
    /// It is within a week.
    Near(String),
    /// It is past.
    Past(Fault),
}

impl Expiry {
    /// What is found of an account whose subscription ends so: nothing else counts once it has, and an end that is near
    /// is a warning.
    pub fn judge(self, found: impl FnOnce() -> Verdict) -> Verdict {
        match self {
            Expiry::Past(fault) => fault.into(),
            Expiry::Near(warning) => found().warn(warning),
            Expiry::Far => found(),
        }
    }
}

/// Reads a date an account is good until, that day included.
pub fn expiry(name: &str, date: Option<&str>, form: &str, now: crate::model::Instant) -> Expiry {
    const NEAR_DAYS: i64 = 7;
    let Some(date) = date.and_then(|text| chrono::NaiveDate::parse_from_str(text.trim(), form).ok()) else {
        return Expiry::Far;
    };
    match (date - now.date_naive()).num_days() {
        ..0 => Expiry::Past(Fault::new(
            FaultCode::AccountInactive,
            format!("the subscription at {name} ended on {date}; the token is good, renew the subscription there"),
        )),
        0..=NEAR_DAYS => Expiry::Near(format!("the subscription at {name} ends on {date}")),
        _ => Expiry::Far,
    }
}
