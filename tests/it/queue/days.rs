//! Bad days of the database, while jobs are enqueued and worked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use sea_orm::{ConnectionTrait, Database};
use upbridge_server::model::job::{JobKind, Outcome};
use uuid::Uuid;

use super::shop::{Shop, beating};
use crate::harness::eventually;

/// Enqueues one job after the other until told to stop; answers with those that were acknowledged.
fn produce(shop: &Arc<Shop>, over: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Uuid>> {
    let (shop, over) = (shop.clone(), over.clone());
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let job = shop.job(JobKind::Probe, "a");
            let id = job.id;
            let write = shop.store.write(job, |tx, job| {
                tx.enqueue(job.clone());
                Box::pin(async { Ok(()) })
            });
            match write.await {
                Ok(()) => acknowledged.push(id),
                // What was refused is tried again a moment later, as any caller would.
                Err(_) => drop(tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>()).await),
            }
        }
        acknowledged
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_under_load_loses_no_job_and_the_worker_goes_on() {
    let shop = Arc::new(Shop::open().await);
    let worker = shop.worker(beating(), |_| async { Outcome::Done(None) }.boxed());
    let over = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..4).map(|_| produce(&shop, &over)).collect();
    for round in 1..=3 {
        worker.has_run(50 * round).await;
        cut_off(&shop).await;
    }
    let before = worker.runs();
    worker.has_run(before + 50).await;
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = HashSet::new();
    for producer in producers {
        acknowledged.extend(producer.await.expect("no panic"));
    }
    eventually("no job is left", async || shop.database.count("SELECT COUNT(*) FROM jobs").await == 0).await;
    let ran: HashSet<Uuid> = worker.diary.runs.lock().unwrap().iter().map(|job| job.id).collect();
    let lost: Vec<_> = acknowledged.difference(&ran).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged jobs were lost", lost.len(), acknowledged.len());
    shop.is_empty().await;
}

/// Ends every session of a server; takes a file's lock for as long as a session could be gone.
async fn cut_off(shop: &Shop) {
    let connection = match std::env::var("TEST_POSTGRES_URL") {
        Ok(server) => {
            let name = shop.database.url.rsplit('/').next().expect("a name").to_owned();
            let operator = Database::connect(&server).await.expect("the server");
            let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            operator.execute_unprepared(&kill).await.expect("killed");
            operator
        }
        Err(_) => {
            let holder = shop.database.connect().await;
            holder.execute_unprepared("BEGIN IMMEDIATE").await.expect("held");
            let mut tick = tokio::time::interval(Duration::from_millis(700));
            tick.tick().await;
            tick.tick().await;
            holder.execute_unprepared("COMMIT").await.expect("free");
            holder
        }
    };
    connection.close().await.expect("closed");
}
