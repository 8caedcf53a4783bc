//! The published vectors, and each of them with a bit that is another.

use super::*;

#[test]
fn no_changed_bit_of_a_published_vector_passes() {
    // Standard Webhooks', GitHub's, Convoy's, and Stripe's scheme of `timestamp.body`.
    let sw1 = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let sw2 = ("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "1649367553", "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    let user = r#"{"email":"test@example.com","username":"test_user"}"#;
    for ((id, at, signature), secret, body) in
        [(sw1, STANDARD_SECRET, r#"{"test": 2432232314}"#), (sw2, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", user)]
    {
        let now: i64 = at.parse().unwrap();
        let key = Key::parse(secret).unwrap();
        let passes_as = |id: &[u8], at: &[u8], signature: &[u8], body: &[u8]| {
            let signature = [b"v1,", signature].concat();
            let (standard_id, standard_timestamp) = (vec![id], vec![at]);
            let standard_signature = vec![&signature[..]];
            let sent = Sent { standard_id, standard_timestamp, standard_signature, ..Sent::default() };
            passes(&key, &sent, body, now)
        };
        let (id, at, signature, body) = (id.as_bytes(), at.as_bytes(), signature.as_bytes(), body.as_bytes());
        assert!(passes_as(id, at, signature, body));
        assert!(flipped(id).all(|id| !passes_as(&id, at, signature, body)));
        assert!(flipped(at).all(|at| !passes_as(id, &at, signature, body)));
        assert!(flipped(signature).all(|signature| !passes_as(id, at, &signature, body)));
        assert!(flipped(body).all(|body| !passes_as(id, at, signature, &body)));
    }
    let event = r#"{"event":"charge.success","amount":1000,"currency":"NGN"}"#;
    for (secret, at, body, signature) in [
        (SECRET, None, "Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
        ("convoy-webhook-secret", None, event, "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4"),
        (
            "whsec_test_secret",
            Some("1700000000"),
            r#"{"id":"evt_test","object":"event"}"#,
            "8042376f6ca064adbe037642a718227dfd59047137eb49497a54c49eb0cfb724",
        ),
    ] {
        let good = |secret: &str, signature: &str, body: &[u8]| passes(&raw(secret), &header(signature, at), body, NOW);
        assert!(good(secret, signature, body.as_bytes()));
        assert!(flipped(body.as_bytes()).all(|body| !good(secret, signature, &body)));
        let texts =
            |text: &str| flipped(text.as_bytes()).filter_map(|bytes| String::from_utf8(bytes).ok()).collect::<Vec<_>>();
        assert!(texts(secret).iter().all(|secret| !good(secret, signature, body.as_bytes())));
        // The case of a digit is one bit, and means nothing.
        let others = texts(signature).into_iter().filter(|other| !other.eq_ignore_ascii_case(signature));
        assert!(others.into_iter().all(|signature| !good(secret, &signature, body.as_bytes())));
    }
}
