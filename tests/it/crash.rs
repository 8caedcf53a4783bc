//! A real process is killed under load: what was acknowledged is there, and nothing is there twice.

use std::collections::BTreeMap;

use upbridge_client::v1;

use crate::harness::{HubProcess, TestDatabase, connect, keyed, register, total, usage};

const CALLERS: usize = 16;
const KILLS: usize = 3;
/// All of one month, however late it is in this one.
const MONTH: &str = "2024-01";

fn report(key: &str) -> v1::RecordUsageRequest {
    keyed(key, v1::UsageData { month_year: Some(MONTH.into()), ..usage(key) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_under_load_loses_no_acknowledged_record_and_doubles_none() {
    let database = TestDatabase::new().await;
    let mut hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    let mut sent = 0;
    for round in 0..KILLS {
        let client = hub.client().await.with_bearer(&member.token);
        let (told, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (client, told) = (client.clone(), told.clone());
                tokio::spawn(async move {
                    let mut sent = 0;
                    loop {
                        let key = format!("{round}-{caller}-{sent}");
                        sent += 1;
                        match client.usage().record_usage(report(&key)).await {
                            Ok(answer) => drop(told.send((key, answer.into_inner().usage_id))),
                            Err(_killed) => return sent,
                        }
                    }
                })
            })
            .collect();
        drop(told);
        // Enough acknowledged to know that the kill comes in the middle of the load.
        let target = acknowledged.len() + 200;
        while acknowledged.len() < target {
            let (key, id) = reports.recv().await.expect("the hub is up");
            acknowledged.insert(key, id);
        }
        hub.kill();
        for caller in callers {
            sent += caller.await.unwrap();
        }
        while let Some((key, id)) = reports.recv().await {
            acknowledged.insert(key, id);
        }
        hub = HubProcess::start(&database);
    }
    let client = hub.client().await.with_bearer(&member.token);
    let month = v1::GetMonthlyUsageRequest { month_year: Some(MONTH.into()), ..Default::default() };
    let now = client.usage().get_monthly_usage(month).await.unwrap().into_inner();
    let stored = database.count("SELECT COUNT(*) FROM creatorup_usage").await;
    let keys = database.count("SELECT COUNT(DISTINCT idempotency_key) FROM creatorup_usage").await;
    let events = database.count("SELECT COUNT(*) FROM sync_events WHERE event_type = 'usage_sync'").await;
    assert_eq!(stored, keys, "no key is stored twice");
    assert!(
        stored >= acknowledged.len() as i64 && stored <= sent,
        "{stored} stored, {} acknowledged, {sent} sent",
        acknowledged.len()
    );
    assert_eq!((now.batches, now.total, events), (stored, stored, stored), "sums and events went with the records");
    // Sending everything acknowledged again finds every record under the id that was answered.
    for (key, id) in &acknowledged {
        let again = client.usage().record_usage(report(key)).await.unwrap().into_inner();
        assert!(again.duplicate && again.usage_id == *id, "{key} was lost");
    }
    assert_eq!(total(&client, MONTH).await, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_told_to_stop_ends_with_code_zero() {
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    register(&hub.client().await, None).await;
    assert_eq!(hub.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hubs_starting_at_once_share_one_postgres_and_exclude_each_other_on_a_file() {
    let database = TestDatabase::new().await;
    if database.is_postgres() {
        let starts: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| HubProcess::start(&database))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(database.count("SELECT COUNT(*) FROM membership_plans").await, 3, "seeded once");
        let member = register(&starts[0].client().await, Some(1)).await;
        let callers: Vec<_> = (0..48)
            .map(|caller| {
                let (url, token) = (format!("http://{}", starts[caller % 3].address), member.token.clone());
                tokio::spawn(async move {
                    let client = connect(url).await.with_bearer(token);
                    let mut recorded = 0;
                    for call in 0..4 {
                        let key = format!("{caller}-{call}");
                        recorded += i64::from(client.usage().record_usage(report(&key)).await.is_ok());
                    }
                    recorded
                })
            })
            .collect();
        let mut recorded = 0;
        for caller in callers {
            recorded += caller.await.unwrap();
        }
        assert_eq!(recorded, 100, "three hubs together do not overshoot the quota");
        assert_eq!(database.count("SELECT COUNT(*) FROM creatorup_usage").await, 100);
    } else {
        let _first = HubProcess::start(&database);
        let second = HubProcess::command(&database).output().unwrap();
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success() && text.contains("another hub is using"), "{text}");
    }
}
