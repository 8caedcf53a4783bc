//! `kill -9` in the middle of the work, of either side or of both, at moments that a seed decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::pair::Pair;
use super::{eventually, film};
use crate::harness::{Member, have};

const ROUNDS: u64 = 4;
const CALLERS: usize = 4;
/// How long a caller insists.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits for one answer: longer than a server takes at its worst.
const ONE_TRY: Duration = Duration::from_secs(10);
/// Batches of one caller in one round.
const BATCHES: usize = 12;

/// A user at work: whatever happens to a call, it is made again, as people and good clients do.
struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
    done: Arc<AtomicUsize>,
}

impl Caller {
    /// Calls until there is an answer that is no trouble of the servers.
    async fn insist(&self, path: &str, body: &Value) -> Value {
        let mut again = tokio::time::interval(Duration::from_millis(15));
        let (begun, mut trouble) = (Instant::now(), String::new());
        while begun.elapsed() < PATIENCE {
            again.tick().await;
            let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
            let answer = match request.timeout(ONE_TRY).send().await {
                Ok(answer) => (answer.status(), answer.json::<Value>().await),
                Err(error) => {
                    trouble = format!("{error:?}");
                    continue;
                }
            };
            match answer {
                (status, Ok(answer)) if status.is_success() => return answer["data"].clone(),
                (status, answer) => {
                    trouble = format!("{status}: {answer:?}");
                    assert!(status.is_server_error() || answer.is_err(), "{path}: {trouble}");
                }
            }
        }
        panic!("no good answer to {path} in {PATIENCE:?}; the last: {trouble}");
    }

    async fn work(self, name: String, renders: bool) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 0..BATCHES {
            let key = format!("{name}-{number}");
            let is_rendered = renders && number % 6 == 0;
            let inputs: &[&str] = if is_rendered { &["one.mp4"] } else { &[] };
            let asked = json!({ "name": key, "type": "video", "inputs": inputs, "idempotency_key": key });
            let batch = self.insist("/api/v1/batch/create", &asked).await["batch"].take();
            let id = batch["id"].as_str().unwrap().to_owned();
            if is_rendered {
                self.insist("/api/v1/video/process", &json!({ "batch_id": id })).await;
            } else if number % 4 == 3 {
                self.insist(&format!("/api/v1/batch/{id}/cancel"), &json!({})).await;
            }
            ids.push(id);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        ids
    }
}

async fn all_of(pair: &Pair, member: &Member) -> Vec<Value> {
    let mut found = Vec::new();
    let mut path = "/api/v1/batch?page_size=200".to_owned();
    loop {
        let page = pair.data(&member.token, &path, None).await;
        found.extend(page["batches"].as_array().unwrap().iter().cloned());
        match page["next_page_token"].as_str().unwrap_or_default() {
            "" => return found,
            token => path = format!("/api/v1/batch?page_size=200&page_token={token}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_killed_in_the_middle_loses_nothing_and_counts_nothing_twice() {
    let has_ffmpeg = have("ffmpeg");
    let mut pair = Pair::start().await;
    let members = [pair.member(Some(2)).await, pair.member(Some(3)).await];
    for member in &members {
        pair.enter(member).await;
    }
    if has_ffmpeg {
        film(&pair.media().join("one.mp4"));
    }
    let mut acknowledged = [Vec::new(), Vec::new()];
    let mut newcomers = Vec::new();
    for seed in 1..=ROUNDS {
        let mut chance = StdRng::seed_from_u64(seed);
        let done = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let caller = Caller {
                    http: reqwest::Client::new(),
                    url: pair.to_creatorup.url(),
                    token: members[number % 2].token.clone(),
                    done: done.clone(),
                };
                tokio::spawn(caller.work(format!("round-{seed}-{number}"), has_ffmpeg && number == 0))
            })
            .collect();
        for victim in [seed % 2 == 0, seed % 3 != 0] {
            let moment = chance.random_range(1..CALLERS * BATCHES / 2) + done.load(Ordering::Relaxed) / 2;
            eventually("work goes on", async || done.load(Ordering::Relaxed) >= moment).await;
            // Whoever has just registered is on the way to CreatorUp when one of the two dies.
            newcomers.push(pair.member(Some(1)).await);
            if victim {
                pair.kill_hub();
                pair.start_hub();
            } else {
                pair.kill_creatorup();
                pair.start_creatorup();
            }
        }
        for (number, caller) in callers.into_iter().enumerate() {
            acknowledged[number % 2].extend(caller.await.unwrap());
        }
        eprintln!("seed {seed}: {} batches were created", done.load(Ordering::Relaxed));
    }
    let mut batches = 0;
    for (member, acknowledged) in members.iter().zip(&acknowledged) {
        eventually("nothing is being rendered", async || {
            all_of(&pair, member).await.iter().all(|batch| batch["status"] != "processing")
        })
        .await;
        let kept = all_of(&pair, member).await;
        let failed: Vec<_> = kept.iter().filter(|batch| batch["status"] == "failed").collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let mut ids: Vec<_> = kept.iter().map(|batch| batch["id"].as_str().unwrap().to_owned()).collect();
        let mut answered = acknowledged.clone();
        ids.sort();
        answered.sort();
        assert_eq!(ids, answered, "what was answered is there, and nothing else");
        let (units, counted) = pair.agree(member).await;
        assert_eq!((units, counted), (ids.len() as i64, ids.len() as i64));
        batches += counted;
    }
    for newcomer in &newcomers {
        pair.synced(newcomer).await;
    }
    let users = (1 + members.len() + newcomers.len()) as i64;
    let copies = async || pair.creatorup_database.count("SELECT COUNT(*) FROM digiup_users").await;
    eventually("each is there once, and the administrator", async || copies().await == users).await;
    let hub = &pair.hub_database;
    assert_eq!(batches, (ROUNDS as usize * CALLERS * BATCHES) as i64);
    assert_eq!(hub.count("SELECT COUNT(*) FROM creatorup_usage").await, batches);
    assert_eq!(hub.count("SELECT COUNT(DISTINCT idempotency_key) FROM creatorup_usage").await, batches);
    for database in [hub, &pair.creatorup_database] {
        assert_eq!(database.count("SELECT COUNT(*) FROM finished_jobs WHERE state = 'dead'").await, 0);
    }
}
