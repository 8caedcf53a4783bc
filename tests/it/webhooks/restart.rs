//! PostgreSQL is restarted, and crashes, while webhooks arrive and are applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tonic::Code;
use upbridge_client::v1;

use super::{USAGE, batch, logged, records, signed};
use crate::harness::{self, HubProcess, PostgresServer, eventually, register, within};

/// What senders have seen.
#[derive(Default)]
struct Seen {
    taken: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
}

/// Sends one webhook after the other, each until it is taken; answers with how many were.
async fn send(url: String, member_id: String, sender: usize, seen: Arc<Seen>) -> Vec<String> {
    let http = reqwest::Client::new();
    let mut taken = Vec::new();
    while !seen.over.load(Ordering::Relaxed) {
        let name = format!("s{sender}-{}", taken.len());
        let body = batch(&member_id, &name).to_string();
        loop {
            let request = http.post(&url).headers(signed(body.as_bytes())).body(body.clone());
            let (code, answer) = harness::json(request.header("content-type", "application/json")).await;
            match code {
                200 => break,
                503 => drop(tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>()).await),
                _ => panic!("{code}: {answer}"),
            }
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.push(name);
        seen.taken.fetch_add(1, Ordering::Relaxed);
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_restarts_and_crashes_under_load_loses_nothing_and_needs_no_restart_of_the_hub() {
    let Some(server) = PostgresServer::start() else { return };
    let database = server.database();
    let mut command = HubProcess::command(&database);
    let mut hub = HubProcess::run(command.env("QUEUE_HEARTBEAT_INTERVAL", "500"));
    let member = register(&hub.client().await, Some(2)).await;
    let seen = Arc::new(Seen::default());
    let senders: Vec<_> =
        (0..8).map(|sender| tokio::spawn(send(hub.url(USAGE), member.id.clone(), sender, seen.clone()))).collect();
    for mode in ["immediate", "fast", "immediate", "fast"] {
        let before = seen.taken.load(Ordering::Relaxed);
        eventually("webhooks are taken", async || seen.taken.load(Ordering::Relaxed) >= before + 60).await;
        server.restart(mode);
    }
    let before = seen.taken.load(Ordering::Relaxed);
    eventually("webhooks are taken again", async || seen.taken.load(Ordering::Relaxed) >= before + 60).await;
    seen.over.store(true, Ordering::Relaxed);
    let mut taken = Vec::new();
    for sender in senders {
        taken.extend(sender.await.expect("every answer is 200 or 503"));
    }
    let all = taken.len() as i64;
    eprintln!("{all} webhooks were taken, {} tries were refused", seen.refused.load(Ordering::Relaxed));
    assert!(seen.refused.load(Ordering::Relaxed) > 0, "nobody noticed the restarts");
    let client = hub.client().await.with_bearer(&member.token);
    // The first read over each connection that a restart has cut is refused; whoever asks again is answered.
    within(Duration::from_secs(60), "all are applied", async || {
        let month = v1::GetMonthlyUsageRequest { month_year: Some("2024-01".into()), ..Default::default() };
        match client.usage().get_monthly_usage(month).await {
            Ok(answer) => answer.into_inner().total == all,
            Err(status) if status.code() == Code::Unavailable => false,
            Err(status) => panic!("a total: {status}"),
        }
    })
    .await;
    eventually("no job is left", async || database.count("SELECT COUNT(*) FROM jobs").await == 0).await;
    assert_eq!((records(&database, &member).await, logged(&database, "processed").await), (all, all));
    let left = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'usage_sync' AND status <> 'completed'";
    assert_eq!(database.count(left).await, 0);
    // The names are those that were sent, each once.
    let mut stored = database.texts("SELECT batch_name FROM creatorup_usage").await;
    stored.sort_unstable();
    taken.sort_unstable();
    assert_eq!(stored, taken);
    let drifted = "SELECT COALESCE(CAST(SUM(ABS(total)) AS BIGINT), 0) FROM (SELECT SUM(count) AS total FROM tallies \
                   WHERE metric = 'jobs' AND label NOT LIKE '%.done' GROUP BY label) AS totals";
    assert_eq!(database.count(drifted).await, 0, "the running counts drifted from the rows");
    assert!(hub.is_running());
}
