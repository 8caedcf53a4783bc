//! The two faces on the one port: what every caller meets before and around the rpcs, until the hub has stopped.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tokio::time::timeout;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use upbridge_client::health::{HealthCheckRequest, health_check_response::ServingStatus};
use upbridge_client::{Client, Code, v1};
use upbridge_proto::UPBRIDGE;

use crate::harness::{RawClient, Setup, TestDatabase, TestHub, eventually, frame, keyed, usage};

const SERVICES: [&str; 12] = [
    "CallbackService",
    "IntegrationService",
    "IntegrationWebhookService",
    "PartnerService",
    "AnalyticsService",
    "AuthService",
    "MembershipService",
    "QueueService",
    "UsageService",
    "UserService",
    "UserSyncService",
    "WebhookService",
];
const PLANS: &str = "/api/v1/client/membership/plans";
const LIST_PLANS: &str = "/upbridge.v1.MembershipService/ListPlans";
/// Nothing a test waits for takes this long.
const LONG: Duration = Duration::from_secs(20);

/// HTTP/2 from the first byte.
fn http2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

async fn json(response: reqwest::Response) -> Value {
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_serves_grpc_and_json_over_http1_and_http2() {
    let hub = TestHub::start().await;
    let over_grpc = hub.client().await.membership().list_plans(v1::ListPlansRequest {}).await.unwrap().into_inner();
    let first = reqwest::Client::builder().http1_only().build().unwrap().get(hub.url(PLANS)).send().await.unwrap();
    let second = http2().get(hub.url(PLANS)).send().await.unwrap();
    assert_eq!((first.version(), second.version()), (http::Version::HTTP_11, http::Version::HTTP_2));
    let (first, second) = (json(first).await, json(second).await);
    assert_eq!(first, second);
    let names: Vec<_> = over_grpc.plans.iter().map(|plan| plan.name.as_str()).collect();
    let over_http: Vec<_> = first["data"]["plans"].as_array().unwrap().iter().map(|plan| &plan["name"]).collect();
    assert_eq!((names, over_http.len()), (vec!["Starter", "Pro", "Business"], 3));
    assert!(over_http.iter().zip(&over_grpc.plans).all(|(name, plan)| **name == plan.name));
}

async fn reflect(raw: &RawClient, asked: MessageRequest) -> Result<MessageResponse, tonic::Status> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
    let mut client = ServerReflectionClient::new(raw.channel());
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await?.into_inner();
    let answer: ServerReflectionResponse = answers.message().await?.expect("an answer");
    Ok(answer.message_response.expect("a response"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_and_describes_each_completely() {
    let hub = TestHub::start().await;
    let raw = hub.raw().await;
    let MessageResponse::ListServicesResponse(listed) =
        reflect(&raw, MessageRequest::ListServices(String::new())).await.unwrap()
    else {
        panic!("a list");
    };
    let listed: BTreeSet<String> = listed.service.into_iter().map(|service| service.name).collect();
    let mut expected: BTreeSet<String> = SERVICES.map(|name| format!("upbridge.v1.{name}")).into();
    expected.extend(["grpc.health.v1.Health".to_owned(), "grpc.reflection.v1.ServerReflection".to_owned()]);
    assert_eq!(listed, expected);
    // As a tool does: the file of each service, then whatever those files import.
    let mut files: HashMap<String, prost_types::FileDescriptorProto> = HashMap::new();
    let mut questions: VecDeque<_> = listed.into_iter().map(MessageRequest::FileContainingSymbol).collect();
    while let Some(question) = questions.pop_front() {
        let answer = reflect(&raw, question.clone()).await.unwrap();
        let MessageResponse::FileDescriptorResponse(answer) = answer else { panic!("{question:?}: {answer:?}") };
        for bytes in answer.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(bytes.as_slice()).unwrap();
            let unknown = file.dependency.iter().filter(|name| !files.contains_key(*name));
            questions.extend(unknown.cloned().map(MessageRequest::FileByFilename));
            files.insert(file.name().to_owned(), file);
        }
    }
    let mut pool = prost_reflect::DescriptorPool::new();
    pool.add_file_descriptor_protos(files.into_values()).expect("all imports are there");
    for method in UPBRIDGE.methods() {
        let service = pool.get_service_by_name(&method.service).expect(&method.service);
        assert!(service.methods().any(|described| described.name() == method.name), "{}", method.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_can_be_switched_off() {
    let hub = Setup::default().set("GRPC_REFLECTION", "false").start().await;
    let refused = reflect(&hub.raw().await, MessageRequest::ListServices(String::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_for_every_service_and_changes_before_the_hub_stops() {
    let hub = TestHub::start().await;
    let mut health = hub.client().await.health();
    let names = SERVICES.map(|name| format!("upbridge.v1.{name}"));
    let mut watches = Vec::new();
    for service in names.into_iter().chain([String::new()]) {
        let request = HealthCheckRequest { service: service.clone() };
        assert_eq!(health.check(request.clone()).await.unwrap().into_inner().status(), ServingStatus::Serving);
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving, "{service}");
        watches.push(watch);
    }
    let unknown = health.check(HealthCheckRequest { service: "no.Service".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    hub.begin_stop();
    for watch in &mut watches {
        let told = timeout(LONG, watch.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(told.status(), ServingStatus::NotServing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn healthz_says_that_the_hub_serves_and_a_call_increments_its_counter() {
    let hub = TestHub::start().await;
    let answer = reqwest::get(hub.url("/healthz")).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let health = json(answer).await;
    let kind = if hub.database.is_postgres() { "postgres" } else { "sqlite" };
    assert_eq!((health["status"].as_str(), health["database"]["kind"].as_str()), (Some("serving"), Some(kind)));
    let counted = async |code: &str| {
        let answer = reqwest::get(hub.url("/metrics")).await.unwrap();
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
        let text = answer.text().await.unwrap();
        let line = |line: &&str| {
            line.starts_with("upbridge_rpc_calls_total{")
                && line.contains("rpc=\"upbridge.v1.AuthService/Login\"")
                && line.contains(&format!("code=\"{code}\""))
        };
        let line = text.lines().find(line).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((counted("OK").await, counted("UNAUTHENTICATED").await), (0, 0));
    hub.admin().await;
    let wrong = serde_json::json!({ "email": "nobody@test.example", "password": "wrong" });
    reqwest::Client::new().post(hub.url("/api/v1/client/auth/login")).json(&wrong).send().await.unwrap();
    assert_eq!((counted("OK").await, counted("UNAUTHENTICATED").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_lists_every_binding_of_the_contract() {
    let hub = TestHub::start().await;
    let answer = reqwest::get(hub.url("/api/openapi.json")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let document = json(answer).await;
    // The names of path variables follow the route family's spelling.
    let shape = |path: &str| {
        path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
    };
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, verbs)| verbs.as_object().unwrap().keys().map(move |verb| (verb.to_uppercase(), shape(path))))
        .collect();
    for method in UPBRIDGE.methods() {
        for binding in &method.bindings {
            assert!(
                described.contains(&(binding.verb.clone(), shape(&binding.template))),
                "{} {}",
                binding.verb,
                binding.template
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_page_and_its_assets_come_from_the_hub_alone() {
    let hub = TestHub::start().await;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![("/api/docs/".to_owned(), "text/html"), ("/api/docs".to_owned(), "text/html")];
    while let Some((path, kind)) = waiting.pop() {
        let answer = reqwest::get(hub.url(&path)).await.unwrap();
        let policy = answer.headers().get("content-security-policy").expect("a policy").to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        assert_eq!(answer.status(), 200, "{path}");
        let text = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        assert!(!text.is_empty());
        // The viewer's own files name the addresses of XML namespaces; what is ours names none.
        if kind == "text/html" || path.ends_with("start.js") {
            assert!(!text.contains("://") && !text.contains("\"//"), "{path}: {text}");
        }
        for reference in text.split('"').filter(|part| part.starts_with("/api/docs/") && kind == "text/html") {
            let kind = match reference.rsplit('.').next() {
                Some("css") => "text/css",
                Some("js") => "text/javascript",
                Some("png") => "image/png",
                other => panic!("{other:?}"),
            };
            if seen.insert(reference.to_owned()) {
                waiting.push((reference.to_owned(), kind));
            }
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_origins_may_call_from_a_browser_and_no_other() {
    let hub = TestHub::start().await;
    let http = reqwest::Client::new();
    let ask = async |verb: http::Method, path: &str, origin: &str| {
        let request = http.request(verb, hub.url(path)).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "authorization,content-type");
        request.send().await.unwrap()
    };
    let preflight = "/api/v1/client/auth/login";
    for origin in ["https://app.digiup.com", "https://app.creatorup.com", "https://api.creatorup.com"] {
        for (verb, path) in
            [(http::Method::OPTIONS, preflight), (http::Method::GET, PLANS), (http::Method::GET, "/nothing")]
        {
            let answer = ask(verb.clone(), path, origin).await;
            let headers = answer.headers();
            assert_eq!(headers["access-control-allow-origin"], origin, "{verb} {path}");
            assert_eq!(headers["access-control-allow-credentials"], "true", "{verb} {path}");
            if verb == http::Method::OPTIONS {
                assert!(answer.status().is_success());
                assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
                assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
            } else {
                assert!(headers["access-control-expose-headers"].to_str().unwrap().contains("x-request-id"));
            }
        }
    }
    for origin in ["https://evil.example", "http://app.digiup.com", "https://app.digiup.com.evil.example", "null"] {
        for (verb, path) in [(http::Method::OPTIONS, preflight), (http::Method::GET, PLANS)] {
            let answer = ask(verb, path, origin).await;
            assert!(!answer.headers().contains_key("access-control-allow-origin"), "{origin} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_carries_a_request_id_and_a_good_one_is_the_callers() {
    let hub = TestHub::start().await;
    let http = http2();
    let replies = [
        (http::Method::GET, PLANS, ""),
        (http::Method::GET, "/healthz", ""),
        (http::Method::GET, "/metrics", ""),
        (http::Method::GET, "/api/docs/", ""),
        (http::Method::GET, "/nothing", ""),
        (http::Method::DELETE, PLANS, ""),
        (http::Method::GET, "/api/v1/client/auth/me", ""),
        (http::Method::POST, LIST_PLANS, "application/grpc"),
        (http::Method::POST, "/upbridge.v1.AuthService/GetMe", "application/grpc"),
        (http::Method::POST, "/upbridge.v1.AuthService/Nothing", "application/grpc"),
    ];
    for (verb, path, kind) in replies {
        for (given, kept) in [("caller-1.A_b", true), ("two words", false), (&*"x".repeat(65), false), ("", false)] {
            let mut request = http.request(verb.clone(), hub.url(path)).header("x-request-id", given);
            if !kind.is_empty() {
                request = request.header("content-type", kind).header("te", "trailers").body(frame(&[]));
            }
            let answer = request.send().await.unwrap();
            let id = answer.headers().get("x-request-id").expect(path).to_str().unwrap().to_owned();
            assert_eq!((id == given, !id.is_empty() && id.len() <= 64), (kept, true), "{verb} {path}: {id}");
            if kind.is_empty() && answer.status().is_client_error() {
                assert_eq!(json(answer).await["request_id"], id, "{verb} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_are_unimplemented_and_an_impossible_deadline_is_exceeded() {
    let hub = TestHub::start().await;
    let raw = hub.raw().await;
    for path in ["/upbridge.v1.UsageService/Nothing", "/no.Service/Method", "/upbridge.v1.UsageService"] {
        assert_eq!(raw.call(path, []).await.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    // Without a client that would give up by itself.
    let login = v1::LoginRequest { email: "nobody@test.example".into(), password: "wrong-password".into() };
    for limit in ["1n", "1u"] {
        let request =
            http2().post(hub.url("/upbridge.v1.AuthService/Login")).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").header("grpc-timeout", limit);
        let answer = request.body(frame(&login.encode_to_vec())).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()),
            (200, "4"),
            "{limit}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_both_faces_speak_tls_and_nothing_else() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let database = TestDatabase::new().await;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (database.directory.path().join("cert.pem"), database.directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let setup = Setup::default().set("TLS_CERT_FILE", certificate.display().to_string());
    let hub = setup.set("TLS_KEY_FILE", key.display().to_string()).start_on(database).await;
    let client = Client::builder(hub.url("")).ca_pem(made.cert.pem()).connect().await.unwrap();
    assert_eq!(client.membership().list_plans(v1::ListPlansRequest {}).await.unwrap().into_inner().plans.len(), 3);
    let authority = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let https = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    assert_eq!(json(https.get(hub.url(PLANS)).send().await.unwrap()).await["success"], true);
    assert!(reqwest::Client::builder().tls_certs_only([]).build().unwrap().get(hub.url(PLANS)).send().await.is_err());
    let plain = format!("http://{}", hub.address);
    assert!(reqwest::get(format!("{plain}{PLANS}")).await.is_err());
    let insecure = timeout(LONG, Client::connect(plain)).await.unwrap();
    if let Ok(client) = insecure {
        assert!(timeout(LONG, client.membership().list_plans(v1::ListPlansRequest {})).await.unwrap().is_err());
    }
    hub.stop().await;
}

fn reports(key: &str) -> v1::RecordUsageStreamRequest {
    let v1::RecordUsageRequest { usage_data, idempotency_key, .. } = keyed(key, usage(key));
    v1::RecordUsageStreamRequest {
        reports: vec![v1::UsageReport { usage_data, idempotency_key, digiup_user_id: None }],
    }
}

/// Opens a stream of reports whose first has arrived.
async fn open_stream(
    hub: &TestHub,
) -> (
    tokio::sync::mpsc::Sender<v1::RecordUsageStreamRequest>,
    tokio::task::JoinHandle<Result<v1::RecordUsageStreamResponse, tonic::Status>>,
) {
    let member = hub.subscriber(2).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let client = hub.client().await.with_bearer(&member.token);
    let call =
        tokio::spawn(async move { Ok(client.usage().record_usage_stream(Box::pin(stream)).await?.into_inner()) });
    sender.send(reports("first")).await.unwrap();
    let arrived = async || hub.database.count("SELECT COUNT(*) FROM creatorup_usage").await == 1;
    eventually("the first report is recorded", arrived).await;
    (sender, call)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_is_finished_while_new_connections_are_refused() {
    let hub = TestHub::start().await;
    let (sender, call) = open_stream(&hub).await;
    hub.begin_stop();
    let address = hub.address;
    eventually("new connections are refused", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    sender.send(reports("second")).await.unwrap();
    drop(sender);
    let answer = timeout(LONG, call).await.unwrap().unwrap().unwrap();
    assert_eq!((answer.created, answer.rejected), (2, 0));
    let database = timeout(LONG, hub.stop()).await.unwrap();
    assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_ends_is_ended_by_the_drain_bound() {
    let hub = Setup::default().set("DRAIN_TIMEOUT_SECONDS", "1").start().await;
    let (_open, call) = open_stream(&hub).await;
    let database = timeout(LONG, hub.stop()).await.expect("the bound holds");
    assert!(timeout(LONG, call).await.unwrap().unwrap().is_err());
    assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, 1, "what was recorded stays");
}
