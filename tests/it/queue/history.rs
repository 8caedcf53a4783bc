//! The queue's history, kept by the database itself while hubs are killed at random, and what must hold of it.
//!
//! Triggers write down every change of a job and every sign of life of a worker, whoever makes it and however it dies.
//! The hubs are real processes; they are killed, stopped for longer than their lease, told to end, and started again,
//! in an order that a seed decides. At the end the history is read as one story and must make sense.
//!
//! `QUEUE_HISTORY_SECONDS` makes it longer than the suite can afford, `QUEUE_HISTORY_SEED` makes it another.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sea_orm::{ConnectionTrait, QueryResult, Statement};
use uuid::Uuid;

use crate::harness::{HubProcess, TestDatabase, eventually, within};

/// The kind whose jobs run one at a time per key.
const LIMITED: &str = "user_sweep";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_hubs_the_history_of_every_job_makes_sense() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().expect(name));
    let seed = number("QUEUE_HISTORY_SEED", 20_260_315);
    let time = Duration::from_secs(number("QUEUE_HISTORY_SECONDS", 8));
    eprintln!("QUEUE_HISTORY_SEED={seed} QUEUE_HISTORY_SECONDS={}", time.as_secs());
    let database = TestDatabase::new().await;
    let migrated = HubProcess::command(&database).args(["migrate", "up"]).output().expect("migrated");
    assert!(migrated.status.success(), "{migrated:?}");
    for statement in triggers(database.is_postgres()) {
        database.execute(&statement).await;
    }
    let mut stage = Stage { database, hubs: Vec::new(), dice: StdRng::seed_from_u64(seed), enqueued: 0, killed: 0 };
    let (begun, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(120)));
    while begun.elapsed() < time {
        tick.tick().await;
        stage.act().await;
    }
    stage.finish().await;
}

struct Stage {
    database: TestDatabase,
    hubs: Vec<(HubProcess, bool)>,
    dice: StdRng,
    enqueued: usize,
    killed: usize,
}

impl Stage {
    async fn act(&mut self) {
        let most = if self.database.is_postgres() { 3 } else { 1 };
        match self.dice.random_range(0..10) {
            0..=3 => self.enqueue().await,
            4 | 5 if self.hubs.len() < most => self.start(),
            4..=6 if !self.hubs.is_empty() => {
                let (hub, _) = self.hubs.remove(self.dice.random_range(0..self.hubs.len()));
                self.killed += 1;
                hub.kill();
            }
            7 if !self.hubs.is_empty() => {
                let (hub, stopped) = self.hubs.remove(0);
                if stopped {
                    signal("-CONT", &hub);
                }
                hub.terminate();
            }
            8 | 9 if self.database.is_postgres() && !self.hubs.is_empty() => {
                // A hub that stands still long enough is taken for dead, and then it goes on. On a file it would stand
                // still with the lock that everybody else needs.
                let place = self.dice.random_range(0..self.hubs.len());
                let (hub, stopped) = &mut self.hubs[place];
                signal(if *stopped { "-CONT" } else { "-STOP" }, hub);
                *stopped = !*stopped;
            }
            _ => self.enqueue().await,
        }
    }

    fn start(&mut self) {
        let mut command = HubProcess::command(&self.database);
        command.envs([
            ("QUEUE_HEARTBEAT_INTERVAL", "150"),
            ("QUEUE_POLL_INTERVAL", "50"),
            ("QUEUE_BACKOFF_BASE", "20"),
            ("QUEUE_CONCURRENCY", "20"),
            ("QUEUE_REMOVE_ON_COMPLETE", "1000000"),
            ("QUEUE_REMOVE_ON_FAIL", "1000000"),
            ("DRAIN_TIMEOUT_SECONDS", "1"),
        ]);
        self.hubs.push((HubProcess::run(&mut command), false));
    }

    /// However slow the machine was until now, one hub dies with a job on its hands.
    async fn die_at_work(&mut self) {
        let connection = self.database.connect().await;
        let insert = Statement::from_sql_and_values(
            connection.get_database_backend(),
            "INSERT INTO jobs (id, kind, queue_key, state, priority, turn, payload, max_retries) \
             VALUES ($1, 'probe', 'long', 'ready', 50, 0, $2, 2)",
            [Uuid::now_v7().into(), serde_json::json!({ "millis": 3_000 }).into()],
        );
        self.enqueued += connection.execute_raw(insert).await.expect("enqueued").rows_affected() as usize;
        let runs = "SELECT COUNT(*) FROM jobs WHERE state = 'running' AND queue_key = 'long'";
        let database = &self.database;
        eventually("the long job runs", async || database.count(runs).await == 1).await;
        for (hub, _) in self.hubs.drain(..) {
            self.killed += 1;
            hub.kill();
        }
        connection.close().await.expect("closed");
        self.start();
    }

    /// A burst of jobs of all sorts.
    async fn enqueue(&mut self) {
        let connection = self.database.connect().await;
        for _ in 0..self.dice.random_range(5..40) {
            let limited = self.dice.random_bool(0.3);
            let kind = if limited { LIMITED } else { "probe" };
            let key = format!("key-{}", self.dice.random_range(0..4));
            let unique = self.dice.random_bool(0.2).then(|| format!("only-{}", self.dice.random_range(0..5)));
            // A sweep of a plan that nobody has reads the database and leaves nothing behind.
            let (millis, fails) = (self.dice.random_range(0..60), [0, 0, 0, 1, 5][self.dice.random_range(0..5)]);
            let insert = Statement::from_sql_and_values(
                connection.get_database_backend(),
                "INSERT INTO jobs (id, kind, queue_key, unique_key, state, priority, turn, payload, max_retries) \
                 VALUES ($1, $2, $3, $4, 'ready', 50, $5, $6, 2) ON CONFLICT DO NOTHING",
                [
                    Uuid::now_v7().into(),
                    kind.into(),
                    key.into(),
                    unique.into(),
                    self.dice.random_range(0..1_000_i64).into(),
                    serde_json::json!({ "millis": millis, "fails": fails, "plan_id": 999 }).into(),
                ],
            );
            self.enqueued += connection.execute_raw(insert).await.expect("enqueued").rows_affected() as usize;
        }
        connection.close().await.expect("closed");
    }

    async fn finish(mut self) {
        for (hub, stopped) in &self.hubs {
            if *stopped {
                signal("-CONT", hub);
            }
        }
        if self.hubs.is_empty() {
            self.start();
        }
        self.die_at_work().await;
        let database = &self.database;
        let left = "SELECT COUNT(*) FROM jobs";
        within(Duration::from_secs(60), "every job is over", async || database.count(left).await == 0).await;
        let connection = database.connect().await;
        let query = Statement::from_string(connection.get_database_backend(), "SELECT * FROM history ORDER BY seq");
        let rows = connection.query_all_raw(query).await.expect("the history");
        let mut story = Story::default();
        rows.iter().for_each(|row| story.tell(row));
        story.end(self.enqueued);
        eprintln!(
            "{} jobs, {} kills, {} leases, {} rescues, {} refused ends",
            self.enqueued,
            self.killed,
            story.leases,
            story.rescues,
            story.stale(&self.hubs)
        );
        assert!(self.killed > 0 && story.rescues > 0, "nothing happened that was worth watching");
    }
}

fn signal(which: &str, hub: &HubProcess) {
    let sent = Command::new("kill").args([which, &hub.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// A job as the story knows it.
#[derive(Debug, Default)]
struct Told {
    state: String,
    kind: String,
    key: String,
    unique_key: Option<String>,
    lease: i64,
    attempts: i32,
    rescues: i32,
    gone: bool,
    ends: Vec<String>,
}

#[derive(Default)]
struct Story {
    jobs: HashMap<Uuid, Told>,
    workers: HashMap<Uuid, bool>,
    running: HashMap<(String, String), i64>,
    leases: usize,
    rescues: usize,
}

impl Story {
    fn tell(&mut self, row: &QueryResult) {
        let what: String = row.try_get("", "what").unwrap();
        let id: Uuid = row.try_get("", "subject").unwrap();
        if what == "beat" || what == "leave" {
            self.workers.insert(id, what == "beat");
            return;
        }
        let state: String = row.try_get("", "state").unwrap();
        let lease: i64 = row.try_get("", "lease").unwrap();
        let attempts: i32 = row.try_get("", "attempts").unwrap();
        let rescues: i32 = row.try_get("", "rescues").unwrap();
        let max_retries: i32 = row.try_get("", "max_retries").unwrap();
        let worker: Option<Uuid> = row.try_get("", "worker_id").unwrap();
        assert!(attempts <= max_retries + 1, "{id} was tried {attempts} times of {}", max_retries + 1);
        let job = self.jobs.entry(id).or_default();
        match what.as_str() {
            "enqueue" => {
                assert!(job.state.is_empty(), "{id} was enqueued twice");
                job.kind = row.try_get("", "kind").unwrap();
                job.key = row.try_get("", "queue_key").unwrap();
                job.unique_key = row.try_get("", "unique_key").unwrap();
            }
            "change" => {
                assert!(!job.gone, "{id} changed after its end");
                assert!(lease >= job.lease, "the lease of {id} went back");
                match (job.state.as_str(), state.as_str()) {
                    ("ready", "running") => {
                        assert_eq!(lease, job.lease + 1, "{id} was claimed without a new lease");
                        assert_eq!(
                            self.workers.get(&worker.expect("a worker")),
                            Some(&true),
                            "an unknown worker claimed {id}"
                        );
                        self.leases += 1;
                    }
                    ("running", "ready") => {
                        assert_eq!((lease, attempts), (job.lease, job.attempts), "a rescue of {id} spent a try");
                        self.rescues += usize::from(rescues > job.rescues);
                    }
                    ("running", "scheduled") => {
                        assert_eq!((lease, attempts), (job.lease, job.attempts + 1), "{id} failed without its lease");
                    }
                    ("scheduled" | "held", "ready") | ("ready", "held") => assert_eq!(lease, job.lease),
                    (before, after) => panic!("{id} went from {before} to {after}"),
                }
            }
            "gone" => {
                assert!(!job.gone, "{id} ended twice");
                assert_eq!((job.state.as_str(), lease), ("running", job.lease), "{id} ended without a lease");
                job.gone = true;
            }
            "finished" => {
                job.ends.push(state);
                return;
            }
            other => panic!("{other} is no part of a history"),
        }
        let was = std::mem::replace(&mut job.state, if what == "gone" { "gone".to_owned() } else { state });
        (job.lease, job.attempts, job.rescues) = (lease, attempts, rescues);
        let key = (job.kind.clone(), job.key.clone());
        let change = i64::from(job.state == "running") - i64::from(was == "running");
        let running = self.running.entry(key.clone()).or_insert(0);
        *running += change;
        assert!(key.0 != LIMITED || *running <= 1, "{running} jobs of {key:?} ran at once");
        self.check_unique(id);
    }

    /// At most one job of a kind waits under a unique key.
    fn check_unique(&self, id: Uuid) {
        let job = &self.jobs[&id];
        let waits = |job: &Told| !job.gone && job.state != "running";
        if job.unique_key.is_some() && waits(job) {
            let same = |other: &&Told| other.kind == job.kind && other.unique_key == job.unique_key && waits(other);
            assert_eq!(self.jobs.values().filter(same).count(), 1, "two wait under {:?}", job.unique_key);
        }
    }

    /// Every job that was enqueued came to one end; only one that a newer of its key stands for has none of its own.
    fn end(&self, enqueued: usize) {
        assert_eq!(self.jobs.len(), enqueued, "a job was lost, or came from nowhere");
        for (id, job) in &self.jobs {
            assert!(job.gone, "{id} was lost: {job:?}");
            let merged = job.unique_key.is_some() && job.ends.is_empty();
            assert!(merged || job.ends.len() == 1, "{id} came to {:?}", job.ends);
        }
    }

    /// How many ends were not believed, as the hubs that are left say.
    fn stale(&self, hubs: &[(HubProcess, bool)]) -> usize {
        hubs.iter().map(|(hub, _)| hub.said().matches("its end was not recorded").count()).sum()
    }
}

const NOTED: &str =
    "what, subject, kind, queue_key, unique_key, state, lease, worker_id, attempts, max_retries, rescues";

/// What writes the history down.
fn triggers(postgres: bool) -> Vec<String> {
    let job = |what: &str, row: &str| {
        format!(
            "INSERT INTO history ({NOTED}) VALUES ('{what}', {row}.id, {row}.kind, {row}.queue_key, {row}.unique_key, \
             {row}.state, {row}.lease, {row}.worker_id, {row}.attempts, {row}.max_retries, {row}.rescues);"
        )
    };
    let finished = job("finished", "NEW").replace("NEW.worker_id", "NULL");
    let worker = |what: &str, row: &str| format!("INSERT INTO history (what, subject) VALUES ('{what}', {row}.id);");
    let on = [
        ("INSERT", "jobs", job("enqueue", "NEW")),
        ("UPDATE", "jobs", job("change", "NEW")),
        ("DELETE", "jobs", job("gone", "OLD")),
        ("INSERT", "finished_jobs", finished),
        ("INSERT", "workers", worker("beat", "NEW")),
        ("UPDATE", "workers", worker("beat", "NEW")),
        ("DELETE", "workers", worker("leave", "OLD")),
    ];
    let (seq, uuid) = if postgres { ("BIGSERIAL", "UUID") } else { ("INTEGER", "BLOB") };
    let mut statements = vec![format!(
        "CREATE TABLE history (seq {seq} PRIMARY KEY, what TEXT NOT NULL, subject {uuid} NOT NULL, kind TEXT, \
         queue_key TEXT, unique_key TEXT, state TEXT, lease BIGINT, worker_id {uuid}, attempts INTEGER, \
         max_retries INTEGER, rescues INTEGER)"
    )];
    for (place, (event, table, body)) in on.into_iter().enumerate() {
        if postgres {
            statements.push(format!(
                "CREATE FUNCTION note_{place}() RETURNS trigger AS $$ BEGIN {body} RETURN NULL; END $$ LANGUAGE plpgsql"
            ));
            statements.push(format!(
                "CREATE TRIGGER note_{place} AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION note_{place}()"
            ));
        } else {
            statements.push(format!("CREATE TRIGGER note_{place} AFTER {event} ON {table} BEGIN {body} END"));
        }
    }
    statements
}
