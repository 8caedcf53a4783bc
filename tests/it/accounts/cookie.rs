//! The administrators' session cookie: for their own pages on this site, and for nothing else.

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, MEMBER_PASSWORD, Member, TestHub, json};

async fn login(hub: &TestHub, email: &str, password: &str) -> reqwest::Response {
    let body = serde_json::json!({ "email": email, "password": password });
    Client::new().post(hub.url("/api/v1/client/auth/login")).json(&body).send().await.unwrap()
}

/// The first administrator's cookie, as a browser sends it back.
async fn cookie(hub: &TestHub) -> String {
    let answer = login(hub, ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

fn update(hub: &TestHub, member: &Member) -> RequestBuilder {
    let path = format!("/api/admin/users/{}", member.id);
    Client::new().put(hub.url(&path)).json(&serde_json::json!({ "name": "Changed" }))
}

/// The status of an answer, and the reason when it is a refusal.
async fn said(request: RequestBuilder) -> (u16, Value) {
    let (code, answer) = json(request).await;
    (code, answer["error"]["reason"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_sets_the_cookie_of_an_administrator_and_signing_out_takes_it_back() {
    let hub = TestHub::start().await;
    let answer = login(&hub, ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let token = answer.json::<Value>().await.unwrap()["data"]["token"].as_str().unwrap().to_owned();
    assert_eq!(set, format!("upbridge_session={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400"));
    let member = hub.member().await;
    let answer = login(&hub, &member.email, MEMBER_PASSWORD).await;
    assert!(!answer.headers().contains_key("set-cookie"), "a member has no pages to see");

    let users = || Client::new().get(hub.url("/api/admin/users")).header("cookie", format!("upbridge_session={token}"));
    assert_eq!(said(users()).await.0, 200);
    let logout = Client::new().post(hub.url("/api/v1/client/auth/logout")).bearer_auth(&token).send().await.unwrap();
    assert!(logout.headers()["set-cookie"].to_str().unwrap().starts_with("upbridge_session=; "));
    assert_eq!(said(users()).await, (401, "SESSION_REVOKED".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_serves_on_administrators_paths_over_http_and_nowhere_else() {
    let hub = TestHub::start().await;
    let (cookie, member) = (cookie(&hub).await, hub.member().await);
    // As curl sends it: no Origin, no Sec-Fetch-Site, and other cookies beside it.
    let users = Client::new().get(hub.url("/api/admin/users"));
    assert_eq!(said(users.header("cookie", format!("theme=dark; {cookie}; a=b"))).await.0, 200);
    assert_eq!(said(update(&hub, &member).header("cookie", &cookie)).await.0, 200);
    let missing = (401, Value::from("MISSING_CREDENTIALS"));
    for path in ["/api/v1/client/auth/me", "/api/v1/creatorup/profile", "/api/v1/client/auth/sessions"] {
        assert_eq!(said(Client::new().get(hub.url(path)).header("cookie", &cookie)).await, missing, "{path}");
    }
    let grpc = Client::builder().http2_prior_knowledge().build().unwrap();
    let call = grpc.post(hub.url("/upbridge.v1.UserService/ListUsers")).header("content-type", "application/grpc");
    let answer = call.header("cookie", &cookie).body(vec![0; 5]).send().await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "16", "gRPC knows no cookie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_another_site_makes_a_browser_send_is_refused() {
    let hub = TestHub::start().await;
    let (cookie, member) = (cookie(&hub).await, hub.member().await);
    let (own, https) = (format!("http://{}", hub.address), format!("https://{}", hub.address));
    let requests = || {
        [Client::new().get(hub.url("/api/admin/users")), update(&hub, &member)].map(|one| one.header("cookie", &cookie))
    };
    let foreign = [
        ("origin", "https://evil.example"),
        ("origin", "https://app.digiup.com"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for (name, value) in foreign {
        for request in requests() {
            let refused = said(request.header(name, value)).await;
            assert_eq!(refused, (403, "CROSS_SITE_REQUEST".into()), "{name}: {value}");
        }
    }
    let unchanged = hub.database.texts("SELECT name FROM users WHERE name = 'Changed'").await;
    assert!(unchanged.is_empty());
    let own = [("origin", &*own), ("origin", &*https), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")];
    for (name, value) in own {
        for request in requests() {
            assert_eq!(said(request.header(name, value)).await.0, 200, "{name}: {value}");
        }
    }
    // A browser sends a bearer token only when the page itself holds it, so the other site proves that it may.
    let token = cookie.split_once('=').unwrap().1;
    let users = Client::new().get(hub.url("/api/admin/users")).bearer_auth(token);
    assert_eq!(said(users.header("origin", "https://app.digiup.com")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_judged_like_the_token_it_holds() {
    let hub = TestHub::start().await;
    let (good, member) = (cookie(&hub).await, hub.member().await);
    let users = |cookie: &str| Client::new().get(hub.url("/api/admin/users")).header("cookie", cookie);
    let member = format!("upbridge_session={}", member.token);
    assert_eq!(said(users(&member)).await, (403, "PRINCIPAL_NOT_ALLOWED".into()));
    assert_eq!(said(users("upbridge_session=nonsense")).await, (401, "INVALID_CREDENTIALS".into()));
    assert_eq!(said(users("upbridge_session=")).await, (401, "MISSING_CREDENTIALS".into()));
    // A header is what the caller meant; a bad one is not made good by a cookie.
    assert_eq!(said(users(&good).bearer_auth("nonsense")).await, (401, "INVALID_CREDENTIALS".into()));
    hub.clock.advance(chrono::TimeDelta::hours(24));
    assert_eq!(said(users(&good)).await, (401, "TOKEN_EXPIRED".into()));
}
