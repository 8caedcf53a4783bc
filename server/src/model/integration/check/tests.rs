//! What is taken for credentials and addresses of providers, and what is shown of them.

use serde_json::json;

use super::*;
use crate::model::outward::Callable;

/// Takes what begins with https, lists what has `listed` in it, and lets nobody inside.
struct Judge;

impl Outward for Judge {
    fn judge(&self, url: &str) -> Result<Callable, NotCallable> {
        match url {
            url if url.contains("inside") => Err(NotCallable::Blocked),
            url => Ok(Callable { url: url.to_owned(), is_listed: url.contains("listed") }),
        }
    }

    fn judge_host(&self, host: &str) -> Result<String, NotCallable> {
        if host == "inside" { Err(NotCallable::Blocked) } else { Ok(host.to_lowercase()) }
    }
}

fn credentials(values: Json) -> Credentials {
    let Value::Object(values) = values else { panic!("an object") };
    Credentials::new(values, None)
}

fn none() -> Credentials {
    Credentials::default()
}

/// The field and what is wrong with it.
fn refused(provider: Provider, held: &Credentials, given: Json) -> (String, String) {
    match merge(provider, held, &credentials(given), &Judge) {
        Err(Error::Invalid { field, description }) => (field, description),
        other => panic!("{other:?}"),
    }
}

fn smtp(change: Json) -> Json {
    let mut whole = json!({
        "host": "Mail.Example.com", "port": 587, "username": "ana", "password": "correct horse",
        "from": "ana@example.com", "security": "starttls",
    });
    let Value::Object(change) = change else { panic!("an object") };
    whole.as_object_mut().unwrap().extend(change);
    whole
}

#[test]
fn a_secret_shows_its_last_four_characters_when_enough_is_left_to_guess() {
    let shown = |key: &str| shown(Provider::Midtrans, &credentials(json!({ "serverKey": key })))["serverKey"].clone();
    assert_eq!(shown("SB-Mid-server-abcdef"), "••••cdef");
    assert_eq!(shown("0123456789ab"), "••••89ab");
    assert_eq!(shown("0123456789a"), "••••");
    assert_eq!(shown("x"), "••••");
    let smtp = super::shown(Provider::Smtp, &credentials(smtp(json!({ "password": "pässwörter für alle" }))));
    assert_eq!(
        (&smtp["password"], &smtp["host"], &smtp["port"]),
        (&json!("••••alle"), &json!("Mail.Example.com"), &json!(587))
    );
}

#[test]
fn what_comes_back_as_it_was_shown_stays_and_null_removes_what_is_optional() {
    let provider = Provider::Stripe;
    let held = credentials(json!({ "secretKey": "sk_test_0123456789", "webhookSecret": "whsec_abcdefghij" }));
    let merged = |given: Json| merge(provider, &held, &credentials(given), &Judge).unwrap();
    let text = |merged: &Merged, name: &str| merged.credentials.text(name).map(str::to_owned);
    for given in [json!({}), shown(provider, &held), json!({ "secretKey": "sk_test_0123456789" })] {
        let merged = merged(given);
        assert_eq!((&merged.credentials, merged.changed.len()), (&held, 0));
    }
    let changed = merged(json!({ "secretKey": "rk_live_9", "webhookSecret": "••••ghij" }));
    assert_eq!((text(&changed, "secretKey").as_deref(), changed.changed), (Some("rk_live_9"), vec!["secretKey"]));
    let removed = merged(json!({ "webhookSecret": null }));
    assert_eq!((text(&removed, "webhookSecret"), removed.changed), (None, vec!["webhookSecret"]));
    let (field, _) = refused(provider, &held, json!({ "secretKey": null }));
    assert_eq!(field, "credentials.secretKey");
    for masked in ["••••", "••••0000", "••••6789x"] {
        assert_eq!(refused(provider, &held, json!({ "secretKey": masked })).0, "credentials.secretKey", "{masked}");
    }
    // Nothing is held that it could stand for.
    assert_eq!(refused(provider, &none(), json!({ "secretKey": "••••6789" })).0, "credentials.secretKey");
}

#[test]
fn what_is_missing_unknown_or_malformed_is_named_and_never_quoted() {
    let sid = "AC0123456789abcdefABCDEF0123456789";
    for (provider, given, field) in [
        (Provider::Midtrans, json!({}), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "" }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": 5 }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": ["hunter22"] }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "hunter22 " }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "hunter22\r\nX-Evil: 1" }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "hunter22ü" }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "h".repeat(501) }), "credentials.serverKey"),
        (Provider::Midtrans, json!({ "serverKey": "x", "signatureKey": "" }), "credentials.signatureKey"),
        (Provider::Midtrans, json!({ "serverKey": "x", "secretKey": "hunter22" }), "credentials.secretKey"),
        (Provider::Midtrans, json!({ "serverKey": "x", "hunter22": "x" }), "credentials"),
        (Provider::Midtrans, json!({ "serverKey": "x", "": "hunter22" }), "credentials"),
        (Provider::Stripe, json!({ "secretKey": "pk_live_hunter22" }), "credentials.secretKey"),
        (Provider::Twilio, json!({ "accountSid": sid }), "credentials.authToken"),
        (Provider::Twilio, json!({ "accountSid": &sid[1..], "authToken": "hunter22" }), "credentials.accountSid"),
        (Provider::Twilio, json!({ "accountSid": format!("{sid}0"), "authToken": "x" }), "credentials.accountSid"),
        (Provider::Twilio, json!({ "accountSid": sid.replace('f', "g"), "authToken": "x" }), "credentials.accountSid"),
        (Provider::Smtp, smtp(json!({ "host": "inside" })), "credentials.host"),
        (Provider::Smtp, smtp(json!({ "port": 0 })), "credentials.port"),
        (Provider::Smtp, smtp(json!({ "port": 65_536 })), "credentials.port"),
        (Provider::Smtp, smtp(json!({ "port": 587.5 })), "credentials.port"),
        (Provider::Smtp, smtp(json!({ "port": "587" })), "credentials.port"),
        (Provider::Smtp, smtp(json!({ "security": "ssl" })), "credentials.security"),
        (Provider::Smtp, smtp(json!({ "from": "hunter22" })), "credentials.from"),
        (Provider::Smtp, smtp(json!({ "from": "Ana <ana@example.com>" })), "credentials.from"),
        (Provider::Smtp, smtp(json!({ "from": "a@example.com\r\nBcc: b@example.com" })), "credentials.from"),
        (Provider::Smtp, smtp(json!({ "username": " hunter22" })), "credentials.username"),
        (Provider::Smtp, smtp(json!({ "password": "hunter22\n" })), "credentials.password"),
    ] {
        let (at, why) = refused(provider, &none(), given.clone());
        assert_eq!(at, field, "{given}");
        assert!(!why.contains("hunter22"), "{why}");
    }
    let good = merge(Provider::Twilio, &none(), &credentials(json!({ "accountSid": sid, "authToken": "x" })), &Judge);
    assert_eq!(good.unwrap().changed, ["accountSid", "authToken"]);
    let good = merge(Provider::Smtp, &none(), &credentials(smtp(json!({}))), &Judge).unwrap();
    assert_eq!((good.credentials.text("host"), good.credentials.number("port")), (Some("mail.example.com"), Some(587)));
}
