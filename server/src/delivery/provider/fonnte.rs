//! Fonnte: the device. It answers 200 whatever happened, and spells its keys in any case.

use bytes::Bytes;
use http::Method;

use super::answer::{Heard, Object, expiry, rate_limited};
use super::request::{Ask, Asking, required, secret};
use crate::model::connection::{Account, FaultCode, Verdict};

const NAME: &str = "Fonnte";
const KEY: &str = "device token";

pub fn ask(account: &Account) -> Asking {
    let token = required(account, "token")?;
    Ok(Ask::new(Method::POST, account, "/device")?.with("authorization", secret(token)?).body(Bytes::new()))
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let Some(body) = heard.object() else { return heard.by_status(NAME, KEY).into() };
    match (body.flag("status"), heard.status) {
        (Some(true), 200..=299) => device(account, heard, &body),
        (Some(false), status) => no(heard, status, body.text("reason").unwrap_or_default()),
        _ => heard.by_status(NAME, KEY).into(),
    }
}

/// What a refusal in so many words means; the words are not passed on.
fn no(heard: &Heard<'_>, status: u16, reason: &str) -> Verdict {
    let reason = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match () {
        () if status == 429 || says(&["too many", "rate limit"]) => rate_limited(NAME).into(),
        () if says(&["expired"]) => Verdict::bad(
            FaultCode::AccountInactive,
            "the subscription at Fonnte has ended; the token is good, renew the subscription there",
        ),
        () if says(&["disconnect"]) => off(),
        () if says(&["token", "unknown user", "unauthor"]) || matches!(status, 401 | 403) => Verdict::bad(
            FaultCode::AuthFailed,
            "Fonnte rejected this token on /device; check that it is whole and the token of the device, not of the account",
        ),
        () => heard.by_status(NAME, KEY).into(),
    }
}

fn off() -> Verdict {
    Verdict::bad(
        FaultCode::DeviceDisconnected,
        "the WhatsApp device is not connected at Fonnte; the token is good, scan the QR code there again",
    )
}

fn device(account: &Account, heard: &Heard<'_>, body: &Object) -> Verdict {
    let state = body.text("device_status").map(str::to_ascii_lowercase);
    let found = || match state.as_deref() {
        Some("connect" | "connected") => Verdict::good(),
        Some("disconnect" | "disconnected") => off(),
        _ => heard.by_status(NAME, KEY).into(),
    };
    let verdict = expiry(NAME, body.text("expired"), "%d %B %Y", account.now).judge(found).of(body.text("name"));
    match body.number("quota") {
        Some(0) => verdict.warn("the quota of messages is used up"),
        _ => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    fn held() -> Account {
        account(Provider::Fonnte, serde_json::json!({ "token": "device-token" }))
    }

    fn said(state: &str, expires: &str) -> String {
        format!(
            r#"{{"device":"6281200000000","device_status":"{state}","expired":"{expires}","messages":120,"name":"Contoh LMS","package":"Reguler","quota":"9880","status":true}}"#
        )
    }

    #[test]
    fn the_token_is_sent_as_it_is_by_post_without_a_body() {
        let ask = ask(&held()).unwrap();
        assert_eq!((ask.method, ask.url.as_str()), (Method::POST, "https://api.fonnte.com/device"));
        assert_eq!((ask.headers["authorization"].to_str().unwrap(), ask.body.len()), ("device-token", 0));
        let broken = account(Provider::Fonnte, serde_json::json!({ "token": "a\r\nx: b" }));
        assert_eq!(super::ask(&broken).err().map(|fault| fault.code), Some(Configuration));
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let no = |reason: &str| format!(r#"{{"reason":"{reason}","status":false}}"#);
        for (status, body, expected) in [
            (200, said("connect", "5 January 2027"), None),
            (200, said("connect", "5 January 2027").replace("\"status\"", "\"Status\""), None),
            (200, said("disconnect", "5 January 2027"), Some(DeviceDisconnected)),
            (200, said("connect", "14 March 2026"), Some(AccountInactive)),
            (200, said("connect", "one day"), None),
            (200, said("asleep", "5 January 2027"), Some(UnexpectedResponse)),
            (200, no("token invalid"), Some(AuthFailed)),
            (200, no("unknown user"), Some(AuthFailed)),
            (200, r#"{"Reason":"token invalid","Status":false}"#.to_owned(), Some(AuthFailed)),
            (200, no("expired"), Some(AccountInactive)),
            (200, no("device disconnected"), Some(DeviceDisconnected)),
            (200, no("too many requests"), Some(RateLimited)),
            (200, no("what?"), Some(UnexpectedResponse)),
            (401, String::new(), Some(AuthFailed)),
            (401, "<html></html>".to_owned(), Some(UnexpectedResponse)),
            (429, String::new(), Some(RateLimited)),
            (500, String::new(), Some(ProviderUnavailable)),
            (404, "<html>".to_owned(), Some(Configuration)),
            (200, "".to_owned(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "application/json", body: body.as_bytes() };
            assert_eq!(code(&judge(&held(), &heard)), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_used_up_quota_and_a_near_end_are_warnings() {
        let body = said("connect", "20 March 2026").replace("9880", "0");
        let verdict = judge(&held(), &Heard { status: 200, content_type: "", body: body.as_bytes() });
        assert_eq!((verdict.fault, verdict.warnings.len()), (None, 2));
        assert_eq!(verdict.account.as_deref(), Some("Contoh LMS"));
    }
}
