//! Published vectors, and everything that must not pass.

mod vectors;

use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &[u8] = br#"{"digiup_user_id":"u","usage_data":{"signature":"inner"}}"#;
const NOW: i64 = 1_700_000_000;

/// A key whose secret need not be one the configuration takes.
fn raw(secret: &str) -> Key {
    Key { text: keyed(secret.as_bytes()), standard: None }
}

fn header<'a>(signature: &'a str, timestamp: Option<&'a str>) -> Sent<'a> {
    let timestamp = timestamp.iter().map(|timestamp| timestamp.as_bytes()).collect();
    Sent { signature: vec![signature.as_bytes()], timestamp, ..Sent::default() }
}

fn listed<'a>(id: &'a str, timestamp: &'a str, signatures: &'a str) -> Sent<'a> {
    Sent {
        standard_id: vec![id.as_bytes()],
        standard_timestamp: vec![timestamp.as_bytes()],
        standard_signature: vec![signatures.as_bytes()],
        ..Sent::default()
    }
}

fn passes(key: &Key, sent: &Sent<'_>, body: &[u8], now: i64) -> bool {
    verify(std::slice::from_ref(key), sent, body, now, 300).is_ok()
}

/// Every copy of `bytes` in which one bit is another.
fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    })
}

#[test]
fn the_published_vectors_of_standard_webhooks_pass() {
    let vectors: [(&str, &str, i64, &[u8], &str); 2] = [
        (
            STANDARD_SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            br#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ];
    for (secret, id, timestamp, body, signature) in vectors {
        let key = Key::parse(secret).unwrap();
        assert_eq!(key.sign_standard(id, timestamp, body).as_deref(), Some(signature));
        let stamp = timestamp.to_string();
        let proof = verify(std::slice::from_ref(&key), &listed(id, &stamp, signature), body, timestamp, 300).unwrap();
        assert_eq!((proof.id.as_deref(), proof.signed_at), (Some(id), Some(timestamp)));
        assert!(passes(&key, &listed(id, &stamp, signature.trim_end_matches('=')), body, timestamp), "unpadded");
        // An asymmetric signature, an unknown version and an old secret's may stand beside it.
        let many = format!("v1a,hnO3f9T8Ytu9HwrXslvumg== v2,AAAA v1,AAAA {signature}");
        assert!(passes(&key, &listed(id, &stamp, &many), body, timestamp), "in a list");
    }
}

#[test]
fn the_published_vectors_of_hex_signatures_pass() {
    // GitHub's, Convoy's, and Stripe's scheme of `timestamp.body`.
    let github = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let body = b"Hello, World!";
    assert_eq!(raw(SECRET).sign(None, body), github);
    for spelled in [github.to_owned(), format!("sha256={github}"), github.to_uppercase()] {
        assert!(passes(&raw(SECRET), &header(&spelled, None), body, NOW), "{spelled}");
    }
    let convoy = br#"{"event":"charge.success","amount":1000,"currency":"NGN"}"#;
    let signature = "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4";
    assert!(passes(&raw("convoy-webhook-secret"), &header(signature, None), convoy, NOW));
    let stripe = br#"{"id":"evt_test","object":"event"}"#;
    let signature = "8042376f6ca064adbe037642a718227dfd59047137eb49497a54c49eb0cfb724";
    assert_eq!(raw("whsec_test_secret").sign(Some(NOW), stripe), signature);
    assert!(passes(&raw("whsec_test_secret"), &header(signature, Some("1700000000")), stripe, NOW));
    // Convoy's other scheme joins with a comma: it signs something else.
    let joined = "77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c";
    assert!(!passes(&raw("convoy-webhook-secret"), &header(joined, Some("1700000000")), convoy, NOW));
}

#[test]
fn no_changed_bit_of_body_signature_timestamp_or_id_passes() {
    let key = Key::parse(STANDARD_SECRET).unwrap();
    let hex = key.sign(Some(NOW), BODY);
    for body in flipped(BODY) {
        assert!(!passes(&key, &header(&hex, Some("1700000000")), &body, NOW), "{body:?}");
    }
    for signature in flipped(hex.as_bytes()) {
        // The case of a digit is one bit, and means nothing.
        if signature.eq_ignore_ascii_case(hex.as_bytes()) {
            continue;
        }
        let sent = Sent { signature: vec![&signature], timestamp: vec![b"1700000000"], ..Sent::default() };
        assert!(!passes(&key, &sent, BODY, NOW));
    }
    for timestamp in flipped(b"1700000000") {
        let sent = Sent { signature: vec![hex.as_bytes()], timestamp: vec![&timestamp], ..Sent::default() };
        assert!(!passes(&key, &sent, BODY, NOW));
    }
    let (id, listed) = ("msg_1", key.sign_standard("msg_1", NOW, BODY).unwrap());
    let (plain, value): (&[u8], &[u8]) = (id.as_bytes(), listed.as_bytes());
    fn standard<'a>(id: &'a [u8], timestamp: &'a [u8], signature: &'a [u8]) -> Sent<'a> {
        Sent {
            standard_id: vec![id],
            standard_timestamp: vec![timestamp],
            standard_signature: vec![signature],
            ..Sent::default()
        }
    }
    assert!(passes(&key, &standard(plain, b"1700000000", value), BODY, NOW));
    for other in flipped(plain) {
        assert!(!passes(&key, &standard(&other, b"1700000000", value), BODY, NOW));
    }
    for other in flipped(b"1700000000") {
        assert!(!passes(&key, &standard(plain, &other, value), BODY, NOW));
    }
    for other in flipped(&value[3..]) {
        let other = [b"v1,", &other[..]].concat();
        // The last digit of base64 has bits that are part of no byte; strict decoding refuses them.
        assert!(!passes(&key, &standard(plain, b"1700000000", &other), BODY, NOW));
    }
}

#[test]
fn what_is_no_signature_is_refused_and_nothing_panics() {
    let key = raw(SECRET);
    let good = key.sign(None, BODY);
    let bad = [
        "".to_owned(),
        "sha256=".to_owned(),
        "not hex".to_owned(),
        good[..8].to_owned(),
        good[..63].to_owned(),
        format!("{good}0"),
        format!("{good}{good}"),
        format!("{good},{good}"),
        format!("{good} {good}"),
        format!(" {good}"),
        format!("sha512={good}"),
        format!("v1={good}"),
        format!("sha256=sha256={good}"),
        "0".repeat(64),
        "é".repeat(32),
    ];
    for signature in &bad {
        assert!(!passes(&key, &header(signature, None), BODY, NOW), "{signature}");
    }
    assert!(passes(&key, &header(&good, None), BODY, NOW));
    assert!(!passes(&key, &Sent::default(), BODY, NOW), "none at all");
    assert!(!passes(&raw("another"), &header(&good, None), BODY, NOW));
    assert!(verify(&[], &header(&good, None), BODY, NOW, 300).is_err(), "no secret is no proof");
}

#[test]
fn a_header_that_is_sent_twice_or_without_its_others_is_refused() {
    let key = Key::parse(STANDARD_SECRET).unwrap();
    let (hex, stamped) = (key.sign(None, BODY), key.sign(Some(NOW), BODY));
    let twice = Sent { signature: vec![hex.as_bytes(), hex.as_bytes()], ..Sent::default() };
    assert!(!passes(&key, &twice, BODY, NOW));
    let times: Vec<&[u8]> = vec![b"1700000000", b"1700000000"];
    assert!(!passes(
        &key,
        &Sent { signature: vec![stamped.as_bytes()], timestamp: times, ..Sent::default() },
        BODY,
        NOW
    ));
    let alone = Sent { timestamp: vec![b"1700000000"], ..Sent::default() };
    assert!(!passes(&key, &alone, BODY, NOW), "a timestamp is a part of what a header signs");
    let list = key.sign_standard("msg_1", NOW, BODY).unwrap();
    let whole = || listed("msg_1", "1700000000", &list);
    assert!(passes(&key, &whole(), BODY, NOW));
    for cut in 0..3 {
        let (mut missing, mut doubled) = (whole(), whole());
        for (sent, values) in [(&mut missing, vec![]), (&mut doubled, vec![list.as_bytes(), list.as_bytes()])] {
            match cut {
                0 => sent.standard_id = values,
                1 => sent.standard_timestamp = values,
                _ => sent.standard_signature = values,
            }
        }
        assert!(!passes(&key, &missing, BODY, NOW), "{cut}");
        assert!(!passes(&key, &doubled, BODY, NOW), "{cut}");
    }
    // What is given beside a good signature has to be good too.
    let both = Sent { signature: vec![hex.as_bytes()], ..whole() };
    assert!(passes(&key, &both, BODY, NOW));
    assert!(!passes(&key, &Sent { signature: vec![stamped.as_bytes()], ..whole() }, BODY, NOW));
}

#[test]
fn a_timestamp_may_differ_by_the_tolerance_and_no_second_more() {
    let key = Key::parse(STANDARD_SECRET).unwrap();
    for (difference, good) in [(0, true), (299, true), (300, true), (301, false)] {
        for timestamp in [NOW - difference, NOW + difference] {
            let stamp = timestamp.to_string();
            let hex = key.sign(Some(timestamp), BODY);
            assert_eq!(passes(&key, &header(&hex, Some(&stamp)), BODY, NOW), good, "{difference}");
            let list = key.sign_standard("msg_1", timestamp, BODY).unwrap();
            assert_eq!(passes(&key, &listed("msg_1", &stamp, &list), BODY, NOW), good, "{difference}");
        }
    }
    let hex = key.sign(Some(NOW - 301), BODY);
    let refused = verify(std::slice::from_ref(&key), &header(&hex, Some("1699999699")), BODY, NOW, 300).unwrap_err();
    assert_eq!(refused, Refused::Stale(301), "a good signature may be told why");
    for spelled in
        ["", "-1", "+1700000000", "1700000000.0", "1e9", "Infinity", "NaN", " 1700000000", "99999999999999999999"]
    {
        let mut mac = key.text.clone();
        mac.update(format!("{spelled}.").as_bytes());
        mac.update(BODY);
        let hex = hex::encode(mac.finalize().into_bytes());
        assert!(!passes(&key, &header(&hex, Some(spelled)), BODY, NOW), "{spelled}");
    }
    let millis = key.sign(Some(NOW * 1000), BODY);
    assert!(!passes(&key, &header(&millis, Some("1700000000000")), BODY, NOW), "milliseconds are no seconds");
}

#[test]
fn an_id_that_could_be_read_in_two_ways_is_refused() {
    let key = Key::parse(STANDARD_SECRET).unwrap();
    for id in ["", "msg.1", "msg 1", "msg\u{e9}", &"x".repeat(201)] {
        let list = key.sign_standard(id, NOW, BODY).unwrap();
        assert!(!passes(&key, &listed(id, "1700000000", &list), BODY, NOW), "{id}");
    }
}

#[test]
fn two_secrets_are_good_at_once_and_it_is_told_which_it_was() {
    let (new, old) = (raw("new"), raw("old"));
    for (key, place) in [(&new, 0), (&old, 1)] {
        let hex = key.sign(None, BODY);
        let proof = verify(&[new.clone(), old.clone()], &header(&hex, None), BODY, NOW, 300).unwrap();
        assert_eq!(proof.secret, place);
        assert_eq!(passes(&new, &header(&hex, None), BODY, NOW), place == 0, "the old one alone is out");
    }
}

#[test]
fn a_secret_of_standard_webhooks_is_decoded_for_its_own_form_and_text_for_the_others() {
    let key = Key::parse(STANDARD_SECRET).unwrap();
    assert_eq!(key.sign(None, BODY), raw(STANDARD_SECRET).sign(None, BODY));
    assert!(raw(STANDARD_SECRET).sign_standard("msg_1", NOW, BODY).is_none(), "nothing is guessed from plain text");
    for bad in ["", "whsec_", "whsec_not base64", "whsec_AAAA", &format!("whsec_{}", "A".repeat(100))] {
        assert!(Key::parse(bad).is_err(), "{bad}");
    }
    assert!(Key::parse(SECRET).is_ok());
    assert_eq!(format!("{key:?}"), "[key]");
}

/// What is left of a body without its signature, and the signature.
fn parted(body: &str) -> Result<(String, Option<String>), &'static str> {
    let split = body::split(body.as_bytes())?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((text(&split.rest), split.signature.as_deref().map(text)))
}

#[test]
fn the_member_goes_with_one_comma_and_nothing_else_changes() {
    let s = Some("S".to_owned());
    for (body, rest) in [
        (r#"{"a":1,"signature":"S"}"#, r#"{"a":1}"#),
        (r#"{"signature":"S","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"signature":"S","b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"signature":"S"}"#, "{}"),
        (r#" { "signature" : "S" } "#, " {  } "),
        ("{\n  \"a\": 1,\n  \"signature\": \"S\"\n}", "{\n  \"a\": 1\n}"),
        ("{\n  \"signature\": \"S\",\n  \"a\": 1\n}", "{\n  \"a\": 1\n}"),
        ("{\r\n\t\"a\": 1 ,\r\n\t\"signature\": \"S\" ,\"b\":[1, 2]}", "{\r\n\t\"a\": 1  ,\"b\":[1, 2]}"),
        (r#"{"sign\u0061ture":"S","a":1.50}"#, r#"{"a":1.50}"#),
        (r#"{"a":"\",\"signature\":\"X","signature":"S"}"#, r#"{"a":"\",\"signature\":\"X"}"#),
        (
            r#"{"a":{"signature":"X","b":[{"signature":"Y"}]},"signature":"S"}"#,
            r#"{"a":{"signature":"X","b":[{"signature":"Y"}]}}"#,
        ),
        (r#"{"a":"\\","signature":"S"}"#, r#"{"a":"\\"}"#),
        (r#"{"a":"é€😀","signature":"S"}"#, r#"{"a":"é€😀"}"#),
    ] {
        assert_eq!(parted(body), Ok((rest.to_owned(), s.clone())), "{body}");
    }
    for body in [
        r#"{"a":1}"#,
        "{}",
        r#"{"Signature":"S"}"#,
        r#"{"a":{"signature":"X"}}"#,
        r#"{"signature":null}"#,
        r#"{"signatures":"S"}"#,
    ] {
        assert_eq!(parted(body), Ok((body.to_owned(), None)), "{body}");
    }
}

#[test]
fn a_body_that_could_be_parted_in_two_ways_is_refused() {
    for body in [
        r#"{"signature":"S","signature":"S"}"#,
        r#"{"signature":"S","a":1,"sign\u0061ture":"S"}"#,
        r#"{"signature":5}"#,
        r#"{"signature":["S"]}"#,
        r#"["signature","S"]"#,
        r#""signature""#,
        "",
        "{",
        r#"{"signature":"S""#,
        r#"{"signature":"S"}x"#,
        r#"{"signature":"S"}{}"#,
        r#"{"a":1,,"signature":"S"}"#,
        r#"{"a":,"signature":"S"}"#,
        r#"{"a"1,"signature":"S"}"#,
        "{\"signature\":\"S\\",
    ] {
        assert!(parted(body).is_err(), "{body}");
    }
    // Deeper than any stack would go.
    let deep = format!("{{\"a\":{}{},\"signature\":\"S\"}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(parted(&deep).unwrap().1.as_deref(), Some("S"));
}

#[test]
fn a_body_signs_itself_and_every_bit_of_it_is_signed() {
    let key = raw(SECRET);
    for body in [
        r#"{}"#,
        r#"{"a":1}"#,
        "{\n  \"a\": 1\n}\n",
        "{\n  \"a\": 1,\n  \"signature\": \"webhook-signature\"\n}",
        r#"{"signature":"","a":{"signature":"inner"}}"#,
    ] {
        let signed = key.sign_body(body.as_bytes()).unwrap();
        assert!(passes(&key, &Sent::default(), &signed, NOW), "{body}");
        assert!(serde_json::from_slice::<serde_json::Value>(&signed).is_ok());
    }
    let signed = key.sign_body(br#"{"a":1,"b":"x"}"#).unwrap();
    for changed in flipped(&signed) {
        if changed.eq_ignore_ascii_case(&signed) && changed.starts_with(br#"{"a":1,"b":"x","signature""#) {
            continue; // a digit in another case is the same digit
        }
        assert!(!passes(&key, &Sent::default(), &changed, NOW), "{}", String::from_utf8_lossy(&changed));
    }
    let reordered = String::from_utf8(signed.clone()).unwrap().replace(r#""a":1,"b":"x""#, r#""b":"x","a":1"#);
    assert!(!passes(&key, &Sent::default(), reordered.as_bytes(), NOW), "an order is a part of the bytes");
}

#[test]
fn header_and_body_must_both_hold_when_both_are_given() {
    let key = raw(SECRET);
    let signed = key.sign_body(br#"{"a":1}"#).unwrap();
    let placeholder = br#"{"a":1,"signature":"webhook-signature"}"#;
    for (body, signature, good) in [
        (&signed[..], key.sign(None, &signed), true),
        (&signed[..], key.sign(None, br#"{"a":1}"#), false),
        (&signed[..], raw("other").sign(None, &signed), false),
        (&placeholder[..], key.sign(None, placeholder), false),
    ] {
        assert_eq!(passes(&key, &header(&signature, None), body, NOW), good, "{signature}");
    }
}

#[test]
fn deliveries_of_one_event_are_alike_whatever_their_signature() {
    let (new, old) = (raw("new"), raw("old"));
    let keys = [new.clone(), old.clone()];
    let content = |sent: &Sent<'_>, body: &[u8]| verify(&keys, sent, body, NOW, 300).unwrap().content;
    let first = content(&Sent::default(), &new.sign_body(BODY).unwrap());
    assert_eq!(content(&Sent::default(), &old.sign_body(BODY).unwrap()), first);
    assert_eq!(content(&header(&new.sign(None, BODY), None), BODY), first);
    assert_eq!(content(&header(&new.sign(Some(NOW + 9), BODY), Some("1700000009")), BODY), first);
    assert_ne!(content(&header(&new.sign(None, b"{}"), None), b"{}"), first);
}
