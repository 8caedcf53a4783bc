//! Wablas: the device. The token is in the address, so the address is a secret too.

use http::Method;

use super::answer::{Heard, Object, expiry, rate_limited};
use super::request::{Ask, Asking, required};
use crate::model::connection::{Account, Fault, FaultCode, Verdict};

const NAME: &str = "Wablas";
const KEY: &str = "token";
/// Said when only the token together with the secret key was taken.
pub const TOGETHER: &str = "Wablas takes the token only together with the secret key";

/// Asks with the token alone, or with the secret key behind it, as newer accounts do.
pub fn ask(account: &Account, with_secret: bool) -> Asking {
    let token = required(account, "token")?;
    let secret = account.credentials.text("secretKey").filter(|_| with_secret);
    let token = secret.map_or_else(|| token.to_owned(), |secret| format!("{token}.{secret}"));
    let mut ask = Ask::new(Method::GET, account, "/api/device/info")?;
    ask.url.query_pairs_mut().append_pair("token", &token);
    Ok(ask)
}

pub fn judge(account: &Account, heard: &Heard<'_>) -> Verdict {
    let Some(body) = heard.object() else {
        // Another server of Wablas answers so, and so does one that is not of Wablas.
        return match heard.status {
            404 => not_this_server().into(),
            _ => heard.by_status(NAME, KEY).into(),
        };
    };
    match (body.flag("status"), heard.status) {
        (Some(true), 200..=299) => device(account, &body),
        (Some(false), status) => no(heard, status, body.text("message").unwrap_or_default()),
        (_, 404) => not_this_server().into(),
        _ => heard.by_status(NAME, KEY).into(),
    }
}

fn not_this_server() -> Fault {
    Fault::new(
        FaultCode::Configuration,
        "there is no Wablas at this address; the base URL must be the server the account is on, such as \
         https://solo.wablas.com",
    )
}

/// What a refusal in so many words means; the words are not passed on.
fn no(heard: &Heard<'_>, status: u16, message: &str) -> Verdict {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match () {
        () if status == 429 || says(&["too many", "rate limit"]) => rate_limited(NAME).into(),
        () if says(&["expired"]) => Verdict::bad(
            FaultCode::AccountInactive,
            "the subscription at Wablas has ended; the token is good, renew the subscription there",
        ),
        () if says(&["disconnect", "not connected"]) => off(),
        () if says(&["token", "unauthor", "secret"]) || matches!(status, 401 | 403) => Verdict::bad(
            FaultCode::AuthFailed,
            "Wablas refused the token; check it, the secret key, and that the base URL is the server the account is on",
        ),
        () => heard.by_status(NAME, KEY).into(),
    }
}

fn off() -> Verdict {
    Verdict::bad(
        FaultCode::DeviceDisconnected,
        "the WhatsApp device is not connected at Wablas; the token is good, scan the QR code there again",
    )
}

fn device(account: &Account, body: &Object) -> Verdict {
    let none = || Verdict::good_but("Wablas did not say whether the device is connected");
    let Some(data) = body.object("data") else { return none() };
    let state = data.text("status").map(str::to_ascii_lowercase);
    let found = || match state.as_deref() {
        _ if data.flag("active") == Some(false) => Verdict::bad(
            FaultCode::AccountInactive,
            "the device is not active at Wablas; the token is good, look at its subscription there",
        ),
        Some("connected") => Verdict::good(),
        None => none(),
        Some(_) => off(),
    };
    expiry(NAME, data.text("expired_date"), "%Y-%m-%d", account.now).judge(found).of(data.text("name"))
}

#[cfg(test)]
mod tests {
    use super::super::check::{account, code};
    use super::*;
    use crate::model::integration::Provider;
    use FaultCode::*;

    fn held() -> Account {
        let mut account = account(Provider::Wablas, serde_json::json!({ "token": "tok&1", "secretKey": "sec" }));
        account.base_url = Some("https://solo.wablas.com".to_owned());
        account
    }

    fn info(status: &str, expires: &str, active: bool) -> String {
        format!(
            r#"{{"status":true,"data":{{"name":"Contoh LMS","sender":"6281200000000","quota":4999,"expired_date":"{expires}","active":{active},"status":"{status}","delay_message":"15 seconds"}}}}"#
        )
    }

    #[test]
    fn the_token_is_in_the_query_alone_or_with_the_secret() {
        let url = |with_secret| ask(&held(), with_secret).unwrap().url.to_string();
        assert_eq!(url(false), "https://solo.wablas.com/api/device/info?token=tok%261");
        assert_eq!(url(true), "https://solo.wablas.com/api/device/info?token=tok%261.sec");
        let homeless = Account { base_url: None, ..held() };
        assert_eq!(ask(&homeless, false).err().map(|fault| fault.code), Some(Configuration));
    }

    #[test]
    fn every_row_of_the_fact_sheet_is_understood() {
        let no = |message: &str| format!(r#"{{"status":false,"message":"{message}"}}"#);
        for (status, body, expected) in [
            (200, info("connected", "2027-01-05", true), None),
            (200, info("CONNECTED", "2027-01-05", true), None),
            (200, info("disconnected", "2027-01-05", true), Some(DeviceDisconnected)),
            (200, info("connected", "2026-03-14", true), Some(AccountInactive)),
            (200, info("connected", "2026-03-15", true), None),
            (200, info("connected", "soon", true), None),
            (200, info("connected", "2027-01-05", false), Some(AccountInactive)),
            (200, r#"{"status":true,"message":"Success","data":{"phone":"62","active_period":"x"}}"#.to_owned(), None),
            (200, no("token invalid"), Some(AuthFailed)),
            (401, no("token invalid"), Some(AuthFailed)),
            (403, no("no"), Some(AuthFailed)),
            (500, no("token invalid"), Some(AuthFailed)),
            (200, no("your package is expired"), Some(AccountInactive)),
            (200, no("device is disconnected"), Some(DeviceDisconnected)),
            (200, no("too many requests"), Some(RateLimited)),
            (200, no("what?"), Some(UnexpectedResponse)),
            (429, String::new(), Some(RateLimited)),
            (503, String::new(), Some(ProviderUnavailable)),
            (404, "<html>404</html>".to_owned(), Some(Configuration)),
            (404, r#"{"message":"x"}"#.to_owned(), Some(Configuration)),
            (200, "<html>".to_owned(), Some(UnexpectedResponse)),
            (403, "<html>".to_owned(), Some(UnexpectedResponse)),
            (200, r#"{"status":"yes"}"#.to_owned(), Some(UnexpectedResponse)),
        ] {
            let heard = Heard { status, content_type: "application/json", body: body.as_bytes() };
            assert_eq!(code(&judge(&held(), &heard)), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_subscription_that_ends_within_a_week_is_a_warning() {
        let warnings = |expires: &str| {
            let body = info("connected", expires, true);
            judge(&held(), &Heard { status: 200, content_type: "", body: body.as_bytes() }).warnings.len()
        };
        // The account's now is 15 March 2026.
        assert_eq!((warnings("2026-03-15"), warnings("2026-03-22"), warnings("2026-03-23")), (1, 1, 0));
    }
}
