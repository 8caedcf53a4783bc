//! The providers' published vectors and our own, everything that must not pass, and what every state means.

mod abused;
mod reading;

use super::*;

/// An event as Stripe's own tests have it, to the byte.
const STRIPE_EVENT: &str = "{\n  \"id\": \"evt_123\",\n  \"object\": \"event\",\n  \"account\": \"acct_123\",\n  \
    \"api_version\": \"2017-05-25\",\n  \"created\": 1533204620,\n  \"data\": {\n    \"object\": {\n      \
    \"id\": \"cus_123\",\n      \"object\": \"customer\",\n      \"created\": 123456789,\n      \
    \"email\": \"test@stripe.com\",\n      \"livemode\": false,\n      \"metadata\": {}\n    }\n  },\n  \
    \"livemode\": false,\n  \"pending_webhooks\": 1,\n  \"request\": {\n    \"id\": \"req_123\",\n    \
    \"idempotency_key\": \"idempotency-key-123\"\n  },\n  \"type\": \"customer.created\"\n}\n";
const STRIPE_V1: &str = "2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7";
const STRIPE_V0: &str = "63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
const STRIPE_TIME: i64 = 1_533_204_620;
const OWN_EVENT: &[u8] = br#"{"id":"evt_test_webhook","object":"event"}"#;
const OWN_V1: &str = "d95c6b7477fbd7e9f90b1b0ef5f9c7ac25abca5382460e0d988c2b2a5b71b990";

const MIDTRANS_KEY: &str = "SB-Mid-server-TESTKEY0000000000000000";
const FORM: &str = "application/x-www-form-urlencoded";
const TWILIO_URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const TWILIO_FORM: &str =
    "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";

/// Every copy of `bytes` in which one byte is another: each place with each bit flipped, and with a byte that parts
/// things.
fn changed(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let others =
        |byte: u8| (0..8).map(move |bit| byte ^ (1 << bit)).chain(*b"0aA=&,.\"% ").filter(move |other| *other != byte);
    (0..bytes.len()).flat_map(move |at| {
        others(bytes[at]).map(move |other| {
            let mut copy = bytes.to_vec();
            copy[at] = other;
            copy
        })
    })
}

/// The same of text, where what comes of it is text.
fn changed_text(text: &str) -> impl Iterator<Item = String> {
    changed(text.as_bytes()).filter_map(|bytes| String::from_utf8(bytes).ok())
}

fn request(headers: &[(&'static str, &[u8])], body: impl Into<Vec<u8>>) -> Callback {
    Callback {
        body: body.into().into(),
        headers: headers.iter().map(|(name, value)| (*name, value.to_vec())).collect(),
        target: "/api/webhooks/integrations/id".to_owned(),
        host: None,
        begun: std::time::Instant::now(),
    }
}

fn notification(order: &str, code: &str, amount: &str, signature: &str) -> Vec<u8> {
    let body = serde_json::json!({
        "order_id": order, "status_code": code, "gross_amount": amount, "signature_key": signature,
        "transaction_status": "settlement",
    });
    body.to_string().into_bytes()
}

const MIDTRANS: [(&str, &str, &str, &str, &str); 4] = [
    (
        "1111",
        "200",
        "100000.00",
        "askvnoibnosifnboseofinbofinfgbiufglnbfg",
        "edc076b21793ebe3e17926350f5b8ae67d902fe657b3d0aa31b932d5c127e2375d308a2bc94f3265ac2d80a1f181a79b997ac178a236fcff35af263fc4d4c231",
    ),
    (
        "LMS-INV-0001",
        "200",
        "150000.00",
        MIDTRANS_KEY,
        "107b1f1790ff16f203043242ba99193ba623d469254cef0e704f12f3a0f06f6c4cf0f3a6f98b7b35aeeafcf8e64a77347dee527bd5397dfe4a68a7dc1d2bcb78",
    ),
    (
        "LMS-INV-0001",
        "201",
        "150000.00",
        MIDTRANS_KEY,
        "57e241182b53294c8d8e2cbf8dbe788f4b12987396fe7eb3e9ecfb76caf7a3700b225a22b8af44049ddf50b6b983b24ccc5a23b359e3c618a8172014e0206d5c",
    ),
    (
        "LMS-INV-0001",
        "202",
        "150000.00",
        MIDTRANS_KEY,
        "a3b7c441d2be67af7d3d829638cf27efab8b288962c8c47672b15a0fea5f19177279260f109516be9c2c0a328caf74228b3107f3f04efd63f94b587e479a83c2",
    ),
];

#[test]
fn midtrans_signs_three_members_and_no_changed_byte_of_them_passes() {
    for (order, code, amount, key, signature) in MIDTRANS {
        let prove = |order: &str, code: &str, amount: &str, key: &str, signature: &str| {
            midtrans::prove(key, &notification(order, code, amount, signature)).is_ok()
        };
        assert!(prove(order, code, amount, key, signature), "{order} {code}");
        assert!(changed_text(order).all(|order| !prove(&order, code, amount, key, signature)));
        assert!(changed_text(code).all(|code| !prove(order, &code, amount, key, signature)));
        assert!(changed_text(amount).all(|amount| !prove(order, code, &amount, key, signature)));
        assert!(changed_text(key).all(|key| !prove(order, code, amount, &key, signature)));
        assert!(changed_text(signature).all(|signature| !prove(order, code, amount, key, &signature)));
        for amount in ["150000", "150000.0", "150000.000", ""] {
            assert!(!prove(order, code, amount, key, signature), "an amount is the text it is");
        }
    }
    let (.., signature) = MIDTRANS[1];
    let number = format!(
        r#"{{"order_id":"LMS-INV-0001","status_code":"200","gross_amount":150000.00,"signature_key":"{signature}"}}"#
    );
    for body in [number.as_bytes(), b"", b"[]", b"{}", b"\xff\xfe", b"{\"order_id\":\"1\""] {
        assert!(midtrans::prove(MIDTRANS_KEY, body).is_err());
    }
}

#[test]
fn xendit_has_one_token_and_no_changed_byte_of_it_passes() {
    let token = "test-callback-token-0001";
    let prove =
        |token: &str, given: &[u8]| xendit::prove(token, &request(&[("x-callback-token", given)], "{}")).is_ok();
    assert!(prove(token, token.as_bytes()));
    assert!(changed(token.as_bytes()).all(|given| !prove(token, &given)));
    assert!(changed_text(token).all(|secret| !prove(&secret, token.as_bytes())));
    for given in [&b""[..], b"test-callback-token-000", b"test-callback-token-00011", b" test-callback-token-0001"] {
        assert!(!prove(token, given));
    }
    assert!(xendit::prove(token, &request(&[], "{}")).is_err(), "none at all");
    let twice = [("x-callback-token", token.as_bytes()), ("x-callback-token", token.as_bytes())];
    assert!(xendit::prove(token, &request(&twice, "{}")).is_err(), "two of them");
}

fn stripe_passes(secret: &str, header: &str, body: &[u8], now: i64) -> bool {
    stripe::prove(secret, Some(header.as_bytes()), body, now).is_ok()
}

#[test]
fn stripe_signs_time_and_body_and_no_changed_byte_of_either_passes() {
    assert_eq!(STRIPE_EVENT.len(), 484);
    for (secret, at, body, v1) in [
        ("webhook_secret", STRIPE_TIME, STRIPE_EVENT.as_bytes(), STRIPE_V1),
        ("whsec_test_secret", 1_700_000_000, OWN_EVENT, OWN_V1),
        (
            "whsec_test_secret",
            1_700_000_000,
            br#"{"id":"evt_test","object":"event"}"#,
            "8042376f6ca064adbe037642a718227dfd59047137eb49497a54c49eb0cfb724",
        ),
    ] {
        let header = format!("t={at},v1={v1}");
        assert!(stripe_passes(secret, &header, body, at));
        assert!(changed(body).all(|body| !stripe_passes(secret, &header, &body, at)));
        assert!(changed_text(secret).all(|secret| !stripe_passes(&secret, &header, body, at)));
        for header in changed(header.as_bytes()) {
            assert!(stripe::prove(secret, Some(&header), body, at).is_err(), "{}", String::from_utf8_lossy(&header));
        }
        assert!(
            !stripe_passes(secret.trim_start_matches("whsec_"), &header, body, at) || !secret.starts_with("whsec_")
        );
    }
}

#[test]
fn any_v1_of_stripe_counts_and_other_schemes_do_not() {
    let (t, good) = (format!("t={STRIPE_TIME}"), format!("v1={STRIPE_V1}"));
    let passes = |header: &str| stripe_passes("webhook_secret", header, STRIPE_EVENT.as_bytes(), STRIPE_TIME);
    let zeros = "0".repeat(64);
    for header in [
        format!("{t},{good},v0={STRIPE_V0}"),
        format!("{t},v1={zeros},{good}"),
        format!("{t},{good},v1={zeros}"),
        format!("{t},{good},v1=potato"),
        format!("v9=x,{good},{t}"),
    ] {
        assert!(passes(&header), "{header}");
    }
    for header in [
        "not even a header".to_owned(),
        String::new(),
        t.clone(),
        good.clone(),
        format!("{t},v0={STRIPE_V1}"),
        format!("{t},v0={STRIPE_V0}"),
        format!("{t},v1="),
        format!("{t},v1={}", &STRIPE_V1[..8]),
        format!("{t},v1={}", STRIPE_V1.to_uppercase()),
        format!("{t},v1={zeros},v1=bad"),
        format!("{t},{t},{good}"),
        format!("t=Infinity,{good}"),
        format!("t=-{STRIPE_TIME},{good}"),
        format!("t={STRIPE_TIME}000,{good}"),
        format!("t=,{good}"),
        format!("{t}, {good}"),
    ] {
        assert!(!passes(&header), "{header}");
    }
    assert!(stripe::prove("webhook_secret", None, STRIPE_EVENT.as_bytes(), STRIPE_TIME).is_err());
    let crowded = format!("{t},{}{good}", "v1=x,".repeat(40));
    assert!(!passes(&crowded), "no more than so many are looked at");
}

#[test]
fn a_signature_of_stripe_is_good_for_five_minutes_to_either_side() {
    let header = format!("t={STRIPE_TIME},v1={STRIPE_V1}");
    for (off, good) in
        [(0, true), (300, true), (-300, true), (301, false), (-301, false), (i64::MAX - STRIPE_TIME, false)]
    {
        let passes = stripe_passes("webhook_secret", &header, STRIPE_EVENT.as_bytes(), STRIPE_TIME + off);
        assert_eq!(passes, good, "{off}");
    }
}

fn twilio_passes(token: &str, url: &str, signature: &[u8], body: &[u8]) -> bool {
    let headers = [("content-type", FORM.as_bytes()), ("x-twilio-signature", signature)];
    twilio::prove(token, url, &request(&headers, body)).is_ok()
}

#[test]
fn twilio_signs_the_address_and_the_form() {
    let own = "AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&From=whatsapp%3A%2B14155238886\
               &MessageSid=SM00000000000000000000000000000001&MessageStatus=delivered&To=whatsapp%3A%2B6281200000001";
    let failed = own.replace("delivered", "failed&ErrorCode=63016");
    let status = "https://lms.example.com/webhooks/twilio/status";
    let http = TWILIO_URL.replace("https", "http");
    let ported = http.replace(".com", ".com:1234");
    for (token, url, form, signature) in [
        ("12345", TWILIO_URL, TWILIO_FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("12345", &TWILIO_URL.replace(".com", ".com:1234"), TWILIO_FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("12345", TWILIO_URL, TWILIO_FORM, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("12345", &http, TWILIO_FORM, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("12345", &ported, TWILIO_FORM, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (
            "12345",
            TWILIO_URL,
            "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        ("test_auth_token", status, own, "d69TvqTWDstdp7e3FKVG2bqPzrE="),
        ("test_auth_token", status, &failed, "IDd0RvvvVKyLwvN0c6KLj3eeIRU="),
    ] {
        assert!(twilio_passes(token, url, signature.as_bytes(), form.as_bytes()), "{url} {form}");
        let reordered: Vec<&str> = form.split('&').rev().collect();
        assert!(twilio_passes(token, url, signature.as_bytes(), reordered.join("&").as_bytes()), "in any order");
        let more = format!("{form}&New=");
        assert!(!twilio_passes(token, url, signature.as_bytes(), more.as_bytes()), "every field counts");
    }
}

#[test]
fn no_changed_byte_of_what_twilio_signs_passes() {
    let (token, signature) = ("12345", b"RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    let fields = |body: &[u8]| {
        let mut fields = form::fields(body).ok()?;
        fields.sort();
        fields.dedup();
        Some(fields)
    };
    let form = TWILIO_FORM.as_bytes();
    for body in changed(form) {
        // Another spelling of the same field is the same field.
        let is_same = fields(&body) == fields(form);
        assert_eq!(twilio_passes(token, TWILIO_URL, signature, &body), is_same, "{}", String::from_utf8_lossy(&body));
    }
    assert!(changed_text(TWILIO_URL).all(|url| !twilio_passes(token, &url, signature, form)));
    assert!(changed_text(token).all(|token| !twilio_passes(&token, TWILIO_URL, signature, form)));
    assert!(changed(signature).all(|signature| !twilio_passes(token, TWILIO_URL, &signature, form)));
    for signature in [&b""[..], b"RSOYDt4T1cUTdK1PDd93/VVr8B8", b"RSOYDt4T1cUTdK1PDd93/VVr8B8=="] {
        assert!(!twilio_passes(token, TWILIO_URL, signature, form));
    }
    let twice =
        [("content-type", FORM.as_bytes()), ("x-twilio-signature", signature), ("x-twilio-signature", signature)];
    assert!(twilio::prove(token, TWILIO_URL, &request(&twice, form)).is_err());
}

#[test]
fn twilio_signs_a_body_that_is_no_form_by_its_digest_in_the_address() {
    let body = br#"{"property": "value", "boolean": true}"#;
    let url = format!("{TWILIO_URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620");
    let prove = |url: &str, signature: &[u8], body: &[u8]| {
        let headers = [("content-type", &b"application/json"[..]), ("x-twilio-signature", signature)];
        twilio::prove("12345", url, &request(&headers, body)).is_ok()
    };
    let signature = b"a9nBmqA0ju/hNViExpshrM61xv4=";
    assert!(prove(&url, signature, body));
    assert!(changed(body).all(|body| !prove(&url, signature, &body)));
    assert!(changed_text(&url).all(|url| !prove(&url, signature, body)));
    assert!(changed(signature).all(|signature| !prove(&url, &signature, body)));
    assert!(!prove(TWILIO_URL, b"RSOYDt4T1cUTdK1PDd93/VVr8B8=", body), "a body nobody signed");
}

#[test]
fn those_who_sign_nothing_are_known_by_the_end_of_their_path() {
    let token = "b2VeQ0aTnK";
    let digest = hex::encode(Sha256::digest(token));
    assert!(prove_path(Some(&digest), Some(token)).is_ok());
    assert!(changed_text(token).all(|token| prove_path(Some(&digest), Some(&token)).is_err()));
    assert!(changed_text(&digest).all(|digest| prove_path(Some(&digest), Some(token)).is_err()));
    for (digest, token) in [(None, Some(token)), (Some(digest.as_str()), None), (None, None), (Some(""), Some(""))] {
        assert!(prove_path(digest, token).is_err());
    }
}

#[test]
fn an_address_is_the_configured_one_and_a_hosts_only_for_trying() {
    let callback = Callback { host: Some("evil.example".to_owned()), target: "/a?b=c".to_owned(), ..request(&[], "") };
    let of = |url: PublicUrl| url.of(&callback);
    assert_eq!(
        of(PublicUrl::Configured("https://hub.example/x".to_owned())).as_deref(),
        Some("https://hub.example/x/a?b=c")
    );
    assert_eq!(of(PublicUrl::OfRequest("http")).as_deref(), Some("http://evil.example/a?b=c"));
    assert_eq!(of(PublicUrl::Unknown), None);
    assert_eq!(PublicUrl::OfRequest("http").of(&request(&[], "")), None);
    assert_eq!(format!("{callback:?}"), "Callback(…)", "it holds secrets");
}
