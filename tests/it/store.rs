//! The database fails, is empty, or is misconfigured: callers are told to try again, what was answered stays, and the
//! hub recovers by itself.

use std::process::{Command, Output};
use std::time::Duration;

use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use tokio::time::timeout;
use upbridge_client::health::{HealthCheckRequest, health_check_response::ServingStatus};
use upbridge_client::{Client, Code, Request, RetryPolicy, v1};

use crate::harness::{
    HubProcess, MEMBER_PASSWORD, Setup, TestDatabase, TestHub, eventually, keyed, record, register, total, usage,
};

/// Nothing a test waits for takes this long.
const LONG: Duration = Duration::from_secs(30);

/// A client that takes the first answer for the answer.
async fn impatient(url: String, token: &str) -> Client {
    let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    Client::builder(url).retry(once).call_timeout(LONG).connect().await.unwrap().with_bearer(token)
}

fn within(time: Duration, message: v1::RecordUsageRequest) -> Request<v1::RecordUsageRequest> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_delays_writes_alone_and_they_go_on_when_it_is_free() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let client = impatient(hub.url(""), &member.token).await;
    client.usage().record_usage(record(usage("before"))).await.unwrap();
    let holder = hub.database.connect().await;
    let lock = match hub.database.is_postgres() {
        true => "BEGIN; LOCK TABLE creatorup_usage IN EXCLUSIVE MODE",
        false => "BEGIN IMMEDIATE",
    };
    holder.execute_unprepared(lock).await.unwrap();
    let late = client.usage().record_usage(within(Duration::from_millis(300), record(usage("late")))).await;
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    // Reads go to the database, past every cache.
    let listed = client.usage().list_usage(v1::ListUsageRequest::default()).await.unwrap().into_inner().usage;
    assert_eq!((listed.len(), total(&client, "2024-01").await), (1, 0));
    assert!(reqwest::get(hub.url("/healthz")).await.unwrap().status().is_success());
    if !hub.database.is_postgres() {
        // SQLite gives up by itself, and says that trying again may help.
        let body =
            json!({ "usage_data": { "batch_name": "b", "batch_type": "video", "usage_type": "local_rendering" } });
        let request = reqwest::Client::new().post(hub.url("/api/v1/creatorup/sync/usage")).bearer_auth(&member.token);
        let answer = timeout(LONG, request.json(&body).send()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 503);
        let answer: Value = answer.json().await.unwrap();
        let error = &answer["error"];
        assert_eq!((&error["code"], &error["reason"]), (&json!("UNAVAILABLE"), &json!("STORE_UNAVAILABLE")));
        assert!(
            !answer.to_string().contains("lock"),
            "how the hub keeps things is not the caller's business: {answer}"
        );
    }
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.usage().record_usage(record(usage("patient"))).await });
    holder.execute_unprepared("ROLLBACK").await.unwrap();
    timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    client.usage().record_usage(record(usage("after"))).await.unwrap();
    let names = async || {
        let listed = client.usage().list_usage(v1::ListUsageRequest::default()).await.unwrap().into_inner().usage;
        listed.into_iter().map(|usage| usage.batch_name).filter(|name| name != "late").collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["after", "patient", "before"], "a write nobody waited for may still be made");
    holder.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_keeps_what_was_answered_and_lets_reads_go_on() {
    let database = TestDatabase::new().await;
    if database.is_postgres() {
        return; // The disk is the server's there.
    }
    let plain = HubProcess::command(&database);
    let mut command = Command::new("/bin/sh");
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LOG_DIR", "off");
    // No file may grow beyond 2 MiB, and a write that would is an error like that of a full disk.
    command.args(["-c", "ulimit -S -f 4096; exec \"$0\" serve"]).arg(plain.get_program());
    let mut hub = HubProcess::run(command.current_dir(database.directory.path()));
    let member = register(&hub.client().await, Some(2)).await;
    let client = impatient(hub.url(""), &member.token).await;
    let mut recorded = 0;
    // All of one month, however late it is in this one.
    let month_year = Some("2024-01".to_owned());
    let large = |key: &str| {
        let fields = [("text".to_owned(), "x".repeat(50_000).into())].into_iter().collect();
        let (month_year, metadata) = (month_year.clone(), Some(prost_types::Struct { fields }));
        keyed(key, v1::UsageData { month_year, metadata, ..usage(key) })
    };
    let refused = loop {
        match client.usage().record_usage(large(&recorded.to_string())).await {
            Ok(_) => recorded += 1,
            Err(refused) => break refused,
        }
        assert!(recorded < 1000, "the disk is never full");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(upbridge_client::reason(&refused).as_deref(), Some("STORE_UNAVAILABLE"));
    assert_eq!((recorded > 0, total(&client, "2024-01").await), (true, recorded));
    let listed = client.usage().list_usage(v1::ListUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.usage.len() as i64, recorded.min(50));
    assert!(reqwest::get(hub.url("/healthz")).await.unwrap().status().is_success());
    assert!(hub.is_running());
    // With room again the same process goes on writing, and what it writes is there for others to see.
    let room = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &hub.id().to_string()]).status().unwrap();
    assert!(room.success());
    client.usage().record_usage(large("more")).await.unwrap();
    assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, recorded + 1);
    // Not even after a transaction that had to be undone: the user is gone, and only the database knows.
    let undone = async || {
        let victim = register(&hub.client().await, Some(2)).await;
        victim.client.usage().record_usage(record(usage("cached"))).await.unwrap();
        let connection = database.connect().await;
        connection.execute_unprepared(&format!("DELETE FROM users WHERE email = '{}'", victim.email)).await.unwrap();
        connection.close().await.unwrap();
        victim.client.usage().record_usage(record(usage("undone"))).await.unwrap_err()
    };
    eventually("a write is undone", async || {
        // On a slow machine the hub may have asked the database again who calls, before it came to the write.
        let undone = undone().await;
        assert!([Code::NotFound, Code::Unauthenticated].contains(&undone.code()), "{undone}");
        undone.code() == Code::NotFound
    })
    .await;
    client.usage().record_usage(large("after")).await.unwrap();
    assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, recorded + 2);
    hub.kill();
    let hub = HubProcess::start(&database);
    let client = impatient(hub.url(""), &member.token).await;
    for key in (0..recorded).map(|key| key.to_string()).chain(["more".to_owned(), "after".to_owned()]) {
        let again = client.usage().record_usage(large(&key)).await.unwrap().into_inner();
        assert!(again.duplicate, "{key} was lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_and_comes_back_needs_no_restart() {
    let Ok(server) = std::env::var("TEST_POSTGRES_URL") else { return }; // A file does not go away.
    let hub = Setup::default().set("HEALTH_CHECK_INTERVAL", "50").start().await;
    let member = hub.subscriber(2).await;
    let client = impatient(hub.url(""), &member.token).await;
    client.usage().record_usage(record(usage("before"))).await.unwrap();
    let mut watch = client.health().watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    let mut told = async || timeout(LONG, watch.message()).await.unwrap().unwrap().unwrap().status();
    assert_eq!(told().await, ServingStatus::Serving);
    let name = hub.database.url.rsplit('/').next().unwrap().to_owned();
    let operator = Database::connect(&server).await.unwrap();
    let allow = async |allowed: bool| {
        operator.execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")).await.unwrap();
    };
    allow(false).await;
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    operator.execute_unprepared(&kill).await.unwrap();
    assert_eq!(told().await, ServingStatus::NotServing);
    let refused = client.usage().record_usage(record(usage("lost"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(upbridge_client::reason(&refused).as_deref(), Some("STORE_UNAVAILABLE"));
    assert!(!refused.message().contains(&name), "{refused}");
    let health = reqwest::get(hub.url("/healthz")).await.unwrap();
    assert_eq!(health.status(), 503);
    let health: Value = health.json().await.unwrap();
    assert_eq!((&health["status"], &health["database"]["status"]), (&json!("not_serving"), &json!("down")));
    allow(true).await;
    assert_eq!(told().await, ServingStatus::Serving);
    let recorded = async || client.usage().record_usage(record(usage("after"))).await.is_ok();
    eventually("writes are made again", recorded).await;
    let listed = client.usage().list_usage(v1::ListUsageRequest::default()).await.unwrap().into_inner().usage;
    assert_eq!(listed.iter().map(|usage| usage.batch_name.as_str()).collect::<Vec<_>>(), ["after", "before"]);
    operator.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_spoiled_write_of_many_made_together_fails_alone() {
    let hub = TestHub::start().await;
    let client = hub.client().await;
    let sessions = "SELECT COUNT(*) FROM sessions";
    let sessions_before = hub.database.count(sessions).await;
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(32));
    let calls: Vec<_> = (0..32)
        .map(|caller| {
            let (client, start) = (client.clone(), start.clone());
            tokio::spawn(async move {
                // The last two want the same address, in another case.
                let email =
                    if caller < 30 { format!("caller-{caller}@test.example") } else { "Same@test.example".into() };
                let email = if caller == 31 { email.to_lowercase() } else { email };
                let request = v1::RegisterRequest {
                    email,
                    password: MEMBER_PASSWORD.into(),
                    plan_id: Some(1),
                    ..Default::default()
                };
                start.wait().await;
                client.auth().register(request).await.map(drop)
            })
        })
        .collect();
    let (mut registered, mut refused) = (0, Vec::new());
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => registered += 1,
            Err(status) => refused.push((status.code(), upbridge_client::reason(&status))),
        }
    }
    assert_eq!((registered, refused), (31, vec![(Code::AlreadyExists, Some("ALREADY_EXISTS".to_owned()))]));
    let same = "SELECT COUNT(*) FROM users WHERE email = 'same@test.example'";
    assert_eq!(hub.database.count(same).await, 1);
    // Each with all of it; the administrator has no subscription.
    assert_eq!(hub.database.count(sessions).await - sessions_before, 31);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM user_subscriptions").await, 31);
    let events = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'subscription_sync'";
    assert_eq!(hub.database.count(events).await, 31);
}

/// Variables set or removed, and the names that are then complained of.
type Misconfigured<'a> = (&'a [(&'a str, Option<&'a str>)], &'a [&'a str]);

fn upbridge(database: &TestDatabase, arguments: &[&str]) -> Output {
    HubProcess::command(database).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_are_listed_applied_once_and_undone() {
    let database = TestDatabase::new().await;
    let standing = || {
        let status: Value = serde_json::from_str(&out(&upbridge(&database, &["migrate", "status", "--json"]))).unwrap();
        let migrations = status.as_array().unwrap().iter();
        migrations.map(|one| (one["name"].as_str().unwrap().to_owned(), one["applied"].as_bool().unwrap())).collect()
    };
    let tables = async || {
        let tables = match database.is_postgres() {
            true => "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'",
            false => "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'",
        };
        database.count(tables).await
    };
    let pending: Vec<(String, bool)> = standing();
    assert!(pending.len() >= 3 && pending.iter().all(|(_, applied)| !applied), "{pending:?}");
    assert_eq!(tables().await, 0, "asking changes nothing");
    for _ in 0..2 {
        out(&upbridge(&database, &["migrate", "up"]));
        let applied: Vec<(String, bool)> = standing();
        assert!(applied.iter().all(|(_, applied)| *applied) && applied.len() == pending.len(), "{applied:?}");
    }
    let listed = out(&upbridge(&database, &["migrate", "status"]));
    let expected: Vec<String> = pending.iter().map(|(name, _)| format!("applied {name}")).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let refused = upbridge(&database, &["migrate", "down"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--yes"));
    out(&upbridge(&database, &["migrate", "down", "--yes"]));
    let one_less: Vec<(String, bool)> = standing();
    assert_eq!(one_less.iter().filter(|(_, applied)| !applied).count(), 1, "one step is the default");
    out(&upbridge(&database, &["migrate", "down", "--steps", &pending.len().to_string(), "--yes"]));
    assert_eq!(Vec::from_iter(standing()), pending);
    assert_eq!(tables().await, 1, "only the list of migrations is left");
    // And from nothing to a hub that works.
    let hub = HubProcess::start(&database);
    register(&hub.client().await, Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_named_and_its_values_are_not_shown() {
    let database = TestDatabase::new().await;
    let unreachable = "postgres://ana:hunter2@127.0.0.1:9/hub";
    let cases: [Misconfigured; 7] = [
        (&[("PORT", Some("hunter2"))], &["PORT"]),
        (&[("UPBRIDGE_NONSENSE", Some("hunter2"))], &["UPBRIDGE_NONSENSE"]),
        (&[("DATABASE_URL", Some("mysql://ana:hunter2@host/hub"))], &["DATABASE_URL"]),
        (&[("DATABASE_URL", Some(unreachable))], &[]),
        (
            &[("RATE_LIMIT_USER", Some("hunter2")), ("GRPC_REFLECTION", Some("hunter2"))],
            &["RATE_LIMIT_USER", "GRPC_REFLECTION"],
        ),
        (
            &[("UPBRIDGE_ENV", Some("production")), ("JWT_SECRET", None), ("CREATORUP_API_KEY", None)],
            &["JWT_SECRET", "CREATORUP_API_KEY"],
        ),
        (&[("UPBRIDGE_ENV", Some("production")), ("JWT_SECRET", Some("hunter2"))], &["JWT_SECRET"]),
    ];
    for (variables, named) in cases {
        let mut command = HubProcess::command(&database);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{variables:?}");
        assert!(named.iter().all(|name| text.contains(name)), "{variables:?}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("panicked"), "{variables:?}: {text}");
    }
}
