//! Who may call what: the whole matrix of the contract's rpcs and the kinds of callers, derived from the contract,
//! and every cell called over gRPC and over HTTP.

use reqwest::{Client as Http, RequestBuilder};
use serde_json::Value;
use upbridge_client::{Code, Status, v1};
use upbridge_proto::UPBRIDGE;
use upbridge_proto::schema::{Method, Policy};
use uuid::Uuid;

use crate::harness::{self, SERVICE_KEY, TestHub, fault, refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Member,
    Admin,
    Service,
    ServiceAsBearer,
    BadToken,
    BadKey,
}

use Caller::{Admin, BadKey, BadToken, Member, Nobody, Service, ServiceAsBearer};

const CALLERS: [Caller; 7] = [Nobody, Member, Admin, Service, ServiceAsBearer, BadToken, BadKey];

/// What the policy says of a caller, read anew and not with the hub's own function: nothing when they may call.
fn expected(policy: &Policy, caller: Caller) -> Option<(Code, &'static str)> {
    let missing = Some((Code::Unauthenticated, "MISSING_CREDENTIALS"));
    let allowed = match caller {
        BadToken | BadKey => return Some((Code::Unauthenticated, "INVALID_CREDENTIALS")),
        // An empty message holds no token, and without one these rpcs know nobody to speak of.
        Nobody | Service | ServiceAsBearer if policy.token_field.is_some() => return missing,
        Nobody => return if policy.public { None } else { missing },
        Member => policy.public || policy.user,
        Admin => policy.public || policy.user || policy.admin,
        Service | ServiceAsBearer => policy.public || policy.service,
    };
    (!allowed).then_some((Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED"))
}

/// Puts the caller's credential on a request. Users are new for each cell, so that one who signs out in one cell
/// is not missed in the next.
async fn identified(hub: &TestHub, request: RequestBuilder, caller: Caller) -> RequestBuilder {
    match caller {
        Nobody => request,
        Member => request.bearer_auth(hub.member().await.token),
        Admin => request.bearer_auth(hub.another_admin().await.token),
        Service => request.header("x-api-key", SERVICE_KEY),
        ServiceAsBearer => request.bearer_auth(SERVICE_KEY),
        BadToken => request.bearer_auth("not.a.token"),
        BadKey => request.header("x-api-key", "not-the-key"),
    }
}

/// The hub over HTTP/2, as gRPC speaks it.
fn grpc() -> Http {
    Http::builder().http2_prior_knowledge().build().unwrap()
}

/// A call with an empty message: five bytes that say it is not compressed and not long.
fn call(hub: &TestHub, grpc: &Http, path: &str) -> RequestBuilder {
    grpc.post(hub.url(path)).header("content-type", "application/grpc").header("te", "trailers").body(vec![0; 5])
}

/// How a gRPC call was refused; nothing when it was not.
async fn refused(request: RequestBuilder) -> Option<(Code, String)> {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let status = Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)?;
    let reason = upbridge_client::reason(&status).unwrap_or_default();
    Some((status.code(), reason))
}

/// A refusal that is the policy's, and not the rpc's own word about an empty message.
fn of_the_policy(refusal: &(Code, String)) -> bool {
    matches!(refusal.0, Code::Unauthenticated | Code::PermissionDenied)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_admits_over_grpc_whom_its_policy_names_and_nobody_else() {
    let (hub, grpc) = (TestHub::start().await, grpc());
    let mut cells = 0;
    for method in UPBRIDGE.methods() {
        let policy = method.policy.as_ref().unwrap();
        for caller in CALLERS {
            let refusal = refused(identified(&hub, call(&hub, &grpc, &method.path), caller).await).await;
            let refusal = refusal.filter(of_the_policy);
            let expected = expected(policy, caller).map(|(code, reason)| (code, reason.to_owned()));
            assert_eq!(refusal, expected, "{} called by {caller:?}", method.path);
            cells += 1;
        }
    }
    assert!(cells >= 27 * CALLERS.len(), "{cells} cells");
}

/// A path with something in place of its variables.
fn path(template: &str, id: &str) -> String {
    let fill = |segment: &str| match segment {
        "{plan_id}" => "1".to_owned(),
        "{feature}" => "local_rendering".to_owned(),
        "{kind}" => "probe".to_owned(),
        variable if variable.starts_with('{') => id.to_owned(),
        literal => literal.to_owned(),
    };
    template.split('/').map(fill).collect::<Vec<_>>().join("/")
}

async fn over_http(hub: &TestHub, http: &Http, method: &Method, caller: Caller) {
    let policy = method.policy.as_ref().unwrap();
    // Over HTTP a call of nobody's to where webhooks are taken is a webhook without a signature.
    let expected = match caller {
        // Where the bytes are somebody's own, their proof is all that counts.
        _ if policy.raw_body => Some((Code::Unauthenticated, "INVALID_SIGNATURE")),
        Nobody if policy.webhook.is_some() => Some((Code::Unauthenticated, "INVALID_SIGNATURE")),
        caller => expected(policy, caller),
    };
    for binding in &method.bindings {
        let url = hub.url(&path(&binding.template, &Uuid::now_v7().to_string()));
        let request = identified(hub, http.request(binding.verb.parse().unwrap(), url), caller).await;
        if method.server_streaming && expected.is_none() {
            // It begins and goes on; what it says is another test's.
            assert_eq!(request.send().await.unwrap().status(), 200, "{} called by {caller:?}", binding.template);
            continue;
        }
        let (code, answer) = harness::json(request).await;
        let said = match code {
            401 => Some((Code::Unauthenticated, answer["error"]["reason"].as_str().unwrap_or_default())),
            403 => Some((Code::PermissionDenied, answer["error"]["reason"].as_str().unwrap_or_default())),
            _ => None,
        };
        assert_eq!(said, expected, "{} {} called by {caller:?}: {answer}", binding.verb, binding.template);
        assert_eq!(answer["success"], Value::from((200..300).contains(&code)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_admits_over_http_whom_the_policy_of_its_rpc_names_and_nobody_else() {
    let (hub, http) = (TestHub::start().await, Http::new());
    for method in UPBRIDGE.methods() {
        for caller in CALLERS {
            over_http(&hub, &http, method, caller).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_does_not_exist_admits_nobody() {
    let (hub, grpc) = (TestHub::start().await, grpc());
    for path in ["/upbridge.v1.UserService/Nothing", "/upbridge.v1.NoService/ListUsers"] {
        let request = identified(&hub, call(&hub, &grpc, path), Admin).await;
        assert_eq!(refused(request).await.unwrap().0, Code::Unimplemented, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_brings_one_credential_and_in_a_form_that_is_known() {
    let (hub, grpc, http) = (TestHub::start().await, grpc(), Http::new());
    let member = hub.member().await;
    let bearer = format!("Bearer {}", member.token);
    let both: &[_] = &[("authorization", &*bearer), ("x-api-key", SERVICE_KEY)];
    let basic: &[_] = &[("authorization", "Basic YWRtaW46YWRtaW4=")];
    let bare: &[_] = &[("authorization", &*member.token)];
    let empty: &[_] = &[("authorization", "Bearer ")];
    for headers in [both, basic, bare, empty] {
        // A public rpc needs no credential, and still does not overlook a bad one.
        for (rpc, path) in [
            ("/upbridge.v1.AuthService/GetMe", "/api/v1/client/auth/me"),
            ("/upbridge.v1.MembershipService/ListPlans", "/api/v1/client/membership/plans"),
        ] {
            let with = |request: RequestBuilder| {
                headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
            };
            let bad = Some((Code::Unauthenticated, "INVALID_CREDENTIALS".to_owned()));
            assert_eq!(refused(with(call(&hub, &grpc, rpc))).await, bad, "{rpc} {headers:?}");
            let (code, answer) = harness::json(with(http.get(hub.url(path)))).await;
            assert_eq!((code, &answer["error"]["reason"]), (401, &"INVALID_CREDENTIALS".into()), "{path} {headers:?}");
        }
    }
    let spelled =
        http.get(hub.url("/api/v1/client/auth/me")).header("authorization", format!("bearer  {}", member.token));
    assert_eq!(harness::json(spelled).await.0, 200, "a scheme is a scheme in any case");
}

fn token(token: &str) -> v1::VerifyTokenRequest {
    v1::VerifyTokenRequest { token: Some(token.into()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_from_the_header_the_body_or_both_when_they_are_one() {
    let hub = TestHub::start().await;
    let (member, other) = (hub.subscriber(2).await, hub.member().await);
    let (nobody, service) = (hub.client().await, hub.service().await);
    let none = v1::VerifyTokenRequest { token: None };
    let mut answers = Vec::new();
    for (client, request) in [
        (&member.client, none.clone()),
        (&member.client, token("")),
        (&member.client, token(&member.token)),
        (&nobody, token(&member.token)),
        (&service, token(&member.token)),
        (&nobody.with_bearer(SERVICE_KEY), token(&member.token)),
    ] {
        let mut answer = client.user_sync().verify_token(request).await.unwrap().into_inner();
        // It may be noted between one answer and the next.
        answer.user.as_mut().unwrap().last_creatorup_access = None;
        answers.push(answer);
    }
    assert!(answers[0].valid && answers[0].has_access);
    assert_eq!(answers[0].user.as_ref().unwrap().id, member.id);
    assert_eq!(answers[0].token_expires_at, harness::at("2026-03-16T12:00:00Z"));
    assert!(answers.iter().all(|answer| *answer == answers[0]));

    assert_eq!(fault(member.client.user_sync().verify_token(token(&other.token)).await), "token");
    assert_eq!(fault(member.client.user_sync().verify_token(token("nonsense")).await), "token");
    let http = Http::new().post(hub.url("/api/v1/client/creatorup/verify")).bearer_auth(&member.token);
    let (code, answer) = harness::json(http.json(&serde_json::json!({ "token": other.token }))).await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &"token".into()));

    let invalid = (Code::Unauthenticated, "INVALID_CREDENTIALS".to_owned());
    let missing = (Code::Unauthenticated, "MISSING_CREDENTIALS".to_owned());
    for client in [&nobody, &service] {
        assert_eq!(refusal(client.user_sync().verify_token(token("nonsense")).await), invalid);
        assert_eq!(refusal(client.user_sync().verify_token(token("")).await), missing);
        assert_eq!(refusal(client.user_sync().verify_token(none.clone()).await), missing);
    }
    assert_eq!(refusal(nobody.user_sync().verify_token(token(SERVICE_KEY)).await), invalid, "a key is no token");
    let bad = nobody.with_bearer("not.a.token");
    assert_eq!(
        refusal(bad.user_sync().verify_token(token(&member.token)).await),
        invalid,
        "no body mends a bad header"
    );
    // Only the rpc that says so reads a token from its body.
    let answer =
        harness::json(Http::new().get(hub.url(&format!("/api/v1/creatorup/access?token={}", member.token)))).await;
    assert!((400..=401).contains(&answer.0), "{answer:?}");
}
