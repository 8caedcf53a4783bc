//! What the log files tell, and what they never do.

use std::collections::HashMap;

use serde_json::Value;
use upbridge_client::v1;

use crate::harness::{
    ADMIN_PASSWORD, HubProcess, JWT_SECRET, MEMBER_PASSWORD, SERVICE_KEY, TestDatabase, record, register, usage,
};

/// A hub that has logged everything it can, and its log files by name.
async fn logged(work: impl AsyncFnOnce(&HubProcess)) -> HashMap<String, String> {
    let database = TestDatabase::new().await;
    let mut command = HubProcess::command(&database);
    let hub = HubProcess::run(command.env("LOG_FORMAT", "json").env("LOG_LEVEL", "trace"));
    work(&hub).await;
    assert_eq!(hub.terminate(), Some(0));
    let files = std::fs::read_dir(database.directory.path().join("logs")).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_a_line_for_every_call_on_either_face() {
    let mut id = String::new();
    let files = logged(async |hub| {
        let member = register(&hub.client().await, Some(2)).await;
        id = member.id.clone();
        let mut over_grpc = tonic::Request::new(record(usage("a")));
        over_grpc.metadata_mut().insert("x-request-id", "over-grpc".parse().unwrap());
        member.client.usage().record_usage(over_grpc).await.unwrap();
        let http = reqwest::Client::new();
        let ask = async |path: &str, id: &str, key: &str| {
            let request = http.get(hub.url(path)).header("x-request-id", id).header("x-api-key", key);
            request.send().await.unwrap().status().as_u16()
        };
        let profile = format!("/api/v1/creatorup/profile?digiup_user_id={}", member.id);
        assert_eq!(ask(&profile, "over-http", SERVICE_KEY).await, 200);
        assert_eq!(ask("/nothing", "nowhere", SERVICE_KEY).await, 404);
    })
    .await;
    let lines: Vec<Value> = files["access.log"].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |id: &str| lines.iter().find(|line| line["request_id"] == id).unwrap_or_else(|| panic!("{id}"));
    let told = |id: &str| {
        let fields = &line(id);
        ["face", "rpc", "code", "caller"].map(|name| fields[name].as_str().unwrap().to_owned())
    };
    assert_eq!(told("over-grpc"), ["grpc", "upbridge.v1.UsageService/RecordUsage", "OK", &id]);
    assert_eq!(told("over-http"), ["http", "upbridge.v1.UserSyncService/GetProfile", "OK", "service"]);
    assert_eq!((told("nowhere"), &line("nowhere")["status"]), (["http", "", "", ""].map(str::to_owned), &404.into()));
    assert_eq!(line("over-http")["path"], "/api/v1/creatorup/profile");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_file() {
    let mut secrets =
        [MEMBER_PASSWORD, ADMIN_PASSWORD, SERVICE_KEY, JWT_SECRET, "a-wrong-password"].map(str::to_owned).to_vec();
    let files = logged(async |hub| {
        let client = hub.client().await;
        let member = register(&client, Some(1)).await;
        let login = |password: &str| v1::LoginRequest { email: member.email.clone(), password: password.into() };
        let token = client.auth().login(login(MEMBER_PASSWORD)).await.unwrap().into_inner().token;
        client.auth().login(login("a-wrong-password")).await.unwrap_err();
        let verify = v1::VerifyTokenRequest { token: Some(token.clone()) };
        hub.service().await.user_sync().verify_token(verify).await.unwrap();
        let http = reqwest::Client::new();
        let verify = |token: &str| serde_json::json!({ "token": token });
        for token in [&token, "a-wrong-password"] {
            let request = http.post(hub.url("/api/v1/creatorup/verify")).bearer_auth(token).json(&verify(token));
            request.send().await.unwrap();
        }
        let login = serde_json::json!({ "email": member.email, "password": "a-wrong-password", "a-wrong-password": 1 });
        http.post(hub.url("/api/v1/client/auth/login")).json(&login).send().await.unwrap();
        secrets.extend([member.token, token]);
    })
    .await;
    assert!(files["access.log"].lines().count() >= 6 && files["app.log"].contains("the hub is serving"));
    for (name, text) in &files {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} has {secret}");
            // The last part of a token alone is what makes it one.
            assert!(!secret.contains('.') || !text.contains(secret.rsplit('.').next().unwrap()), "{name}");
        }
    }
}
