//! The requests as the products' documents print them, sent by curl and by Node to both servers: the eight of DigiUp,
//! the six of CreatorUp, and the three functions.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::pair::{Pair, Setup};
use crate::harness::{MEMBER_PASSWORD, Member, have, total};

/// Both servers, each of which waits for the other, so that an answer that takes its time is still the printed one.
async fn patient() -> Pair {
    Setup::default().both("SYNC_TIMEOUT", "20000").start().await
}

/// Runs one line as it is printed, `VERB /path`, with curl; the status and the JSON of the answer.
async fn curl(base: &str, line: &str, token: &str, body: Option<&Value>) -> (u16, Value) {
    let (verb, path) = line.split_once(' ').unwrap();
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "-w", "\n%{http_code}", "-X", verb]).arg(format!("{base}{path}"));
    if !token.is_empty() {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (answer, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(answer).unwrap_or_else(|_| panic!("{line}: {answer}")))
}

/// The data of a successful answer, which has nothing else in it.
async fn data(base: &str, line: &str, token: &str, body: Option<&Value>) -> Value {
    let (status, mut answer) = curl(base, line, token, body).await;
    assert!((200..300).contains(&status) && answer["success"] == true, "{line}: {status} {answer}");
    assert_eq!(answer.as_object().unwrap().len(), 2, "{line}: the envelope is success and data: {answer}");
    answer["data"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn digiups_requests_answer_as_they_are_printed() {
    if !have("curl") {
        return;
    }
    let pair = patient().await;
    let member = pair.member(None).await;
    let hub = pair.hub().url("");

    let body = json!({ "email": member.email, "password": MEMBER_PASSWORD });
    let session = data(&hub, "POST /api/v1/client/auth/login", "", Some(&body)).await;
    assert_eq!(session["user"]["id"], json!(member.id));
    let token = session["token"].as_str().unwrap();
    let plans = data(&hub, "GET /api/v1/client/membership/plans", "", None).await;
    let plan = &plans["plans"][1];
    assert_eq!((&plan["name"], &plan["price"]), (&json!("Pro"), &json!(299_000)));
    let line = format!("POST /api/v1/client/membership/subscribe/{}", plan["id"]);
    let subscribed = data(&hub, &line, token, None).await;
    assert_eq!(subscribed["subscription"]["status"], "active");
    for body in [None, Some(json!({ "token": token }))] {
        let verified = data(&hub, "POST /api/v1/client/creatorup/verify", token, body.as_ref()).await;
        assert_eq!((&verified["valid"], &verified["has_access"]), (&json!(true), &json!(true)));
    }
    let profile = data(&hub, "GET /api/v1/client/creatorup/profile", token, None).await;
    assert_eq!((&profile["user"]["email"], &profile["plan"]["name"]), (&json!(member.email), &json!("Pro")));
    let access = data(&hub, "GET /api/v1/client/creatorup/access", token, None).await;
    assert_eq!((&access["has_access"], &access["reason"]), (&json!(true), &json!("granted")));
    let line = "GET /api/v1/client/membership/feature/local_rendering/access";
    let access = data(&hub, line, token, None).await;
    assert_eq!((&access["has_access"], &access["limit"], &access["used"]), (&json!(true), &Value::Null, &json!(0)));
    let batch = json!({ "batch_name": "from-curl", "batch_type": "video", "usage_type": "local_rendering" });
    let recorded = data(&hub, "POST /api/v1/client/batch/create", token, Some(&batch)).await;
    assert_eq!((&recorded["outcome"], &recorded["duplicate"]), (&json!("created"), &json!(false)));
    let again = data(&hub, "POST /api/v1/client/batch/create", token, Some(&batch)).await;
    assert_eq!(again["duplicate"], true);
    let month = data(&hub, "GET /api/v1/client/batch/usage/monthly", token, None).await;
    assert_eq!((&month["total"], &month["batches"]), (&json!(1), &json!(1)));
    let (status, refused) = curl(&hub, "GET /api/v1/client/creatorup/profile", "a.b.c", None).await;
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("UNAUTHENTICATED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn creatorups_requests_answer_as_they_are_printed() {
    if !have("curl") {
        return;
    }
    let pair = patient().await;
    let member = pair.member(Some(2)).await;
    let creatorup = pair.creatorup().url("");
    let token = member.token.as_str();

    for body in [None, Some(json!({ "token": token }))] {
        let verified = data(&creatorup, "POST /api/v1/digiup/verify", token, body.as_ref()).await;
        assert_eq!((&verified["valid"], &verified["access_granted"]), (&json!(true), &json!(true)), "{verified}");
        assert_eq!(verified["user"]["digiup_user_id"], json!(member.id));
    }
    let pulled = data(&creatorup, "GET /api/v1/digiup/user/sync", token, None).await;
    let user = &pulled["user"];
    assert_eq!((&user["email"], &user["membership"]["plan"]), (&json!(member.email), &json!("Pro")), "{user}");
    let access = data(&creatorup, "GET /api/v1/digiup/membership/check", token, None).await;
    assert_eq!((&access["has_access"], &access["feature"]), (&json!(true), &json!("local_rendering")));
    let line = "GET /api/v1/digiup/membership/check?feature=cloud_rendering";
    let access = data(&creatorup, line, token, None).await;
    assert_eq!((&access["limit"], &access["remaining"]), (&json!(100), &json!(100)), "{access}");
    let asked = json!({ "name": "from-curl", "type": "video", "metadata": { "video_count": 5 } });
    let (status, created) = curl(&creatorup, "POST /api/v1/batch/create", token, Some(&asked)).await;
    let batch = &created["data"]["batch"];
    assert_eq!((status, &batch["name"], &batch["status"]), (201, &json!("from-curl"), &json!("pending")), "{created}");
    assert_eq!((&batch["usage_reported"], &batch["metadata"]), (&json!(true), &json!({ "video_count": 5 })));
    let (status, refused) =
        curl(&creatorup, "POST /api/v1/video/process", token, Some(&json!({ "batch_id": batch["id"] }))).await;
    assert_eq!(refused["error"]["code"], "FAILED_PRECONDITION", "{status}: there is nothing to render: {refused}");
    let month = data(&creatorup, "GET /api/v1/usage/monthly", token, None).await;
    assert_eq!((&month["total"], &month["is_reported"]), (&json!(1), &json!(true)), "{month}");
    let printed = [
        "POST /api/v1/digiup/verify",
        "GET /api/v1/digiup/user/sync",
        "GET /api/v1/digiup/membership/check",
        "POST /api/v1/batch/create",
        "POST /api/v1/video/process",
        "GET /api/v1/usage/monthly",
    ];
    let bodies =
        [("batch/create", json!({ "name": "nobody's" })), ("video/process", json!({ "batch_id": batch["id"] }))];
    for line in printed {
        let body = bodies.iter().find(|(path, _)| line.ends_with(path)).map(|(_, body)| body);
        for token in ["", "a.b.c"] {
            let (status, refused) = curl(&creatorup, line, token, body).await;
            assert_eq!((status, &refused["error"]["code"]), (401, &json!("UNAUTHENTICATED")), "{line} {refused}");
        }
    }
    assert_eq!(pair.agree(&member).await, (1, 1));
}

/// The three functions, byte for byte.
const PRINTED: &str = r#"
const verifyDigiUpToken = async (token) => {
  const response = await fetch('https://api.digiup.com/api/v1/client/creatorup/verify', {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${token}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify({ token })
  });
  return response.json();
};

const checkMembership = async (token) => {
  const response = await fetch('https://api.digiup.com/api/v1/client/membership/feature/local_rendering/access', {
    method: 'GET',
    headers: {
      'Authorization': `Bearer ${token}`
    }
  });
  return response.json();
};

const recordBatchUsage = async (token, batchData) => {
  const response = await fetch('https://api.digiup.com/api/v1/client/batch/create', {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${token}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify(batchData)
  });
  return response.json();
};
"#;

/// Before them: the host leads to the hub of the test.
const HOST: &str = r#"
const nodes = globalThis.fetch;
globalThis.fetch = (url, options) => nodes(url.replace('https://api.digiup.com', process.env.HUB), options);
"#;

/// After them: each is called once, the last one twice.
const CALLS: &str = r#"
const token = process.env.TOKEN;
const batch = { batch_name: 'from-node', batch_type: 'video', usage_type: 'local_rendering', metadata: { video_count: 5 } };
const answers = [await verifyDigiUpToken(token), await checkMembership(token)];
answers.push(await recordBatchUsage(token, batch), await recordBatchUsage(token, batch));
console.log(JSON.stringify(answers));
"#;

async fn node(pair: &Pair, member: &Member) -> Value {
    let mut command = Command::new("node");
    command.args(["--input-type=module", "-"]).env("HUB", pair.hub().url("")).env("TOKEN", &member.token);
    let mut node = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let script = format!("{HOST}{PRINTED}{CALLS}");
    node.stdin.take().unwrap().write_all(script.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), node.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_functions_work_unchanged_with_nodes_own_fetch() {
    if !have("node") {
        return;
    }
    let pair = patient().await;
    let member = pair.member(Some(2)).await;
    let answers = node(&pair, &member).await;
    let [verified, access, recorded, again] = answers.as_array().unwrap().as_slice() else { panic!("{answers}") };
    assert_eq!((&verified["data"]["valid"], &verified["data"]["user"]["id"]), (&json!(true), &json!(member.id)));
    assert_eq!((&access["data"]["has_access"], &access["data"]["feature"]), (&json!(true), &json!("local_rendering")));
    assert_eq!((&recorded["data"]["outcome"], &again["data"]["duplicate"]), (&json!("created"), &json!(true)));
    assert_eq!(recorded["data"]["usage"]["metadata"].to_string(), r#"{"video_count":5}"#);
    assert_eq!(
        total(&pair.as_member(&member).await, recorded["data"]["usage"]["month_year"].as_str().unwrap()).await,
        1
    );
}
