//! Twilio: the account itself. Its answer holds the auth token, so nothing of it is kept but name, status and type.

use http::Method;

use super::answer::{Heard, rate_limited};
use super::request::{Ask, Asking, basic, required, wrong};
use crate::model::connection::{Account, FaultCode, Verdict};

const NAME: &str = "Twilio";
const KEY: &str = "account SID and auth token";

pub fn ask(account: &Account) -> Asking {
    let sid = required(account, "accountSid")?;
    let token = required(account, "authToken")?;
    let digits = sid.strip_prefix("AC").unwrap_or_default();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong("accountSid is not AC and 32 hexadecimal digits; an API key (SK…) cannot stand for it"));
    }
    let path = format!("/2010-04-01/Accounts/{sid}.json");
    Ok(Ask::new(Method::GET, account, &path)?.with("authorization", basic(sid, token)?))
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let Some(body) = heard.object() else { return heard.by_status(NAME, KEY).into() };
    match (body.number("code"), heard.status) {
        (Some(20003), _) | (None, 401) => Verdict::bad(
            FaultCode::AuthFailed,
            "Twilio refused the account SID and auth token; check for stray spaces, test credentials, a replaced token \
             or another region, and that the account is neither suspended nor closed",
        ),
        (Some(20404), _) | (None, 404) => wrong("Twilio has no such account; check accountSid and the base URL").into(),
        (Some(20429), _) => rate_limited(NAME).into(),
        (None, 200) => {
            let sid = account.credentials.text("accountSid").unwrap_or_default();
            if !body.text("sid").is_some_and(|said| said.eq_ignore_ascii_case(sid)) {
                return heard.by_status(NAME, KEY).into();
            }
            let verdict = match body.text("status").map(str::to_ascii_lowercase).as_deref() {
                Some("active") => Verdict::good(),
                Some(status @ ("suspended" | "closed")) => Verdict::bad(
                    FaultCode::AccountInactive,
                    format!(
                        "the account is {status} at Twilio; the credentials are good, settle it in Twilio's console"
                    ),
                ),
                _ => heard.by_status(NAME, KEY).into(),
            };
            let is_trial = body.text("type").is_some_and(|kind| kind.eq_ignore_ascii_case("trial"));
            let verdict = verdict.of(body.text("friendly_name"));
            if is_trial { verdict.warn("a trial account: it sends to verified numbers only") } else { verdict }
        }
        _ => heard.by_status(NAME, KEY).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    const SID: &str = "AC00000000000000000000000000000001";

    fn with(sid: &str) -> Account {
        account(Provider::Twilio, serde_json::json!({ "accountSid": sid, "authToken": "test_auth_token" }))
    }

    fn found(status: &str, kind: &str) -> String {
        format!(
            r#"{{"sid":"{SID}","friendly_name":"Contoh LMS","status":"{status}","type":"{kind}","auth_token":"hunter22","owner_account_sid":"{SID}","subresource_uris":{{}}}}"#
        )
    }

    #[test]
    fn the_vector_of_the_fact_sheet_is_the_header_and_no_other_sid_is_sent() {
        let ask = ask(&with(SID)).unwrap();
        let vector = "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTp0ZXN0X2F1dGhfdG9rZW4=";
        assert_eq!(ask.headers["authorization"], vector);
        assert_eq!(ask.url.as_str(), format!("https://api.twilio.com/2010-04-01/Accounts/{SID}.json"));
        for bad in
            ["SK00000000000000000000000000000001", "AC1", "AC0000000000000000000000000000000g", &format!("{SID}/../x")]
        {
            assert_eq!(super::ask(&with(bad)).err().map(|fault| fault.code), Some(Configuration), "{bad}");
        }
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let error = |code: u32, status: u16| {
            format!(
                r#"{{"code":{code},"message":"Authenticate","more_info":"https://www.twilio.com/docs/errors/{code}","status":{status}}}"#
            )
        };
        for (status, body, expected) in [
            (200, found("active", "Full"), None),
            (200, found("Active", "Trial"), None),
            (200, found("suspended", "Full"), Some(AccountInactive)),
            (200, found("closed", "Full"), Some(AccountInactive)),
            (200, found("asleep", "Full"), Some(UnexpectedResponse)),
            (200, found("active", "Full").replace(SID, "AC2"), Some(UnexpectedResponse)),
            (401, error(20003, 401), Some(AuthFailed)),
            (404, error(20404, 404), Some(Configuration)),
            (429, error(20429, 429), Some(RateLimited)),
            (429, String::new(), Some(RateLimited)),
            (500, error(20500, 500), Some(ProviderUnavailable)),
            (503, String::new(), Some(ProviderUnavailable)),
            (403, error(20006, 403), Some(PermissionDenied)),
            (401, "<html></html>".to_owned(), Some(UnexpectedResponse)),
            (200, "hello".to_owned(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "application/json", body: body.as_bytes() };
            let verdict = judge(&with(SID), &heard);
            assert_eq!(code(&verdict), expected, "{status} {body}");
            assert!(!format!("{verdict:?}").contains("hunter22"));
        }
    }

    #[test]
    fn a_trial_is_a_warning_and_the_account_is_named() {
        let judged = |kind: &str| {
            let body = found("active", kind);
            judge(&with(SID), &Heard { status: 200, content_type: "", body: body.as_bytes() })
        };
        assert_eq!((judged("Trial").warnings.len(), judged("Full").warnings.len()), (1, 0));
        assert_eq!(judged("Full").account.as_deref(), Some("Contoh LMS"));
    }
}
