//! What callbacks come to: every row of the providers' tables of states, what tells one from another, and what is kept.

use serde_json::json;

use super::*;
use Outcome::*;

fn members(json: Json) -> Map<String, Json> {
    match json {
        Value::Object(members) => members,
        other => panic!("{other}"),
    }
}

#[test]
fn every_state_of_midtrans_means_what_its_table_says() {
    for (status, fraud, code, expected) in [
        ("settlement", Some("accept"), "200", PaymentSuccess),
        ("settlement", None, "200", PaymentSuccess),
        ("capture", Some("accept"), "200", PaymentSuccess),
        ("capture", None, "200", PaymentSuccess),
        ("SETTLEMENT", Some("ACCEPT"), "200", PaymentSuccess),
        ("capture", Some("challenge"), "201", PaymentPending),
        ("capture", Some("deny"), "202", PaymentFailed),
        ("settlement", Some("deny"), "202", PaymentFailed),
        ("pending", None, "201", PaymentPending),
        ("PENDING", Some("accept"), "201", PaymentPending),
        ("authorize", Some("accept"), "201", PaymentPending),
        ("authorize", Some("accept"), "200", Other),
        ("deny", Some("deny"), "202", PaymentFailed),
        ("cancel", None, "202", PaymentFailed),
        ("cancel", Some("accept"), "200", PaymentFailed),
        ("CANCEL", None, "200", PaymentFailed),
        ("expire", None, "202", PaymentFailed),
        ("expire", None, "407", PaymentFailed),
        ("failure", None, "202", PaymentFailed),
        ("refund", None, "200", Refunded),
        ("partial_refund", None, "200", Refunded),
        ("chargeback", None, "200", Refunded),
        ("partial_chargeback", None, "200", Refunded),
    ] {
        assert_eq!(midtrans::outcome(status, fraud, code), Ok(expected), "{status} {fraud:?} {code}");
    }
    for (status, fraud) in [("settled", None), ("capture", Some("maybe"))] {
        assert_eq!(midtrans::outcome(status, fraud, "200"), Err(midtrans::Misfit::Unknown), "{status} {fraud:?}");
    }
}

#[test]
fn every_state_of_xendit_means_what_its_tables_say() {
    for (status, expected) in [
        ("PENDING", Some(PaymentPending)),
        ("PAID", Some(PaymentSuccess)),
        ("SETTLED", Some(PaymentSuccess)),
        ("EXPIRED", Some(PaymentFailed)),
        ("COMPLETED", None),
    ] {
        assert_eq!(xendit::of_invoice(status), expected, "{status}");
    }
    for (event, status, expected) in [
        ("payment.capture", "SUCCEEDED", Some(PaymentSuccess)),
        ("payment.authorization", "AUTHORIZED", Some(PaymentPending)),
        ("payment.failure", "FAILED", Some(PaymentFailed)),
        ("payment.capture", "PENDING", Some(PaymentPending)),
        ("payment.capture", "CANCELED", Some(PaymentFailed)),
        ("payment.capture", "EXPIRED", Some(PaymentFailed)),
        ("payment.capture", "NEW", None),
        ("refund.succeeded", "SUCCEEDED", Some(Refunded)),
        ("refund.failed", "FAILED", Some(RefundFailed)),
        ("recurring.cycle.succeeded", "SUCCEEDED", Some(PaymentSuccess)),
        ("recurring.cycle.failed", "FAILED", Some(PaymentFailed)),
        ("recurring.cycle.created", "SCHEDULED", Some(PaymentPending)),
        ("recurring.cycle.retrying", "RETRYING", Some(PaymentPending)),
        ("recurring.cycle.force_attempt_failed", "RETRYING", Some(PaymentPending)),
        ("recurring.plan.activated", "ACTIVE", Some(Other)),
        ("recurring.plan.inactivated", "INACTIVE", Some(Other)),
        ("something.new", "", Some(Other)),
    ] {
        assert_eq!(xendit::of_event(event, Some(status)), expected, "{event} {status}");
    }
}

#[test]
fn every_event_of_stripe_means_what_its_table_says() {
    for (kind, object, expected) in [
        ("checkout.session.completed", json!({"payment_status": "paid"}), PaymentSuccess),
        ("checkout.session.completed", json!({"payment_status": "no_payment_required"}), PaymentSuccess),
        ("checkout.session.completed", json!({"payment_status": "unpaid"}), PaymentPending),
        ("checkout.session.async_payment_succeeded", json!({}), PaymentSuccess),
        ("checkout.session.async_payment_failed", json!({}), PaymentFailed),
        ("checkout.session.expired", json!({}), PaymentFailed),
        ("payment_intent.succeeded", json!({}), PaymentSuccess),
        ("payment_intent.processing", json!({}), PaymentPending),
        ("payment_intent.requires_action", json!({}), PaymentPending),
        ("payment_intent.created", json!({}), PaymentPending),
        ("payment_intent.amount_capturable_updated", json!({}), PaymentPending),
        ("payment_intent.payment_failed", json!({}), PaymentFailed),
        ("payment_intent.canceled", json!({}), PaymentFailed),
        ("invoice.paid", json!({}), PaymentSuccess),
        ("invoice.payment_succeeded", json!({}), PaymentSuccess),
        ("invoice.payment_failed", json!({}), PaymentPending),
        ("invoice.payment_action_required", json!({}), PaymentPending),
        ("invoice.voided", json!({}), PaymentFailed),
        ("invoice.marked_uncollectible", json!({}), PaymentFailed),
        ("charge.refunded", json!({"refunded": true}), Refunded),
        ("charge.refunded", json!({"refunded": false, "amount_refunded": 5}), Refunded),
        ("refund.created", json!({"status": "pending"}), Refunded),
        ("refund.updated", json!({"status": "succeeded"}), Refunded),
        ("refund.updated", json!({"status": "failed"}), RefundFailed),
        ("refund.failed", json!({"status": "failed"}), RefundFailed),
        ("charge.dispute.created", json!({"status": "needs_response"}), Other),
        ("charge.dispute.closed", json!({"status": "won"}), Other),
        ("charge.dispute.closed", json!({"status": "lost"}), Refunded),
        ("customer.subscription.created", json!({}), Other),
        ("customer.subscription.updated", json!({}), Other),
        ("customer.subscription.paused", json!({}), Other),
        ("customer.subscription.resumed", json!({}), Other),
        ("customer.subscription.deleted", json!({}), Other),
        ("customer.subscription.trial_will_end", json!({}), Other),
        ("customer.created", json!({}), Other),
    ] {
        assert_eq!(stripe::outcome(kind, &members(object)), expected, "{kind}");
    }
}

#[test]
fn every_state_of_a_message_means_what_its_table_says() {
    for (status, expected) in [
        ("accepted", Some(MessageQueued)),
        ("scheduled", Some(MessageQueued)),
        ("queued", Some(MessageQueued)),
        ("sending", Some(MessageQueued)),
        ("sent", Some(MessageSent)),
        ("partially_delivered", Some(MessageSent)),
        ("delivered", Some(MessageDelivered)),
        ("read", Some(MessageRead)),
        ("undelivered", Some(MessageFailed)),
        ("failed", Some(MessageFailed)),
        ("canceled", Some(MessageFailed)),
        ("receiving", Some(Other)),
        ("received", Some(Other)),
        ("beamed", None),
    ] {
        assert_eq!(twilio::outcome(status), expected, "twilio {status}");
    }
    for (status, expected) in [
        ("pending", Some(MessageQueued)),
        ("sent", Some(MessageSent)),
        ("delivered", Some(MessageDelivered)),
        ("read", Some(MessageRead)),
        ("cancel", Some(MessageFailed)),
        ("beamed", None),
    ] {
        assert_eq!(wablas::outcome(status), expected, "wablas {status}");
    }
    for (status, state, expected) in [
        (Some("sent"), None, Some(MessageSent)),
        (Some("pending"), None, Some(MessageQueued)),
        (Some("waiting"), None, Some(MessageQueued)),
        (Some("processing"), None, Some(MessageQueued)),
        (Some("invalid"), None, Some(MessageFailed)),
        (Some("expired"), None, Some(MessageFailed)),
        (Some("url unreachable"), None, Some(MessageFailed)),
        (Some("sent"), Some("delivered"), Some(MessageDelivered)),
        (Some("sent"), Some("read"), Some(MessageRead)),
        (None, Some("sent"), Some(MessageSent)),
        (Some("sent"), Some("novel"), Some(MessageSent)),
        (Some("novel"), None, None),
        (None, None, None),
    ] {
        assert_eq!(fonnte::outcome(status, state), expected, "fonnte {status:?} {state:?}");
    }
    for (event, expected) in [
        ("sent", Some(EmailSent)),
        ("delivered", Some(EmailDelivered)),
        ("bounced", Some(EmailBounced)),
        ("opened", None),
    ] {
        assert_eq!(mail::outcome(event), expected, "mail {event}");
    }
}

#[test]
fn every_event_is_one_of_its_providers_spec() {
    for outcome in [
        PaymentSuccess,
        PaymentPending,
        PaymentFailed,
        Refunded,
        RefundFailed,
        MessageQueued,
        MessageSent,
        MessageDelivered,
        MessageRead,
        MessageFailed,
        EmailSent,
        EmailDelivered,
        EmailBounced,
        Other,
    ] {
        let known = Provider::ALL.iter().flat_map(|provider| provider.spec().events);
        assert!(outcome.event().is_none_or(|event| known.into_iter().any(|known| *known == event)), "{outcome:?}");
        assert_eq!(outcome.status().is_some(), outcome.log_status().is_some(), "{outcome:?}");
    }
}

pub(super) const SETTLED: &str = r#"{"status_code":"200","status_message":"midtrans payment notification","transaction_id":"aaaaaaaa-0000-4000-8000-000000000001","order_id":"LMS-INV-0001","merchant_id":"G000000001","gross_amount":"150000.00","currency":"IDR","payment_type":"bank_transfer","transaction_time":"2026-01-05 09:00:00","settlement_time":"2026-01-05 09:02:10","transaction_status":"settlement","fraud_status":"accept","signature_key":"107b1f17","va_numbers":[{"va_number":"880800000001","bank":"bca"}]}"#;

#[test]
fn a_notification_of_midtrans_keeps_what_is_listed_and_no_more() {
    let read = midtrans::read(SETTLED.as_bytes()).unwrap();
    let expected = json!({
        "orderId": "LMS-INV-0001", "transactionId": "aaaaaaaa-0000-4000-8000-000000000001", "status": "success",
        "providerStatus": "settlement", "statusCode": "200", "fraudStatus": "accept", "paymentType": "bank_transfer",
        "amount": "150000.00", "currency": "IDR", "providerTime": "2026-01-05 09:02:10",
    });
    assert_eq!(Value::Object(read.facts.members().clone()), expected);
    assert_eq!((read.outcome, read.doubt), (PaymentSuccess, None));
    assert_eq!(read.at, Some("2026-01-05T02:02:10Z".parse().unwrap()), "Jakarta's time");
    // What comes again has the same key, whatever somebody has changed of what is not signed; another state has not.
    let key = |from: &str, to: &str| midtrans::read(SETTLED.replace(from, to).as_bytes()).unwrap().key;
    for (from, to) in [
        ("bank_transfer", "qris"),
        ("000000000001\"", "000000000002\""),
        ("\"settlement\"", "\"SETTLEMENT\""),
        ("\"settlement\"", "\"capture\""),
        ("\"currency\"", "\"refund_amount\":\"5.00\",\"currency\""),
        ("2026-01-05", "2026-01-06"),
    ] {
        assert_eq!(key(from, to), read.key, "{from}");
    }
    for (from, to) in [("\"settlement\"", "\"refund\""), ("INV-0001", "INV-0002"), ("150000.00", "150001.00")] {
        assert_ne!(key(from, to), read.key, "{from}");
    }
    // A refund in parts is several.
    let refund = |amount: &str, key: &str| {
        let parts = format!("\"partial_refund\",\"refund_amount\":\"{amount}\",\"refund_key\":\"{key}\"");
        midtrans::read(SETTLED.replace("\"settlement\"", &parts).as_bytes()).unwrap().key
    };
    assert_eq!(refund("5.00", "a"), refund("5.00", "a"));
    assert!(refund("5.00", "a") != refund("6.00", "a") && refund("5.00", "a") != refund("5.00", "b"));
}

#[test]
fn a_callback_of_xendit_is_read_in_each_of_its_forms() {
    let invoice = br#"{"id":"65f000000000000000000001","external_id":"LMS-INV-0001","user_id":"5f0000000000000000000001","status":"PAID","merchant_name":"Contoh LMS","amount":150000,"paid_amount":150000,"currency":"IDR","payment_channel":"BCA","payer_email":"budi@example.com","updated":"2026-01-05T02:02:11.000Z"}"#;
    let read = xendit::read(&request(&[], &invoice[..])).unwrap();
    assert_eq!(
        (read.outcome, read.facts.get("orderId"), read.facts.get("amount")),
        (PaymentSuccess, Some("LMS-INV-0001"), Some("150000"))
    );
    assert_eq!(read.at, Some("2026-01-05T02:02:11Z".parse().unwrap()));
    assert!(!read.facts.members().values().any(|fact| fact.to_string().contains("budi")));
    let delivery = [("webhook-id", &b"9f0c0000-0000-4000-8000-000000000001"[..])];
    assert_eq!(xendit::read(&request(&delivery, &invoice[..])).unwrap().key, "id:9f0c0000-0000-4000-8000-000000000001");
    let event =
        |data: Json, event: &str| json!({"event": event, "created": "2026-01-05T02:02:12Z", "data": data}).to_string();
    let data = json!({"payment_id": "py-1", "reference_id": "LMS-1", "status": "SUCCEEDED", "request_amount": "10000", "currency": "IDR"});
    let paid = xendit::read(&request(&[], event(data.clone(), "payment.capture"))).unwrap();
    assert_eq!(
        (paid.outcome, paid.facts.get("orderId"), paid.facts.get("amount")),
        (PaymentSuccess, Some("LMS-1"), Some("10000"))
    );
    let refund = json!({"id": "rfd-1", "payment_id": "py-1", "status": "SUCCEEDED", "amount": 5});
    let flat = xendit::read(&request(&[], event(refund.clone(), "refund.succeeded"))).unwrap();
    let nested =
        xendit::read(&request(&[], event(json!({"event": "refund.succeeded", "data": refund}), "refund.succeeded")))
            .unwrap();
    assert_eq!((flat.outcome, flat.facts), (nested.outcome, nested.facts));
    for body in ["", "[]", "{}", r#"{"id":1,"status":"PAID"}"#, r#"{"event":"payment.capture"}"#] {
        assert!(xendit::read(&request(&[], body)).is_err(), "{body}");
    }
}

#[test]
fn an_event_of_stripe_counts_only_in_its_own_environment() {
    let event = |live: bool| {
        json!({"id": "evt_1", "type": "payment_intent.succeeded", "created": 1_700_000_000, "livemode": live,
            "data": {"object": {"id": "pi_1", "amount": 1000, "amount_received": 900, "currency": "usd",
                "status": "succeeded", "metadata": {"order_id": "LMS-7"}, "client_secret": "hunter22"}}})
        .to_string()
    };
    for (live, environment, good) in [
        (true, Environment::Production, true),
        (false, Environment::Sandbox, true),
        (true, Environment::Sandbox, false),
        (false, Environment::Production, false),
    ] {
        let read = stripe::read(event(live).as_bytes(), environment).unwrap();
        assert_eq!((read.outcome == PaymentSuccess, read.doubt.is_none()), (good, good));
        assert_eq!(read.key, "id:evt_1");
        assert!(!Value::Object(read.facts.members().clone()).to_string().contains("hunter22"));
    }
    let read = stripe::read(event(true).as_bytes(), Environment::Production).unwrap();
    assert_eq!((read.facts.get("orderId"), read.facts.get("amount")), (Some("LMS-7"), Some("900")));
    assert_eq!(read.at, Some("2023-11-14T22:13:20Z".parse().unwrap()));
    assert_eq!(stripe::read(STRIPE_EVENT.as_bytes(), Environment::Sandbox).unwrap().outcome, Other);
    for body in ["", "{}", r#"{"id":"evt_1","type":"x"}"#, r#"{"id":"evt_1","type":"x","data":{"object":[]}}"#] {
        assert!(stripe::read(body.as_bytes(), Environment::Sandbox).is_err(), "{body}");
    }
}

#[test]
fn a_message_of_twilio_is_known_by_its_fields_in_any_order() {
    let form = |body: &str| request(&[("content-type", FORM.as_bytes())], body);
    let body = "MessageSid=SM1&SmsSid=SM1&MessageStatus=delivered&EventType=DELIVERED&ChannelPrefix=whatsapp&AccountSid=AC1&From=whatsapp%3A%2B14155238886&To=whatsapp%3A%2B6281200000001";
    let read = twilio::read(&form(body)).unwrap();
    assert_eq!(
        (read.outcome, read.facts.get("messageId"), read.facts.get("providerStatus")),
        (MessageDelivered, Some("SM1"), Some("delivered"))
    );
    assert!(
        !Value::Object(read.facts.members().clone()).to_string().contains("6281200000001"),
        "nobody's number is kept"
    );
    let reordered: Vec<&str> = body.split('&').rev().collect();
    assert_eq!(twilio::read(&form(&reordered.join("&"))).unwrap().key, read.key);
    assert_ne!(twilio::read(&form(&body.replace("=delivered", "=read"))).unwrap().key, read.key);
    assert_eq!(twilio::read(&form("SmsStatus=received&SmsSid=SM2&Body=Halo")).unwrap().outcome, Other);
    assert_eq!(twilio::read(&form("MessageSid=%ff&MessageStatus=sent")).unwrap_err().field, "body");
}

#[test]
fn messages_of_those_who_sign_nothing_are_read_as_they_come() {
    let incoming = br#"{"id":"00000000-0000-4000-8000-000000000001","pushName":"Budi","message":"Halo","phone":"6281200000001","messageType":"text","deviceId":"ABC123","sender":"6281200000000","isFromMe":false,"timestamp":"2026-01-05T02:00:00Z"}"#;
    let read = wablas::read(incoming).unwrap();
    assert_eq!((read.outcome, read.doubt), (Other, None));
    let kept = Value::Object(read.facts.members().clone()).to_string();
    assert!(!kept.contains("Halo") && !kept.contains("Budi") && !kept.contains("6281200000001"), "{kept}");
    let tracking = wablas::read(br#"{"id":"w1","phone":"62","status":"read","deviceId":"A"}"#).unwrap();
    assert_eq!((tracking.outcome, tracking.facts.get("messageId")), (MessageRead, Some("w1")));
    let message = br#"{"device":"6281200000000","sender":"6281200000001","message":"Halo","text":"non-button message","member":"","name":"Budi","location":"","pollname":"","choices":[],"inboxid":1001,"timestamp":1767578400}"#;
    let device = br#"{"device":"6281200000000","status":"disconnect","timestamp":1767578400,"reason":"logged out"}"#;
    for body in [&message[..], device] {
        let read = fonnte::read(body).unwrap();
        assert_eq!((read.outcome, read.doubt), (Other, None));
        assert_eq!(read.at, Some("2026-01-05T02:00:00Z".parse().unwrap()));
    }
    let status =
        br#"{"device":"6281200000000","id":"80000001","stateid":"3EB000000001","status":"sent","state":"delivered"}"#;
    let read = fonnte::read(status).unwrap();
    assert_eq!(
        (read.outcome, read.facts.get("messageId"), read.facts.get("stateId")),
        (MessageDelivered, Some("80000001"), Some("3EB000000001"))
    );
    let later = fonnte::read(br#"{"device":"62","stateid":"3EB000000001","state":"read"}"#).unwrap();
    assert_eq!((later.outcome, later.facts.get("messageId")), (MessageRead, Some("3EB000000001")));
}

#[test]
fn a_mail_service_says_what_is_wrong_with_it() {
    let read = |body: &str| mail::read(body.as_bytes());
    let sent =
        read(r#"{"event":"sent","message_id":"m1","recipient":"a@example.com","at":"2026-03-15T12:00:00Z"}"#).unwrap();
    assert_eq!((sent.outcome, sent.facts.get("messageId")), (EmailSent, Some("m1")));
    let other =
        read(r#"{"event":"sent","message_id":"m1","recipient":"b@example.com","at":"2026-03-15T12:00:00Z"}"#).unwrap();
    assert_ne!(sent.key, other.key);
    assert_eq!(sent.facts, other.facts, "whom it is for is not kept");
    for (body, field) in [
        ("", "body"),
        ("[]", "body"),
        ("{}", "event"),
        (r#"{"event":"sent"}"#, "message_id"),
        (r#"{"event":"opened","message_id":"m1"}"#, "event"),
        (r#"{"event":"sent","message_id":"m1","at":"noon"}"#, "at"),
    ] {
        assert_eq!(read(body).unwrap_err().field, field, "{body}");
    }
}

#[test]
fn facts_are_short_and_can_be_stored() {
    let mut facts = Facts::default();
    facts.add("orderId", Some(format!("a\0{}", "x".repeat(1000))));
    facts.add("amount", None::<&str>);
    let kept = facts.get("orderId").unwrap();
    assert!(kept.starts_with("a\u{fffd}x") && kept.chars().count() == 255);
    assert_eq!(facts.members().len(), 1);
    for id in ["", "a b", "é", "a\0b", &"x".repeat(300)] {
        assert!(key_of_id(id).starts_with("parts:") && key_of_id(id).len() <= 255, "{id}");
    }
    assert_ne!(key_of_parts(&["ab", "c"]), key_of_parts(&["a", "bc"]));
}
