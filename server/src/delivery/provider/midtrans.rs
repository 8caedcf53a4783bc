//! Midtrans: the state of an order that does not exist.

use bytes::Bytes;
use http::Method;
use uuid::Uuid;

use super::answer::{Heard, rate_limited, refused, unavailable};
use super::request::{Ask, Asking, basic, required};
use crate::model::connection::{Account, FaultCode, Verdict};
use crate::model::integration::Environment;

const NAME: &str = "Midtrans";
const KEY: &str = "server key";

pub fn ask(account: &Account) -> Asking {
    let key = required(account, "serverKey")?;
    let path = format!("/v2/conn-test-{}/status", Uuid::new_v4());
    Ok(Ask::new(Method::GET, account, &path)?.with("authorization", basic(key, "")?).body(Bytes::new()))
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let verdict = understand(heard);
    let key = account.credentials.text("serverKey").unwrap_or_default();
    match account.environment {
        // Only a warning: newer keys of the sandbox are said to have no prefix of its own.
        Environment::Sandbox if key.starts_with("Mid-server-") => {
            verdict.warn("the server key looks like one of production, and the integration is for the sandbox")
        }
        Environment::Production if key.starts_with("SB-Mid-server-") => {
            verdict.warn("the server key looks like one of the sandbox, and the integration is for production")
        }
        _ => verdict,
    }
}

fn understand(heard: &Heard<'_>) -> Verdict {
    let said = heard.object().and_then(|body| body.number("status_code"));
    match (said, heard.status) {
        (Some(code @ (500..=599 | 900)), _) => unavailable(NAME, code as u16).into(),
        (_, status @ 500..) => unavailable(NAME, status).into(),
        // That there is no such order is told only to whom the key is right.
        (Some(404 | 200..=299), 200 | 404) => Verdict::good(),
        (Some(401), _) => Verdict::bad(FaultCode::AuthFailed, refused(NAME, KEY)),
        (Some(403), _) => Verdict::bad(FaultCode::PermissionDenied, "Midtrans does not let this key read orders"),
        (Some(429), _) => rate_limited(NAME).into(),
        _ => heard.by_status(NAME, KEY).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    const MISSING: &str = r#"{"status_code":"404","status_message":"Transaction doesn't exist.","id":"11111111-2222-3333-4444-555555555555"}"#;
    const UNKNOWN: &str = r#"{"status_code":"401","status_message":"Unknown Merchant server_key/id","id":"11111111-2222-3333-4444-555555555556"}"#;

    fn sandbox() -> Account {
        account(Provider::Midtrans, serde_json::json!({ "serverKey": "SB-Mid-server-abc123cde456" }))
    }

    #[test]
    fn the_published_key_becomes_the_published_header() {
        let ask = ask(&sandbox()).unwrap();
        assert_eq!(ask.headers["authorization"], "Basic U0ItTWlkLXNlcnZlci1hYmMxMjNjZGU0NTY6");
        assert!(ask.url.as_str().starts_with("https://api.sandbox.midtrans.com/v2/conn-test-"), "{}", ask.url);
        assert!(ask.url.as_str().ends_with("/status"));
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let said = |code: &str| format!(r#"{{"status_code":"{code}","status_message":"x"}}"#);
        for (status, body, expected) in [
            (200, MISSING.to_owned(), None),
            (404, MISSING.to_owned(), None),
            (200, said("200"), None),
            (401, UNKNOWN.to_owned(), Some(AuthFailed)),
            (200, UNKNOWN.to_owned(), Some(AuthFailed)),
            (429, said("429"), Some(RateLimited)),
            (200, said("429"), Some(RateLimited)),
            (200, said("500"), Some(ProviderUnavailable)),
            (200, said("503"), Some(ProviderUnavailable)),
            (200, said("900"), Some(ProviderUnavailable)),
            (502, String::new(), Some(ProviderUnavailable)),
            (500, MISSING.to_owned(), Some(ProviderUnavailable)),
            (200, r#"{"status_code":404}"#.to_owned(), None),
            (401, "<html>Sign in to the proxy</html>".to_owned(), Some(UnexpectedResponse)),
            (403, "<html>Forbidden</html>".to_owned(), Some(UnexpectedResponse)),
            (401, String::new(), Some(AuthFailed)),
            (404, "not found".to_owned(), Some(Configuration)),
            (200, "OK".to_owned(), Some(UnexpectedResponse)),
            (200, "[]".to_owned(), Some(UnexpectedResponse)),
            (200, said("412"), Some(UnexpectedResponse)),
            (302, String::new(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "", body: body.as_bytes() };
            assert_eq!(code(&judge(&sandbox(), &heard)), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_key_of_the_other_environment_is_a_warning() {
        let heard = Heard { status: 200, content_type: "", body: MISSING.as_bytes() };
        let warned = |key: &str, environment| {
            let account =
                Account { environment, ..account(Provider::Midtrans, serde_json::json!({ "serverKey": key })) };
            let verdict = judge(&account, &heard);
            assert_eq!(verdict.fault, None);
            verdict.warnings.len()
        };
        use Environment::*;
        assert_eq!((warned("SB-Mid-server-x", Sandbox), warned("Mid-server-x", Sandbox)), (0, 1));
        assert_eq!((warned("SB-Mid-server-x", Production), warned("Mid-server-x", Production)), (1, 0));
        assert_eq!(warned("something-new", Sandbox), 0);
    }
}
