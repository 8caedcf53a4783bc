//! Stripe: the balance, which also tells whose mode the key is.

use http::Method;

use super::answer::{Heard, rate_limited, refused, unavailable};
use super::request::{Ask, Asking, required, secret, wrong};
use crate::model::connection::{Account, FaultCode, Verdict};
use crate::model::integration::Environment;

const NAME: &str = "Stripe";
const KEY: &str = "secret key";

pub fn ask(account: &Account) -> Asking {
    let key = required(account, "secretKey")?;
    if key.starts_with("pk_") {
        return Err(wrong("secretKey is a publishable key, which proves nothing; give the secret or a restricted key"));
    }
    Ok(Ask::new(Method::GET, account, "/v1/balance")?.with("authorization", secret(&format!("Bearer {key}"))?))
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let Some(body) = heard.object() else { return heard.by_status(NAME, KEY).into() };
    if let Some(error) = body.object("error") {
        return match (error.text("code"), heard.status) {
            (Some("rate_limit"), _) => rate_limited(NAME).into(),
            (Some("api_key_expired"), _) => {
                Verdict::bad(FaultCode::AuthFailed, "the secret key has expired or was rolled; give the new one")
            }
            (_, 401) => Verdict::bad(FaultCode::AuthFailed, refused(NAME, KEY)),
            (_, 403) => Verdict::bad(
                FaultCode::PermissionDenied,
                "the restricted key is real, but may not read the balance; give it the permission Balance: Read",
            ),
            (_, 400 | 404) => wrong("Stripe does not understand what it is asked; check the base URL").into(),
            (_, status @ 500..) => unavailable(NAME, status).into(),
            _ => heard.by_status(NAME, KEY).into(),
        };
    }
    let livemode = body.flag("livemode");
    match (heard.status, body.text("object"), livemode) {
        (200, Some("balance"), Some(is_live)) => match (is_live, account.environment) {
            (true, Environment::Sandbox) => {
                wrong("the secret key is one of live mode, and the integration is for the sandbox").into()
            }
            (false, Environment::Production) => {
                wrong("the secret key is one of test mode, and the integration is for production").into()
            }
            _ => Verdict::good(),
        },
        _ => heard.by_status(NAME, KEY).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    fn with(key: &str) -> Account {
        account(Provider::Stripe, serde_json::json!({ "secretKey": key }))
    }

    #[test]
    fn the_key_is_a_bearers_and_a_publishable_one_is_not_sent() {
        let ask = ask(&with("sk_test_1")).unwrap();
        assert_eq!(
            (ask.url.as_str(), ask.headers["authorization"].to_str().unwrap()),
            ("https://api.stripe.com/v1/balance", "Bearer sk_test_1")
        );
        assert!(ask.headers["authorization"].is_sensitive());
        assert_eq!(super::ask(&with("pk_test_1")).err().map(|fault| fault.code), Some(Configuration));
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let balance = |live: bool| {
            format!(
                r#"{{"object":"balance","available":[{{"amount":0,"currency":"usd","source_types":{{"card":0}}}}],"pending":[],"livemode":{live}}}"#
            )
        };
        let error =
            |rest: &str| format!(r#"{{"error":{{"message":"Invalid API Key provided: sk_test_hunter22"{rest}}}}}"#);
        for (status, body, expected) in [
            (200, balance(false), None),
            (200, balance(true), Some(Configuration)),
            (401, error(r#","type":"invalid_request_error""#), Some(AuthFailed)),
            (401, error(r#","code":"api_key_expired""#), Some(AuthFailed)),
            (403, error(r#","type":"invalid_request_error""#), Some(PermissionDenied)),
            (429, error(""), Some(RateLimited)),
            (400, error(r#","code":"rate_limit""#), Some(RateLimited)),
            (400, error(""), Some(Configuration)),
            (404, error(""), Some(Configuration)),
            (402, error(r#","type":"card_error""#), Some(UnexpectedResponse)),
            (500, error(r#","type":"api_error""#), Some(ProviderUnavailable)),
            (503, String::new(), Some(ProviderUnavailable)),
            (200, error(""), Some(UnexpectedResponse)),
            (200, r#"{"object":"balance"}"#.to_owned(), Some(UnexpectedResponse)),
            (200, "{}".to_owned(), Some(UnexpectedResponse)),
            (401, "<!doctype html>".to_owned(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "application/json", body: body.as_bytes() };
            let verdict = judge(&with("sk_test_hunter22"), &heard);
            assert_eq!(code(&verdict), expected, "{status} {body}");
            assert!(!format!("{verdict:?}").contains("hunter22"));
        }
        let live = balance(true);
        let heard = Heard { status: 200, content_type: "", body: live.as_bytes() };
        let production = Account { environment: Environment::Production, ..with("sk_live_1") };
        assert_eq!(code(&judge(&production, &heard)), None);
    }
}
