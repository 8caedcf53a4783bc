//! Input nobody should send: it is refused by name or kept to the letter, on both faces alike, and changes nothing.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};
use reqwest::Response;
use serde_json::{Value, json};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use upbridge_client::{Code, v1};

use crate::harness::{Member, RawClient, TestHub, at, frame, record, usage};

const RECORD: &str = "/upbridge.v1.UsageService/RecordUsage";
const SYNC_USAGE: &str = "POST /api/v1/creatorup/sync/usage";
const TABLES: [&str; 9] = [
    "users",
    "sessions",
    "audit_log",
    "membership_plans",
    "user_subscriptions",
    "creatorup_usage",
    "usage_revisions",
    "usage_monthly",
    "sync_events",
];

/// A hub with a subscriber and an administrator, and how many rows it has in all.
struct Scene {
    hub: TestHub,
    raw: RawClient,
    member: Member,
    admin: String,
    rows: Vec<i64>,
}

impl Scene {
    async fn set() -> Scene {
        let hub = TestHub::start().await;
        let member = hub.subscriber(2).await;
        let login = v1::LoginRequest {
            email: crate::harness::ADMIN_EMAIL.into(),
            password: crate::harness::ADMIN_PASSWORD.into(),
        };
        let admin = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
        let mut scene = Scene { raw: hub.raw().await, hub, member, admin, rows: Vec::new() };
        scene.rows = scene.count().await;
        scene
    }

    async fn count(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for table in TABLES {
            counts.push(self.hub.database.count(&format!("SELECT COUNT(*) FROM {table}")).await);
        }
        counts
    }

    fn token(&self, path: &str) -> &str {
        if path.contains("/api/admin/") || path.contains("UserService") { &self.admin } else { &self.member.token }
    }

    async fn over_grpc(&self, rpc: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        self.raw.with_bearer(self.token(rpc)).call(rpc, message).await.map(tonic::Response::into_inner)
    }

    /// Sends to `VERB /path`.
    async fn over_http(&self, target: &str, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        let (verb, path) = target.split_once(' ').unwrap();
        let request = reqwest::Client::new().request(verb.parse().unwrap(), self.hub.url(path));
        let request = request.bearer_auth(self.token(path)).header("content-type", kind).body(body.into());
        request.send().await.unwrap()
    }

    /// Nothing was written and the hub goes on.
    async fn is_unchanged(&self) {
        assert_eq!(self.count().await, self.rows, "{TABLES:?}");
        self.member.client.usage().record_usage(record(usage("afterwards"))).await.unwrap();
    }
}

/// The status and the error of a refusal, which has one shape.
async fn refusal(what: &str, answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((&answer["success"], answer["request_id"].is_string()), (&json!(false), true), "{what}: {answer}");
    (status, answer["error"].clone())
}

/// A report of usage with some members replaced.
fn report(members: Value) -> String {
    let mut data = json!({ "batch_name": "b", "batch_type": "video", "usage_type": "local_rendering" });
    data.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({ "usage_data": data }).to_string()
}

fn data(change: impl FnOnce(&mut v1::UsageData)) -> Vec<u8> {
    let mut data = usage("b");
    change(&mut data);
    record(data).encode_to_vec()
}

/// A report whose data ends with these bytes.
fn appended(bytes: &[u8]) -> Vec<u8> {
    let data = [usage("b").encode_to_vec().as_slice(), bytes].concat();
    let mut message = vec![10];
    prost::encoding::encode_varint(data.len() as u64, &mut message);
    message.extend(data);
    message
}

fn metadata(value: Kind) -> Vec<u8> {
    let fields = BTreeMap::from([("n".to_owned(), ProtoValue { kind: Some(value) })]);
    data(|data| data.metadata = Some(Struct { fields }))
}

/// An rpc, its message, the same over HTTP as target and body, the field at fault, and what is said of it.
type Case<'a> = (&'a str, Vec<u8>, String, String, &'a str, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn both_faces_refuse_the_same_with_the_same_words() {
    let scene = Scene::set().await;
    let long = |length: usize| "x".repeat(length);
    let month = |month: &str| v1::GetMonthlyUsageRequest { month_year: Some(month.into()), digiup_user_id: None };
    let register = |email: &str, password: &str| v1::RegisterRequest {
        email: email.into(),
        password: password.into(),
        ..Default::default()
    };
    let user = |user_id: &str| v1::GetUserRequest { user_id: user_id.into() };
    let users = |page_size, role| v1::ListUsersRequest { page_size, role, ..Default::default() };
    let none = String::new;
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        (RECORD, data(|data| data.month_year = Some("2024-13".into())), SYNC_USAGE.into(), report(json!({"month_year": "2024-13"})), "usage_data.month_year", "must match"),
        (RECORD, data(|data| data.usage_amount = Some(0)), SYNC_USAGE.into(), report(json!({"usage_amount": 0})), "usage_data.usage_amount", "must be at least 1"),
        (RECORD, data(|data| data.usage_amount = Some(-1)), SYNC_USAGE.into(), report(json!({"usage_amount": -1})), "usage_data.usage_amount", "must be at least 1"),
        (RECORD, appended(&[0x20, 0x80, 0x80, 0x80, 0x80, 0x08]), SYNC_USAGE.into(), report(json!({"usage_amount": 1i64 << 31})), "usage_data.usage_amount", "must be a 32-bit integer"),
        (RECORD, data(|data| data.batch_name.clear()), SYNC_USAGE.into(), report(json!({"batch_name": null})), "usage_data.batch_name", "is required"),
        (RECORD, data(|data| data.batch_name = long(256)), SYNC_USAGE.into(), report(json!({"batch_name": long(256)})), "usage_data.batch_name", "must have at most 255 characters"),
        (RECORD, data(|data| data.batch_name = "a\0b".into()), SYNC_USAGE.into(), report(json!({"batch_name": "a\0b"})), "usage_data.batch_name", "must not contain NUL"),
        (RECORD, data(|data| data.batch_type = long(51)), SYNC_USAGE.into(), report(json!({"batch_type": long(51)})), "usage_data.batch_type", "must have at most 50 characters"),
        (RECORD, data(|data| data.usage_id = Some(none())), SYNC_USAGE.into(), report(json!({"usage_id": ""})), "usage_data.usage_id", "must have at least 1 characters"),
        (RECORD, data(|data| data.completed_at = Some(prost_types::Timestamp { seconds: 1 << 50, nanos: 0 })), SYNC_USAGE.into(), report(json!({"completed_at": "+35000-01-01T00:00:00Z"})), "usage_data.completed_at", "must be a time"),
        (RECORD, vec![], SYNC_USAGE.into(), none(), "usage_data", "is required"),
        (RECORD, v1::RecordUsageRequest { digiup_user_id: Some("1".into()), usage_data: Some(usage("b")), ..Default::default() }.encode_to_vec(), SYNC_USAGE.into(), report(json!({})).replacen('{', r#"{"digiup_user_id":"1","#, 1), "digiup_user_id", "must be a UUID"),
        (RECORD, metadata(Kind::StringValue("a\0b".into())), SYNC_USAGE.into(), report(json!({"metadata": {"n": "a\0b"}})), "usage_data.metadata", "must not"),
        ("/upbridge.v1.UsageService/GetMonthlyUsage", month("2024-13").encode_to_vec(), "GET /api/v1/client/batch/usage/monthly?month_year=2024-13".into(), none(), "month_year", "must match"),
        ("/upbridge.v1.UsageService/ListUsage", v1::ListUsageRequest { page_token: Some("' OR 1=1 --".into()), ..Default::default() }.encode_to_vec(), "GET /api/v1/client/batch/usage?page_token='+OR+1%3D1+--".into(), none(), "page_token", ""),
        ("/upbridge.v1.AuthService/Register", register("' OR 1=1 --", "password-1").encode_to_vec(), "POST /api/v1/client/auth/register".into(), json!({"email": "' OR 1=1 --", "password": "password-1"}).to_string(), "email", "must be an e-mail address"),
        ("/upbridge.v1.AuthService/Register", register("a@b.example", "short").encode_to_vec(), "POST /api/v1/client/auth/register".into(), json!({"email": "a@b.example", "password": "short"}).to_string(), "password", "must have at least 8 characters"),
        ("/upbridge.v1.AuthService/RevokeSession", v1::RevokeSessionRequest { session_id: "1".into() }.encode_to_vec(), "DELETE /api/v1/client/auth/sessions/1".into(), none(), "session_id", "must be a UUID"),
        ("/upbridge.v1.MembershipService/Subscribe", v1::SubscribeRequest { plan_id: Some(0), plan: None }.encode_to_vec(), "POST /api/v1/client/membership/subscribe/0".into(), none(), "plan_id", "must be at least 1"),
        ("/upbridge.v1.MembershipService/CheckFeatureAccess", v1::CheckFeatureAccessRequest { feature: "a\0".into(), ..Default::default() }.encode_to_vec(), "GET /api/v1/client/membership/feature/a%00/access".into(), none(), "feature", "must not contain NUL"),
        ("/upbridge.v1.UserService/GetUser", user("' OR 1=1 --").encode_to_vec(), "GET /api/admin/users/'%20OR%201=1%20--".into(), none(), "user_id", "must be a UUID"),
        ("/upbridge.v1.UserService/ListUsers", users(Some(1000), None).encode_to_vec(), "GET /api/admin/users?page_size=1000".into(), none(), "page_size", "must be between 1 and 200"),
        ("/upbridge.v1.UserService/ListUsers", users(None, Some(77)).encode_to_vec(), "GET /api/admin/users?role=king".into(), none(), "role", "must be one of admin"),
    ];
    for (rpc, message, target, body, field, says) in cases {
        let what = format!("{rpc} {field} {says}");
        let status = scene.over_grpc(rpc, &message).await.expect_err(&what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        let violations = upbridge_client::field_violations(&status);
        let said = |(named, said): &(String, String)| named.starts_with(field) && said.starts_with(says);
        assert!(violations.len() == 1 && violations.iter().all(said), "{what}: {violations:?}");
        assert!(status.message().contains(field), "{what}: {}", status.message());
        let (code, error) = refusal(&what, scene.over_http(&target, "application/json", body).await).await;
        assert_eq!(
            (code, &error["code"], &error["reason"]),
            (400, &json!("INVALID_ARGUMENT"), &json!("INVALID_FIELD")),
            "{what}"
        );
        let detail = &error["details"][0];
        let named = detail["field"].as_str().unwrap().replace("pageSize", "page_size").replace("userId", "user_id");
        assert!(said(&(named, detail["description"].as_str().unwrap().to_owned())), "{what}: {error}");
    }
    scene.is_unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_no_request_is_refused_with_the_place_at_fault() {
    let scene = Scene::set().await;
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let raw = |member: &str| report(json!({})).replacen("\"usage_data\":{", &format!("\"usage_data\":{{{member},"), 1);
    let deep = |depth: usize| raw(&format!("\"metadata\":{}", nested(depth)));
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        // target, body, status, field or nothing, words of the message
        (SYNC_USAGE, report(json!({"batch_name": 5})).into(), 400, "usage_data.batch_name", "must be a string"),
        (SYNC_USAGE, report(json!({"usage_amount": "many"})).into(), 400, "usage_data.usage_amount", "must be an integer"),
        (SYNC_USAGE, report(json!({"usage_amount": 1.5})).into(), 400, "usage_data.usage_amount", "must be an integer"),
        (SYNC_USAGE, report(json!({"usage_amount": true})).into(), 400, "usage_data.usage_amount", "must be an integer"),
        (SYNC_USAGE, report(json!({"usage_amount": 1e300})).into(), 400, "usage_data.usage_amount", "must be a 32-bit integer"),
        (SYNC_USAGE, report(json!({"metadata": []})).into(), 400, "usage_data.metadata", "must be an object"),
        (SYNC_USAGE, report(json!({"completed_at": 5})).into(), 400, "usage_data.completed_at", "must be a time"),
        (SYNC_USAGE, report(json!({"completed_at": "yesterday"})).into(), 400, "usage_data.completed_at", "must be a time"),
        (SYNC_USAGE, report(json!({"completed_at": "2024-02-30T00:00:00Z"})).into(), 400, "usage_data.completed_at", "must be a time"),
        (SYNC_USAGE, br#"{"usage_data":"x"}"#.into(), 400, "usage_data", "must be an object"),
        (SYNC_USAGE, report(json!({"colour": 1})).into(), 400, "usage_data.colour", "is not a known field"),
        (SYNC_USAGE, report(json!({"__proto__": 1})).into(), 400, "usage_data.__proto__", "is not a known field"),
        (SYNC_USAGE, raw(r#""batch_name":"a""#).into(), 400, "usage_data.batch_name", "is given twice"),
        (SYNC_USAGE, raw(r#""batchName":"a""#).into(), 400, "usage_data.batch_name", "is given twice"),
        (SYNC_USAGE, raw(r#""metadata":{"a":1,"a":2}"#).into(), 400, "usage_data.metadata.a", "is given twice"),
        (SYNC_USAGE, raw(r#""metadata":{"n":9007199254740993}"#).into(), 400, "usage_data.metadata.n", "must be sent as a string"),
        (SYNC_USAGE, raw(r#""metadata":{"n":1e400}"#).into(), 400, "usage_data.metadata.n", "must be sent as a string"),
        (SYNC_USAGE, deep(40).into(), 400, "usage_data.metadata.a.a", "nested too deeply"),
        (SYNC_USAGE, deep(10_000).into(), 400, "", "nested too deeply"),
        (SYNC_USAGE, "[".repeat(900_000).into(), 400, "", "nested too deeply"),
        (SYNC_USAGE, b"[]".into(), 400, "", "must be a JSON object"),
        (SYNC_USAGE, b"null".into(), 400, "", "must be a JSON object"),
        (SYNC_USAGE, br#"{"usage_data":"#.into(), 400, "", "not JSON"),
        (SYNC_USAGE, b"{} {}".into(), 400, "", "not JSON"),
        (SYNC_USAGE, br#"{"a":NaN}"#.into(), 400, "", "not JSON"),
        (SYNC_USAGE, b"{\"usage_data\":{\"batch_name\":\"\xff\xfe\"}}".into(), 400, "", "UTF-8"),
        (SYNC_USAGE, raw(r#""metadata":{"s":"\ud800"}"#).into(), 400, "", "not JSON"),
        (SYNC_USAGE, vec![b' '; (1 << 20) + 1], 413, "", "at most 1048576 bytes"),
        ("POST /api/v1/creatorup/sync/usage?colour=red", report(json!({})).into(), 400, "colour", "takes no query"),
        ("GET /api/v1/client/batch/usage?colour=red", vec![], 400, "colour", "is not a known parameter"),
        ("GET /api/v1/client/batch/usage?page_size=ten", vec![], 400, "page_size", "must be an integer"),
        ("GET /api/v1/client/batch/usage?usage_type=%ff", vec![], 400, "usage_type", "UTF-8"),
        ("GET /api/v1/client/batch/usage", b"{\"page_size\":5}".into(), 400, "page_size", "takes no body"),
        ("POST /api/v1/client/membership/subscribe/abc", vec![], 400, "plan_id", "must be an integer"),
        ("POST /api/v1/client/membership/subscribe/2", br#"{"plan_id":3}"#.into(), 400, "plan_id", "differs"),
        ("POST /api/v1/client/auth/login", vec![], 400, "email", "is required"),
    ];
    for (target, body, status, field, says) in cases {
        let what = format!("{target} {}", String::from_utf8_lossy(&body[..body.len().min(120)]));
        let (code, error) = refusal(&what, scene.over_http(target, "application/json", body).await).await;
        assert_eq!(code, status, "{what}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{what}: {error}");
        let detail = error["details"][0]["field"].as_str().unwrap_or_default();
        assert!(if field.is_empty() { detail.is_empty() } else { detail.starts_with(field) }, "{what}: {error}");
    }
    for kind in
        ["text/plain", "application/xml", "application/grpc-web+json-but-not", "multipart/form-data; boundary=x", "💥"]
    {
        let refused = scene.over_http(SYNC_USAGE, kind, report(json!({}))).await;
        assert!(
            [415, 400].contains(&refused.status().as_u16()) || refused.headers().contains_key("grpc-status"),
            "{kind}"
        );
    }
    scene.is_unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_refused_over_grpc() {
    let scene = Scene::set().await;
    let good = data(|data| (data.completed_at, data.usage_amount) = (at("2024-01-15T10:30:00Z"), Some(1)));
    for length in 1..good.len() {
        let refused = scene.over_grpc(RECORD, &good[..length]).await.expect_err("cut off");
        assert_eq!(
            (refused.code(), upbridge_client::reason(&refused).as_deref()),
            (Code::InvalidArgument, Some("MALFORMED_REQUEST")),
            "{length}: {refused}"
        );
    }
    let mut deep = Kind::NumberValue(1.0);
    for _ in 0..200 {
        deep = Kind::ListValue(ListValue { values: vec![ProtoValue { kind: Some(deep) }] });
    }
    #[rustfmt::skip]
    let cases: Vec<(Vec<u8>, Code, &str, &str)> = vec![
        (vec![8, 1], Code::InvalidArgument, "MALFORMED_REQUEST", ""),
        (vec![0xff; 64], Code::InvalidArgument, "MALFORMED_REQUEST", ""),
        (vec![0], Code::InvalidArgument, "MALFORMED_REQUEST", ""),
        (appended(&[0x0a, 2, 0xff, 0xfe]), Code::InvalidArgument, "INVALID_FIELD", "usage_data.batch_name"),
        (appended(&[0x32, 3, 0x0a, 1, 0]), Code::InvalidArgument, "MALFORMED_REQUEST", ""),
        (metadata(Kind::NumberValue(f64::NAN)), Code::InvalidArgument, "INVALID_FIELD", "usage_data.metadata"),
        (metadata(Kind::NumberValue(f64::NEG_INFINITY)), Code::InvalidArgument, "INVALID_FIELD", "usage_data.metadata"),
        (metadata(deep), Code::InvalidArgument, "MALFORMED_REQUEST", ""),
    ];
    for (message, code, reason, field) in cases {
        let refused = scene.over_grpc(RECORD, &message).await.expect_err(reason);
        assert_eq!(
            (refused.code(), upbridge_client::reason(&refused).as_deref()),
            (code, Some(reason)),
            "{message:?}: {refused}"
        );
        let violations = upbridge_client::field_violations(&refused);
        assert_eq!(violations.first().map_or("", |(named, _)| named), field, "{message:?}");
    }
    // Too large as it is, and too large once it is unpacked.
    let large = data(|data| data.batch_name = "x".repeat(2 << 20));
    assert_eq!(scene.over_grpc(RECORD, &large).await.unwrap_err().code(), Code::OutOfRange);
    let bomb = data(|data| data.batch_name = "x".repeat(64 << 20));
    let refused = scene.raw.with_bearer(&scene.member.token).packed(CompressionEncoding::Gzip).call(RECORD, bomb).await;
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&refused.unwrap_err().code()));
    // A frame that promises more than it holds, and one of an unknown packing.
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let mut short = frame(&good);
    short.truncate(good.len());
    let mut packed = frame(&good);
    packed[0] = 1;
    for body in [short, packed, vec![9; 5], vec![0, 0xff, 0xff, 0xff, 0xff]] {
        let request = http.post(scene.hub.url(RECORD)).bearer_auth(&scene.member.token).header("te", "trailers");
        let answer = request.header("content-type", "application/grpc").body(body).send().await.unwrap();
        assert_ne!(answer.headers().get("grpc-status").map_or("0", |code| code.to_str().unwrap()), "0");
    }
    scene.is_unchanged().await;
}
