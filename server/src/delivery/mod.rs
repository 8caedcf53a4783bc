//! The outward door: the only room that calls others.
//!
//! [`CreatorUpApi`] speaks to CreatorUp and [`HookApi`] to the receivers of webhooks, through the bounded and guarded
//! client of [`upbridge_service::delivery`], where the essay of what is guaranteed stands. [`ProviderApis`] asks
//! providers whether integrations work.

mod creatorup;
mod hook;
mod outward;
mod provider;

pub use creatorup::CreatorUpApi;
pub use hook::HookApi;
pub use provider::ProviderApis;
pub use upbridge_service::delivery::{Answer, BaseUrl, Guard, MOST_BYTES, Networks, Outbound, Trust};

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::model::Instant;

/// How CreatorUp is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `CREATORUP_API_URL`
    pub url: BaseUrl,
    /// `CREATORUP_ALLOWED_URLS`: further addresses of CreatorUp that a caller may name.
    pub allowed_urls: Vec<BaseUrl>,
    /// `SYNC_TIMEOUT`: how long one call may take as a whole.
    pub timeout: Duration,
    /// `OUTBOUND_ALLOWED_NETWORKS`
    pub allowed_networks: Networks,
}

/// When the other side wants to be asked again: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Instant) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => (chrono::DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_anything_else_is_nothing() {
        let now = chrono::DateTime::parse_from_rfc3339("2026-03-15T12:00:00Z").unwrap().to_utc();
        let read = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
                .map(|after| after.as_secs())
        };
        assert_eq!((read("120"), read("0"), read(" 7 ")), (Some(120), Some(0), Some(7)));
        assert_eq!(read("Sun, 15 Mar 2026 12:00:30 GMT"), Some(30));
        assert_eq!(
            (read("Sun, 15 Mar 2026 11:00:00 GMT"), read("soon"), read("-1"), read("1.5")),
            (None, None, None, None)
        );
    }
}
