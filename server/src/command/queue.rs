//! `upbridge queue`: the event queue of a running hub.

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use upbridge_client::v1;
use upbridge_server::http::to_json;
use upbridge_server::model::job::{JobKind, JobState};
use upbridge_server::model::transition::JobStep;

use super::connection::{Connection, Session, confirm, refused};
use super::table::{bytes, columns, duration};
use super::{ask, print, say};

const EXAMPLES: &str = "\
Examples:
  export UPBRIDGE_TOKEN=…                       # an administrator's token, or sign in with --email
  upbridge queue ping
  upbridge queue stats --json
  upbridge queue list --state dead --kind user_sync
  upbridge queue redrive --kind user_sync --per-second 20
  upbridge queue monitor --kind probe & upbridge queue probe --count 3";

/// The event queue of a running hub: look at it, mend it, watch it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Queue {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON: one object, or one a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Ask the queue's store for a sign of life; prints PONG and where the queue is kept.
    Ping,
    /// Show the queue in numbers: what waits, runs, failed, how long it takes, who works on it.
    Stats,
    /// List jobs, newest first.
    List {
        /// Only in this state.
        #[arg(long, value_parser = states())]
        state: Option<i32>,
        /// Only of this kind.
        #[arg(long, value_parser = kinds())]
        kind: Option<i32>,
        /// Only of this key: a user, an endpoint.
        #[arg(long)]
        key: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show one job with its payload and what went wrong.
    Show {
        /// The job's id.
        id: String,
    },
    /// Try a scheduled job now, or a dead letter again.
    Retry {
        /// The job's id.
        id: String,
    },
    /// Call a job off that is not over.
    Cancel {
        /// The job's id.
        id: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Stop claims of a kind on every hub; what runs is finished.
    Pause {
        /// The kind.
        #[arg(value_parser = kinds())]
        kind: i32,
    },
    /// Let claims of a kind go on.
    Resume {
        /// The kind.
        #[arg(value_parser = kinds())]
        kind: i32,
    },
    /// Enqueue dead letters anew, oldest first; all of them when nothing narrows it down.
    Redrive {
        /// Only this one.
        #[arg(long, conflicts_with_all = ["kind", "key", "max", "per_second"])]
        id: Option<String>,
        /// Only this kind.
        #[arg(long, value_parser = kinds())]
        kind: Option<i32>,
        /// Only this key.
        #[arg(long)]
        key: Option<String>,
        /// How many at most, up to 10000; 1000 when not given.
        #[arg(long)]
        max: Option<i32>,
        /// How many become ready in a second; all at once when not given.
        #[arg(long)]
        per_second: Option<i32>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Print what happens to jobs, a line each, until Ctrl-C.
    Monitor {
        /// Only this kind.
        #[arg(long, value_parser = kinds())]
        kind: Option<i32>,
        /// Only this key.
        #[arg(long)]
        key: Option<String>,
        /// Only this job.
        #[arg(long)]
        id: Option<String>,
    },
    /// Enqueue jobs that touch nothing, to see the queue work; prints their ids.
    Probe {
        /// How many, up to 10000.
        #[arg(long, default_value_t = 1)]
        count: i32,
        /// Whose turn they take.
        #[arg(long)]
        key: Option<String>,
        /// Milliseconds until they are ready.
        #[arg(long)]
        delay_ms: Option<i64>,
        /// Milliseconds each takes.
        #[arg(long)]
        work_ms: Option<i64>,
        /// How often each fails before it succeeds.
        #[arg(long)]
        failures: Option<i32>,
        /// Retries of each.
        #[arg(long)]
        max_retries: Option<i32>,
    },
}

/// The contract's number of one of these words.
fn words(words: impl Iterator<Item = (&'static str, usize)>) -> impl TypedValueParser<Value = i32> {
    let words: Vec<(&'static str, usize)> = words.collect();
    let names = PossibleValuesParser::new(words.iter().map(|(word, _)| *word));
    names.map(move |name| words.iter().find(|(word, _)| *word == name).map_or(0, |(_, place)| *place as i32 + 1))
}

fn kinds() -> impl TypedValueParser<Value = i32> {
    words(JobKind::ALL.iter().map(|kind| (kind.as_str(), kind.place())))
}

fn states() -> impl TypedValueParser<Value = i32> {
    words(JobState::ALL.iter().map(|state| (state.as_str(), state.place())))
}

impl Queue {
    /// Does what was asked for.
    pub async fn run(self) -> anyhow::Result<()> {
        self.verb.check()?;
        let session = self.connection.open().await?;
        let done = tokio::select! {
            done = self.verb.run(&session, self.json) => done,
            // A session that was opened for the command is ended with it.
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        session.close().await;
        done
    }
}

impl Verb {
    /// Asks before something is destroyed, and before anybody signs in.
    fn check(&self) -> anyhow::Result<()> {
        match self {
            Verb::Cancel { id, yes } => confirm(&format!("job {id} will be called off"), *yes),
            Verb::Redrive { id: None, yes, .. } => confirm("the dead letters will be tried again", *yes),
            _ => Ok(()),
        }
    }

    async fn run(self, session: &Session, json: bool) -> anyhow::Result<()> {
        let mut queue = session.client.queue();
        match self {
            Verb::Ping => {
                let pong = ask!(json, queue.ping_queue(v1::PingQueueRequest {}));
                print(&format!("{} {} {} µs", pong.answer, pong.backend, pong.round_trip_us))
            }
            Verb::Stats => print(&stats(&ask!(json, queue.get_queue_stats(v1::GetQueueStatsRequest {})))),
            Verb::List { state, kind, key, limit } => {
                list(session, v1::ListJobsRequest { state, kind, key, ..Default::default() }, limit, json).await
            }
            Verb::Show { id } => {
                let job = queue.get_job(v1::GetJobRequest { job_id: id }).await.map_err(refused)?.into_inner().job;
                let job = job.unwrap_or_default();
                print(&if json { to_json(&job) } else { show(&job) })
            }
            Verb::Retry { id } => {
                let tried = ask!(json, queue.retry_job(v1::RetryJobRequest { job_id: id }));
                match tried.job {
                    Some(job) => print(&format!("{} is {}", job.id, state(job.state))),
                    None => print("another job of its unique key was waiting and does its work"),
                }
            }
            Verb::Cancel { id, .. } => {
                ask!(json, queue.cancel_job(v1::CancelJobRequest { job_id: id.clone() }));
                print(&format!("{id} is cancelled"))
            }
            Verb::Pause { kind } => {
                let changed = ask!(json, queue.pause_kind(v1::PauseKindRequest { kind })).changed;
                print(&format!("{} {}", kind_word(kind), if changed { "is paused" } else { "was paused" }))
            }
            Verb::Resume { kind } => {
                let changed = ask!(json, queue.resume_kind(v1::ResumeKindRequest { kind })).changed;
                print(&format!("{} {}", kind_word(kind), if changed { "goes on" } else { "was not paused" }))
            }
            Verb::Redrive { id, kind, key, max, per_second, .. } => {
                let request = v1::RedriveDeadLettersRequest { job_id: id, kind, key, max, per_second };
                let redriven = ask!(json, queue.redrive_dead_letters(request));
                print(&format!("dead letters that are tried again: {}", redriven.redriven))
            }
            Verb::Monitor { kind, key, id } => {
                monitor(session, v1::MonitorQueueRequest { kind, key, job_id: id }, json).await
            }
            Verb::Probe { count, key, delay_ms, work_ms, failures, max_retries } => {
                let count = Some(count);
                let request = v1::EnqueueProbeRequest { count, key, delay_ms, work_ms, failures, max_retries };
                print(&ask!(json, queue.enqueue_probe(request)).job_ids.join("\n"))
            }
        }
    }
}

/// Prints page after page, so that a long list begins at once.
async fn list(session: &Session, mut request: v1::ListJobsRequest, limit: u32, json: bool) -> anyhow::Result<()> {
    let mut left = limit as usize;
    let mut begun = false;
    while left > 0 {
        request.page_size = Some(left.min(200) as i32);
        let page = session.client.queue().list_jobs(request.clone()).await.map_err(refused)?.into_inner();
        left -= page.jobs.len().min(left);
        let text = match json {
            true => page.jobs.iter().map(to_json).collect::<Vec<_>>().join("\n"),
            false => jobs(&page.jobs, !begun),
        };
        if !(text.is_empty() || say(&text)?) {
            return Ok(());
        }
        begun = true;
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = Some(page.next_page_token);
    }
    eprintln!("there are more; --limit shows them");
    Ok(())
}

/// Prints a line for each transition. The stream ends when the hub stops.
async fn monitor(session: &Session, request: v1::MonitorQueueRequest, json: bool) -> anyhow::Result<()> {
    let mut sightings = session.client.queue().monitor_queue(request).await.map_err(refused)?.into_inner();
    while let Some(sighting) = sightings.message().await.map_err(refused)? {
        if sighting.missed > 0 {
            eprintln!("{} transitions were left out", sighting.missed);
        }
        let Some(transition) = &sighting.transition else {
            eprintln!("watching; Ctrl-C ends it");
            continue;
        };
        if !say(&if json { to_json(&sighting) } else { line(transition) })? {
            return Ok(());
        }
    }
    bail!("the hub ended the watch: it stops")
}

fn line(transition: &v1::JobTransition) -> String {
    let step = JobStep::ALL.get(transition.step as usize - 1).map_or("?", |step| step.as_str());
    let mut line = format!(
        "{} {step:9} {:17} {} key={} attempts={} lease={}",
        time(transition.at.as_ref()),
        kind_word(transition.kind),
        transition.job_id,
        transition.key,
        transition.attempts,
        transition.lease
    );
    if let Some(worker) = &transition.worker_id {
        line += &format!(" worker={worker}");
    }
    if let Some(error) = &transition.error {
        line += &format!(" error={error:?}");
    }
    line
}

fn jobs(jobs: &[v1::Job], headings: bool) -> String {
    let row = |job: &v1::Job| {
        [
            job.id.clone(),
            kind_word(job.kind).to_owned(),
            state(job.state).to_owned(),
            job.key.clone(),
            format!("{}/{}", job.attempts, job.max_retries + 1),
            time(job.created_at.as_ref()),
            job.last_error.clone().unwrap_or_default().replace('\n', " "),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    let table = columns(["ID", "KIND", "STATE", "KEY", "TRIES", "ASKED FOR", "LAST ERROR"], &rows);
    if headings { table } else { table.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default() }
}

fn show(job: &v1::Job) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("id", job.id.clone()),
        ("kind", kind_word(job.kind).to_owned()),
        ("state", state(job.state).to_owned()),
        ("key", job.key.clone()),
        ("unique key", job.unique_key.clone().unwrap_or_default()),
        ("priority", job.priority.to_string()),
        ("tries failed", format!("{} of {}", job.attempts, job.max_retries + 1)),
        ("rescues", job.rescues.to_string()),
        ("lease", job.lease.to_string()),
        ("worker", job.worker_id.clone().unwrap_or_default()),
        ("event", job.event_id.clone().unwrap_or_default()),
        ("asked for", time(job.created_at.as_ref())),
        ("may run", time(job.run_at.as_ref())),
        ("last began", time(job.started_at.as_ref())),
        ("over", time(job.finished_at.as_ref())),
        ("payload", payload(job)),
    ];
    for error in &job.errors {
        lines.push(("error", format!("{} try {}: {}", time(error.at.as_ref()), error.attempt, error.error)));
    }
    lines.retain(|(_, value)| !value.is_empty());
    lines.iter().map(|(name, value)| format!("{name:13} {value}")).collect::<Vec<_>>().join("\n")
}

fn payload(job: &v1::Job) -> String {
    let job: serde_json::Value = serde_json::from_str(&to_json(job)).unwrap_or_default();
    job.get("payload").filter(|payload| !payload.is_null()).map(ToString::to_string).unwrap_or_default()
}

fn stats(stats: &v1::GetQueueStatsResponse) -> String {
    let row = |name: &str, counts: &v1::JobCounts, time: Option<&v1::ProcessingTime>, paused: bool| {
        let micros = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |us| format!("{:.2}", us as f64 / 1e3));
        [
            if paused { format!("{name} (paused)") } else { name.to_owned() },
            counts.waiting.to_string(),
            counts.held.to_string(),
            counts.active.to_string(),
            counts.delayed.to_string(),
            counts.completed.to_string(),
            counts.failed.to_string(),
            counts.dead.to_string(),
            counts.cancelled.to_string(),
            micros(time.and_then(|time| time.p50_us)),
            micros(time.and_then(|time| time.p95_us)),
        ]
    };
    let none = v1::JobCounts::default();
    let mut rows: Vec<_> = stats
        .kinds
        .iter()
        .map(|kind| {
            let counts = kind.counts.as_ref().unwrap_or(&none);
            row(kind_word(kind.kind), counts, kind.processing_time.as_ref(), kind.paused_since.is_some())
        })
        .collect();
    rows.push(row("all", stats.total.as_ref().unwrap_or(&none), stats.processing_time.as_ref(), false));
    let headings = [
        "KIND",
        "WAITING",
        "HELD",
        "ACTIVE",
        "DELAYED",
        "COMPLETED",
        "FAILED",
        "DEAD",
        "CANCELLED",
        "P50 MS",
        "P95 MS",
    ];
    let mut text = columns(headings, &rows);
    let oldest = match stats.oldest_ready_at {
        Some(_) => duration(stats.oldest_ready_age_ms),
        None => "none waits".to_owned(),
    };
    text += &format!("\n\nbackend {}   oldest ready {oldest}", stats.backend);
    if let Some(size) = stats.store_bytes {
        text += &format!("   size {}", bytes(size));
    }
    for worker in &stats.workers {
        text += &format!(
            "\nworker {} {} active {} heard of {} ago",
            worker.id,
            worker.name,
            worker.active,
            duration(worker.last_heartbeat_age_ms)
        );
    }
    text
}

fn kind_word(number: i32) -> &'static str {
    usize::try_from(number - 1).ok().and_then(|place| JobKind::ALL.get(place)).map_or("?", |kind| kind.as_str())
}

fn state(number: i32) -> &'static str {
    usize::try_from(number - 1).ok().and_then(|place| JobState::ALL.get(place)).map_or("?", |state| state.as_str())
}

fn time<T: std::fmt::Display>(at: Option<&T>) -> String {
    at.map(ToString::to_string).unwrap_or_default()
}
