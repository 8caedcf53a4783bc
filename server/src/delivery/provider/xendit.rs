//! Xendit: the balance.

use http::Method;

use super::answer::{Heard, Object, rate_limited, refused, unavailable};
use super::request::{Ask, Asking, basic, required, wrong};
use crate::model::connection::{Account, FaultCode, Verdict};
use crate::model::integration::Environment;

const NAME: &str = "Xendit";
const KEY: &str = "secret API key";
const FORBIDDEN: &str = "the key is accepted, but has no permission to read the balance (Money-out: Read), or Xendit \
                         allows other addresses only; payments may work all the same";

pub fn ask(account: &Account) -> Asking {
    let key = required(account, "secretKey")?;
    if key.starts_with("xnd_public_") {
        return Err(wrong("secretKey is a public key, which cannot call the API; give the secret API key"));
    }
    Ok(Ask::new(Method::GET, account, "/balance")?.with("authorization", basic(key, "")?))
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let verdict = understand(heard);
    let key = account.credentials.text("secretKey").unwrap_or_default();
    match account.environment {
        Environment::Sandbox if key.starts_with("xnd_production_") => {
            verdict.warn("the key is one of live mode, and the integration is for the sandbox")
        }
        Environment::Production if key.starts_with("xnd_development_") => {
            verdict.warn("the key is one of test mode, and the integration is for production")
        }
        _ => verdict,
    }
}

fn understand(heard: &Heard<'_>) -> Verdict {
    let Some(body) = heard.object() else { return heard.by_status(NAME, KEY).into() };
    match (error_code(&body), heard.status) {
        (Some("INVALID_API_KEY"), _) => Verdict::bad(FaultCode::AuthFailed, refused(NAME, KEY)),
        (Some("REQUEST_FORBIDDEN_ERROR"), _) => Verdict::good_but(FORBIDDEN),
        (Some("RATE_LIMIT_EXCEEDED"), _) => rate_limited(NAME).into(),
        (Some("SERVER_ERROR"), status) => unavailable(NAME, status).into(),
        (Some("API_VALIDATION_ERROR" | "FEATURE_NOT_AVAILABLE"), _) | (_, 400) => {
            wrong("Xendit does not offer the balance to this account; check the account and the base URL").into()
        }
        (None, 200) if body.get("balance").is_some_and(|balance| balance.is_number()) => Verdict::good(),
        (_, status) => {
            // One of the shapes has its status within.
            let within = body.number("statusCode").and_then(|status| u16::try_from(status).ok()).unwrap_or(status);
            Heard { status: within, ..*heard }.by_status(NAME, KEY).into()
        }
    }
}

fn error_code(body: &Object) -> Option<&str> {
    body.text("error_code").or_else(|| body.text("errorCode"))
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    fn with(key: &str) -> Account {
        account(Provider::Xendit, serde_json::json!({ "secretKey": key }))
    }

    #[test]
    fn a_key_becomes_the_header_of_the_fact_sheet_and_a_public_one_is_not_sent() {
        let ask = ask(&with("xnd_development_TESTKEY")).unwrap();
        assert_eq!(ask.headers["authorization"], "Basic eG5kX2RldmVsb3BtZW50X1RFU1RLRVk6");
        assert_eq!(ask.url.as_str(), "https://api.xendit.co/balance");
        assert_eq!(super::ask(&with("xnd_public_development_x")).err().map(|fault| fault.code), Some(Configuration));
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let error = |code: &str| format!(r#"{{"error_code":"{code}","message":"secret words"}}"#);
        for (status, body, expected) in [
            (200, r#"{"balance":1241231}"#.to_owned(), None),
            (200, r#"{"balance":"many"}"#.to_owned(), Some(UnexpectedResponse)),
            (400, error("API_VALIDATION_ERROR"), Some(Configuration)),
            (400, error("FEATURE_NOT_AVAILABLE"), Some(Configuration)),
            (401, error("INVALID_API_KEY"), Some(AuthFailed)),
            (200, error("INVALID_API_KEY"), Some(AuthFailed)),
            (401, r#"{"error_code":"INVALID_API_KEY","error_message":"x"}"#.to_owned(), Some(AuthFailed)),
            (401, r#"{"statusCode":401,"error":"Unauthorized","message":"x"}"#.to_owned(), Some(AuthFailed)),
            (200, r#"{"statusCode":429,"error":"Too Many Requests","message":"x"}"#.to_owned(), Some(RateLimited)),
            (403, error("REQUEST_FORBIDDEN_ERROR"), None),
            (403, error("IP_NOT_ALLOWED"), Some(PermissionDenied)),
            (403, "<html>blocked</html>".to_owned(), Some(UnexpectedResponse)),
            (429, error("RATE_LIMIT_EXCEEDED"), Some(RateLimited)),
            (500, error("SERVER_ERROR"), Some(ProviderUnavailable)),
            (503, String::new(), Some(ProviderUnavailable)),
            (404, error("DATA_NOT_FOUND"), Some(Configuration)),
            (200, "<html>".to_owned(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "application/json", body: body.as_bytes() };
            let verdict = judge(&with("xnd_development_x"), &heard);
            assert_eq!(code(&verdict), expected, "{status} {body}");
            assert!(!format!("{verdict:?}").contains("secret words"));
        }
    }

    #[test]
    fn a_key_without_the_permission_is_good_with_a_warning() {
        let body = br#"{"error_code":"REQUEST_FORBIDDEN_ERROR","message":"The API key is forbidden"}"#;
        let heard = Heard { status: 403, content_type: "", body };
        assert_eq!(judge(&with("xnd_development_x"), &heard), Verdict::good_but(FORBIDDEN));
        assert_eq!(judge(&with("xnd_production_x"), &heard).warnings.len(), 2);
    }
}
