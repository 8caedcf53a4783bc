//! What somebody may have written who has caught a callback, or makes up their own: states, members and times.

use super::reading::SETTLED;
use super::*;
use Outcome::*;

#[test]
fn no_state_of_midtrans_can_be_made_of_another_with_the_code_that_is_signed() {
    let contradicts = |status: &str, fraud: Option<&str>, code: &str| {
        midtrans::outcome(status, fraud, code) == Err(midtrans::Misfit::Contradiction)
    };
    for failure in ["deny", "expire", "failure"] {
        assert!(contradicts(failure, None, "200") && contradicts(failure, None, "201"), "{failure}");
    }
    assert!(contradicts("cancel", None, "201"));
    for fraud in ["deny", "challenge"] {
        assert!(contradicts("settlement", Some(fraud), "200"), "{fraud}");
    }
    for code in ["201", "202", "407", "500", "000"] {
        assert!(contradicts("settlement", None, code) && contradicts("capture", Some("accept"), code), "{code}");
        assert!(contradicts("refund", None, code) && contradicts("chargeback", None, code), "{code}");
    }
    for code in ["200", "202", "407"] {
        assert!(contradicts("pending", None, code), "{code}");
    }
    assert!(contradicts("authorize", None, "202"));
}

#[test]
fn a_cancel_with_the_code_of_a_success_is_outdone_by_that_success() {
    let read = |body: &str| midtrans::read(body.as_bytes()).unwrap();
    let outdone_by = |body: &str| read(body).claim.unwrap().outdone_by;
    let paid = read(SETTLED);
    let cancelled = SETTLED.replace("\"settlement\"", "\"cancel\"");
    assert_eq!(outdone_by(&cancelled), Some(paid.key.clone()));
    assert_ne!(read(&cancelled).key, paid.key);
    // What has a code of its own needs no more than that.
    assert_eq!(outdone_by(&cancelled.replace("\"200\"", "\"202\"")), None);
    assert_eq!((outdone_by(SETTLED), outdone_by(&SETTLED.replace("\"settlement\"", "\"refund\""))), (None, None));
}

#[test]
fn what_midtrans_would_not_write_is_not_even_compared() {
    let good = |order: &str, code: &str, amount: &str| {
        let signature = hex::encode(sha2::Sha512::digest(format!("{order}{code}{amount}{MIDTRANS_KEY}")));
        midtrans::prove(MIDTRANS_KEY, &notification(order, code, amount, &signature)).is_ok()
    };
    let longest = "x".repeat(50);
    for (order, amount) in
        [("LMS-1", "150000.00"), ("1", "0.00"), ("Pesanan 7", "1.50"), (&longest, "999999999999999.99")]
    {
        assert!(good(order, "200", amount), "{order} {amount}");
    }
    for order in [String::new(), "x".repeat(51), "a\nb".to_owned(), "a\0".to_owned()] {
        assert!(!good(&order, "200", "1.00"), "{order:?}");
    }
    for code in ["", "20", "2000", "2 0", "-20", "２００"] {
        assert!(!good("LMS-1", code, "1.00"), "{code}");
    }
    for amount in
        ["", "1", "1.0", "1.000", ".00", "01.00", "00.00", "-1.00", "+1.00", "1,00", "1.0a", "1000000000000000.00"]
    {
        assert!(!good("LMS-1", "200", amount), "{amount}");
    }
    let long = notification("LMS-1", "200", "1.00", &"a".repeat(1_000_000));
    assert!(midtrans::prove(MIDTRANS_KEY, &long).is_err());
}

#[test]
fn a_time_nothing_happened_at_is_the_time_it_came() {
    let now: Instant = "2026-03-15T12:00:00Z".parse().unwrap();
    let of = |at: Option<Instant>| {
        let facts = Facts::default();
        let (key, outcome, doubt, claim) = (String::new(), Other, None, None);
        Reading { key, outcome, doubt, facts, at, claim }.occurred_at(now)
    };
    for text in ["2026-03-15T12:00:00Z", "2026-01-05T00:00:00Z", "2025-03-16T00:00:00Z"] {
        let at = text.parse().unwrap();
        assert_eq!(of(Some(at)), at, "{text}");
    }
    for at in [None, Some(Instant::MIN_UTC), Some(Instant::MAX_UTC), Some(Instant::UNIX_EPOCH)] {
        assert_eq!(of(at), now, "{at:?}");
    }
    for text in ["2026-03-15T12:00:00.001Z", "2025-03-01T00:00:00Z"] {
        assert_eq!(of(Some(text.parse().unwrap())), now, "{text}");
    }
}

#[test]
fn no_time_a_provider_may_write_is_too_large_to_be_read() {
    for number in ["-70000000000", "-300000000000", "9223372036854775807", "-9223372036854775808", "1e300", "\"1\""] {
        let fonnte = fonnte::read(format!(r#"{{"id":"1","status":"sent","timestamp":{number}}}"#).as_bytes()).unwrap();
        assert!(fonnte.facts.get("providerTime").is_some_and(|said| !said.is_empty()), "{number}");
        let stripe = format!(r#"{{"id":"e","type":"x","created":{number},"data":{{"object":{{}}}}}}"#);
        stripe::read(stripe.as_bytes(), Environment::Sandbox).unwrap();
    }
    for text in [
        "-262143-01-01T00:00:00Z",
        "+262142-12-31T23:59:59-23:59",
        "+999999999-12-31T23:59:59Z",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60Z",
    ] {
        let members = |name: &str| format!(r#"{{"id":"1","status":"PAID","{name}":"{text}"}}"#);
        wablas::read(members("timestamp").replace("PAID", "sent").as_bytes()).unwrap();
        xendit::read(&request(&[], members("updated"))).unwrap();
        let _ = mail::read(format!(r#"{{"event":"sent","message_id":"m","at":"{text}"}}"#).as_bytes());
    }
    for text in
        ["+262142-12-31 23:59:59", "-262143-01-01 00:00:00", "0000-01-01 00:00:00", "99999999999-01-01 00:00:00"]
    {
        midtrans::read(SETTLED.replace("2026-01-05 09:02:10", text).as_bytes()).unwrap();
    }
}
