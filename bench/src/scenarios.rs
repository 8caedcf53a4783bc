//! Which servers run, and what is measured on them.
//!
//! One hub on a fresh database serves everything but GetMonthlyUsage, whose two ledgers have a hub of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;
use upbridge_client::v1;
use upbridge_server::model::signature::Key;

use crate::analytics::{self, GetSyncAnalytics};
use crate::arguments::{Arguments, Scenario};
use crate::http::{Http, Kind};
use crate::hub::{Hub, Scratch, Site, User, WEBHOOK_SECRET, month_of, now_seconds};
use crate::integrations::{self, Asking, Question};
use crate::lanes::{self, CheckFeatureAccess, GetMonthlyUsage, RecordUsage, VerifyToken};
use crate::ledger::{Inserts, STREAM, Stream};
use crate::load::{CONNECTIONS, LANES, Lane, Pace, Subject, compare, median};
use crate::process::{self, Server, memory_mib};
use crate::report::Report;
use crate::target::{self, Target};
use crate::{bare, hooks, machine, queue};

const BARE: &str = "bare tonic unary";

/// Starts, measures and stops what the arguments ask for.
pub async fn run(arguments: &Arguments) -> Result<Report> {
    let scratch = Scratch::new()?;
    let mut report = Report::default();
    report.preamble.push(machine::describe(scratch.path())?);
    report.preamble.push(method(arguments));
    let mut bench = Bench { pace: arguments.pace(), arguments, scratch: &scratch, bare: Bare::start(&scratch).await? };

    if arguments.wants(Scenario::Bare) {
        bench.bare(&mut report).await?;
    }
    let on_hub = [
        Scenario::VerifyToken,
        Scenario::CheckFeatureAccess,
        Scenario::RecordUsage,
        Scenario::RecordUsageStream,
        Scenario::Http,
        Scenario::Footprint,
    ];
    if on_hub.iter().any(|scenario| arguments.wants(*scenario)) {
        bench.hub(&mut report).await?;
    }
    if arguments.wants(Scenario::MonthlyUsage) {
        bench.monthly_usage(&mut report).await?;
    }
    if arguments.wants(Scenario::Webhook) {
        bench.webhook(&mut report).await?;
    }
    if arguments.wants(Scenario::Analytics) {
        bench.analytics(&mut report).await?;
    }
    if arguments.wants(Scenario::Integrations) {
        bench.integrations(&mut report).await?;
    }
    if arguments.wants(Scenario::Queue) {
        queue::run(arguments, &scratch, &mut report).await?;
    }
    if arguments.wants(Scenario::Hooks) {
        hooks::run(arguments, &scratch, &mut report).await?;
    }
    Ok(report)
}

fn method(arguments: &Arguments) -> String {
    let Pace { rounds, warm_up, window } = arguments.pace();
    let database = if arguments.postgres.is_some() { "PostgreSQL" } else { "SQLite (WAL, synchronous=FULL)" };
    format!(
        "Method: {LANES} calls in flight over {CONNECTIONS} HTTP/2 connections ({LANES} connections for HTTP/1.1), \
         medians of {rounds} rounds of {window:?} after {warm_up:?} of warm-up, subject and reference in turn, \
         load generator on the same cores, {database}, {} build.{}",
        if cfg!(debug_assertions) { "**debug**" } else { "release" },
        if arguments.quick {
            " **A quick run: it shows that everything works, its figures mean nothing.**"
        } else {
            ""
        }
    )
}

/// The reference.
struct Bare {
    server: Server,
    port: u16,
}

impl Bare {
    async fn start(scratch: &Scratch) -> Result<Bare> {
        Bare::start_in(scratch, bare::MODE).await
    }

    async fn start_in(scratch: &Scratch, mode: &str) -> Result<Bare> {
        let port = process::free_port()?;
        let arguments = [mode.to_owned(), port.to_string()];
        let log = scratch.path().join(format!("{mode}.log"));
        let mut server = Server::start(&std::env::current_exe()?, &arguments, scratch.path(), &[], &log)?;
        let connect =
            || async move { anyhow::Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop)?) };
        server.answers(connect).await?;
        Ok(Bare { server, port })
    }

    async fn subject(&self, users: &[User]) -> Result<Subject<VerifyToken>> {
        Ok(Subject::new("bare", self.server.pid(), lanes::of_bare(self.port, users).await?))
    }
}

struct Bench<'a> {
    pace: Pace,
    arguments: &'a Arguments,
    scratch: &'a Scratch,
    bare: Bare,
}

impl Bench<'_> {
    async fn bare(&mut self, report: &mut Report) -> Result<()> {
        eprintln!("Bare tonic unary, against itself");
        let users = lanes::of_nobody();
        let (mut one, mut other) = (self.bare.subject(&users).await?, self.bare.subject(&users).await?);
        let comparison = compare(self.pace, &mut one, &mut other).await?;
        report.compared("Bare tonic unary", "the same once more", &comparison, Target::None);
        Ok(())
    }

    async fn hub(&mut self, report: &mut Report) -> Result<()> {
        let site = Site::new(self.arguments, self.scratch, "hub")?;
        let hub = site.start().await?;
        let users = hub.register_users().await?;
        if self.arguments.wants(Scenario::VerifyToken) {
            eprintln!("VerifyToken");
            let lanes = lanes::of_users(hub.port, &users, VerifyToken::new).await?;
            self.against_bare(report, "VerifyToken", &hub, &users, lanes, target::VERIFY_TOKEN).await?;
        }
        if self.arguments.wants(Scenario::CheckFeatureAccess) {
            eprintln!("CheckFeatureAccess");
            let lanes = lanes::of_users(hub.port, &users, CheckFeatureAccess::new).await?;
            self.against_bare(report, "CheckFeatureAccess", &hub, &users, lanes, target::CHECK_FEATURE_ACCESS).await?;
        }
        if self.arguments.wants(Scenario::RecordUsage) {
            self.record_usage(report, &hub, &users).await?;
        }
        if self.arguments.wants(Scenario::Http) {
            self.http(report, &hub, &users).await?;
        }
        if self.arguments.wants(Scenario::RecordUsageStream) {
            self.record_usage_stream(report, &hub, &users).await?;
        }
        report.absolute(
            "Peak memory of the hub under this load",
            memory_mib(hub.server.pid(), "VmHWM")?,
            "MiB",
            Target::None,
        );
        hub.server.stop().await?;
        if self.arguments.wants(Scenario::Footprint) {
            self.footprint(report, &site).await?;
        }
        Ok(())
    }

    async fn against_bare<L: Lane>(
        &self,
        report: &mut Report,
        what: &'static str,
        hub: &Hub,
        users: &[User],
        lanes: Vec<L>,
        target: Target,
    ) -> Result<()> {
        let mut subject = Subject::new(what, hub.server.pid(), lanes);
        let comparison = compare(self.pace, &mut self.bare.subject(users).await?, &mut subject).await?;
        report.compared(what, BARE, &comparison, target);
        Ok(())
    }

    async fn record_usage(&self, report: &mut Report, hub: &Hub, users: &[User]) -> Result<()> {
        eprintln!("RecordUsage");
        let month = month_of(now_seconds());
        let before = hub.totals(users, &month).await?;
        let counts = counters(users);
        let lanes = record_lanes(hub, users, &month, &counts).await?;
        let target = match self.arguments.postgres {
            Some(_) => target::RECORD_USAGE_POSTGRES,
            None => target::RECORD_USAGE,
        };
        self.against_bare(report, "RecordUsage", hub, users, lanes, target).await?;
        agrees(&before, &counted(&counts), &hub.totals(users, &month).await?)
    }

    async fn http(&self, report: &mut Report, hub: &Hub, users: &[User]) -> Result<()> {
        eprintln!("VerifyToken over HTTP/JSON");
        let grpc = lanes::of_users(hub.port, users, VerifyToken::new).await?;
        self.against_grpc(report, "VerifyToken over HTTP/JSON", hub, grpc, users, |_| Kind::VerifyToken).await?;

        eprintln!("CheckFeatureAccess over HTTP/JSON");
        let grpc = lanes::of_users(hub.port, users, CheckFeatureAccess::new).await?;
        let kind = |_| Kind::CheckFeatureAccess;
        self.against_grpc(report, "CheckFeatureAccess over HTTP/JSON", hub, grpc, users, kind).await?;

        eprintln!("RecordUsage over HTTP/JSON");
        let month = month_of(now_seconds());
        let before = hub.totals(users, &month).await?;
        let counts = counters(users);
        let grpc = record_lanes(hub, users, &month, &counts).await?;
        let kind = |index: usize| Kind::RecordUsage(month.clone(), counts[index].clone());
        self.against_grpc(report, "RecordUsage over HTTP/JSON", hub, grpc, users, kind).await?;
        agrees(&before, &counted(&counts), &hub.totals(users, &month).await?)
    }

    async fn against_grpc<L: Lane>(
        &self,
        report: &mut Report,
        what: &'static str,
        hub: &Hub,
        grpc: Vec<L>,
        users: &[User],
        kind: impl Fn(usize) -> Kind,
    ) -> Result<()> {
        let mut lanes = Vec::with_capacity(users.len());
        for (index, user) in users.iter().enumerate() {
            lanes.push(Http::new(hub.port, user, kind(index)).await?);
        }
        let mut reference = Subject::new("gRPC", hub.server.pid(), grpc);
        let mut subject = Subject::new("HTTP/JSON", hub.server.pid(), lanes);
        let comparison = compare(self.pace, &mut reference, &mut subject).await?;
        report.compared(what, "the same over gRPC", &comparison, target::HTTP);
        Ok(())
    }

    /// Intake alone: what was received waits in the queue until all is measured, and is then applied and added up.
    async fn webhook(&self, report: &mut Report) -> Result<()> {
        eprintln!("Usage webhook");
        let hub = Site::new(self.arguments, self.scratch, "webhooks")?.start().await?;
        let users = hub.register_users().await?;
        let (month, counts) = (month_of(now_seconds()), counters(&users));
        let before = hub.totals(&users, &month).await?;
        let admin = hub.admin().await?;
        let kind = v1::JobKind::UsageSync.into();
        admin.queue().pause_kind(v1::PauseKindRequest { kind }).await?;
        let bare = Bare::start_in(self.scratch, bare::HTTP_MODE).await?;
        let key = Arc::new(Key::parse(WEBHOOK_SECRET).map_err(anyhow::Error::msg)?);
        let (mut references, mut subjects) = (Vec::new(), Vec::new());
        let ignored = Arc::new(AtomicI64::new(0));
        for (index, user) in users.iter().enumerate() {
            let kind = |counter: &Arc<AtomicI64>| Kind::Webhook(month.clone(), key.clone(), counter.clone());
            references.push(Http::new(bare.port, user, kind(&ignored)).await?);
            subjects.push(Http::new(hub.port, user, kind(&counts[index])).await?);
        }
        let mut reference = Subject::new("bare axum", bare.server.pid(), references);
        let mut subject = Subject::new("webhook", hub.server.pid(), subjects);
        let comparison = compare(self.pace, &mut reference, &mut subject).await?;
        report.compared("Usage webhook, received and committed", "bare axum", &comparison, target::WEBHOOK);

        admin.queue().resume_kind(v1::ResumeKindRequest { kind }).await?;
        let (sent, begun) = (counted(&counts), Instant::now());
        let all: i64 = sent.iter().sum();
        let expected: i64 = all + before.iter().sum::<i64>();
        while hub.totals(&users, &month).await?.iter().sum::<i64>() < expected {
            sleep(Duration::from_millis(200)).await; // applying is what is waited for
        }
        let rate = all as f64 / begun.elapsed().as_secs_f64();
        report.absolute("Usage webhooks applied from the queue", rate, "jobs/s", Target::None);
        agrees(&before, &sent, &hub.totals(&users, &month).await?)?;
        hub.server.stop().await
    }

    async fn record_usage_stream(&self, report: &mut Report, hub: &Hub, users: &[User]) -> Result<()> {
        eprintln!("RecordUsageStream");
        let month = month_of(now_seconds());
        let before = hub.totals(users, &month).await?;
        let mut stream = Stream::new(hub.port, users, &month).await?;
        let mut inserts = Inserts::new(self.scratch, self.arguments.postgres.as_deref()).await?;
        let (mut streamed, mut inserted, mut ratios, mut inserted_rows) = (Vec::new(), Vec::new(), Vec::new(), 0_i64);
        for round in 1..=self.pace.rounds {
            let (mut took, mut rows) = (Duration::ZERO, 0_usize);
            while took < self.pace.window {
                took += inserts.record(STREAM, &month).await?;
                rows += STREAM;
            }
            inserted_rows += i64::try_from(rows)?;
            let insert_rate = rows as f64 / took.as_secs_f64();
            (took, rows) = (Duration::ZERO, 0);
            while took < self.pace.window {
                took += stream.record(STREAM).await?;
                rows += STREAM;
            }
            let stream_rate = rows as f64 / took.as_secs_f64();
            eprintln!("  round {round}: bare inserts {insert_rate:.0}/s, stream {stream_rate:.0}/s");
            ratios.push(stream_rate / insert_rate);
            streamed.push(stream_rate);
            inserted.push(insert_rate);
        }
        ensure!(inserts.finish().await? == inserted_rows, "the loop of bare inserts lost rows");
        agrees(&before, &stream.recorded, &hub.totals(users, &month).await?)?;
        let (rate, reference) = (median(streamed), median(inserted));
        let what = "RecordUsageStream, one stream at a time";
        report.records(what, rate, "bare inserts", reference, median(ratios), target::RECORD_USAGE_STREAM);
        Ok(())
    }

    async fn monthly_usage(&self, report: &mut Report) -> Result<()> {
        let site = Site::new(self.arguments, self.scratch, "ledger")?;
        let hub = site.start().await?;
        let users = hub.register_users().await?;
        let month = month_of(now_seconds());
        let mut stream = Stream::new(hub.port, &users, &month).await?;
        let (few, many) = self.arguments.ledger_rows();
        let mut costs = Vec::new();
        for rows in [few, many] {
            fill(&mut stream, rows).await?;
            let totals = hub.totals(&users, &month).await?;
            agrees(&vec![0; users.len()], &stream.recorded, &totals)?;
            eprintln!("GetMonthlyUsage at {rows} rows");
            let channels = process::connect(hub.port, CONNECTIONS).await?;
            let lanes = users.iter().zip(&totals).enumerate().map(|(index, (user, total))| {
                GetMonthlyUsage::new(channels[index % CONNECTIONS].clone(), user, &month, *total)
            });
            let mut subject = Subject::new("GetMonthlyUsage", hub.server.pid(), lanes.collect::<Result<_>>()?);
            let comparison = compare(self.pace, &mut self.bare.subject(&users).await?, &mut subject).await?;
            report.compared(&format!("GetMonthlyUsage at {rows} rows"), BARE, &comparison, Target::None);
            costs.push(1.0 / comparison.ratio);
        }
        let what = format!("Cost of GetMonthlyUsage at {many} rows over {few} rows, each against bare");
        report.absolute(&what, costs[1] / costs[0], "×", target::MONTHLY_USAGE);
        let peak = memory_mib(hub.server.pid(), "VmHWM")?;
        report.absolute(&format!("Peak memory of the hub with {many} rows"), peak, "MiB", Target::None);
        hub.server.stop().await
    }

    async fn analytics(&self, report: &mut Report) -> Result<()> {
        let site = Site::new(self.arguments, self.scratch, "analytics")?;
        site.start().await?.server.stop().await?; // makes the schema
        let (few, many) = self.arguments.histories();
        let nobody = lanes::of_nobody();
        let mut milliseconds = Vec::new();
        for events in [few, many] {
            eprintln!("GetSyncAnalytics over {events} events");
            analytics::seed(site.database_url(), events).await?;
            let hub = site.start().await?;
            let channel = process::connect(hub.port, 1).await?.remove(0);
            // One call at a time: what counts is what a call costs, and not how many share the cores.
            let lane = GetSyncAnalytics::new(&hub, channel, events).await?;
            let mut subject = Subject::new("GetSyncAnalytics", hub.server.pid(), vec![lane]);
            let comparison = compare(self.pace, &mut self.bare.subject(&nobody[..1]).await?, &mut subject).await?;
            report.compared(&format!("GetSyncAnalytics over {events} events"), BARE, &comparison, Target::None);
            milliseconds.push(comparison.subject.p50_us / 1e3);
            hub.server.stop().await?;
        }
        let what = format!("Cost of GetSyncAnalytics over {many} events over {few} events");
        report.absolute(&what, milliseconds[1] / milliseconds[0], "×", target::ANALYTICS);
        let what = format!("Half the answers of GetSyncAnalytics over {many} events");
        report.absolute(&what, milliseconds[1], "ms", target::ANALYTICS_MS);
        Ok(())
    }

    async fn integrations(&self, report: &mut Report) -> Result<()> {
        let site = Site::new(self.arguments, self.scratch, "integrations")?;
        site.start().await?.server.stop().await?; // makes the schema
        let (few, many) = self.arguments.histories();
        let nobody = lanes::of_nobody();
        let mut milliseconds = [Vec::new(), Vec::new()];
        for (place, entries) in [few, many].into_iter().enumerate() {
            eprintln!("Health and log of an integration with {entries} entries");
            integrations::seed(site.database_url(), entries).await?;
            let hub = site.start().await?;
            for question in Question::ALL {
                let channel = process::connect(hub.port, 1).await?.remove(0);
                let lane = Asking::new(&hub, channel, question, entries).await?;
                let mut subject = Subject::new(question.name(), hub.server.pid(), vec![lane]);
                let comparison = compare(self.pace, &mut self.bare.subject(&nobody[..1]).await?, &mut subject).await?;
                let what = format!("{}, of {entries} entries", question.name());
                report.compared(&what, BARE, &comparison, Target::None);
                milliseconds[place].push(comparison.subject.p50_us / 1e3);
            }
            hub.server.stop().await?;
        }
        for (place, question) in Question::ALL.into_iter().enumerate() {
            let what = format!("Cost of {}, of {many} entries over {few}", question.name());
            report.absolute(&what, milliseconds[1][place] / milliseconds[0][place], "×", target::INTEGRATIONS);
        }
        Ok(())
    }

    async fn footprint(&self, report: &mut Report, site: &Site) -> Result<()> {
        eprintln!("Memory and start-up time");
        let (mut idle_mib, mut cold_start_ms) = (Vec::new(), Vec::new());
        for _ in 0..self.pace.rounds {
            let hub = site.start().await?;
            cold_start_ms.push(hub.cold_start.as_secs_f64() * 1e3);
            sleep(Duration::from_secs(2)).await; // idle memory is that of a hub that has settled
            idle_mib.push(memory_mib(hub.server.pid(), "VmRSS")?);
            hub.server.stop().await?;
        }
        let what = "Memory of the idle hub, 2 s after its start on that database";
        report.absolute(what, median(idle_mib), "MiB", target::IDLE_MEMORY_MIB);
        let what = "From start to the first answer, on that database";
        report.absolute(what, median(cold_start_ms), "ms", target::COLD_START_MS);
        Ok(())
    }
}

async fn fill(stream: &mut Stream<'_>, rows: usize) -> Result<()> {
    loop {
        let there: i64 = stream.recorded.iter().sum();
        let missing = rows.saturating_sub(usize::try_from(there)?);
        if missing == 0 {
            return Ok(());
        }
        eprint!("\r  filling the ledger: {there} of {rows} rows");
        stream.record(missing.min(STREAM)).await?;
        eprint!("\r\x1b[K");
    }
}

async fn record_lanes(hub: &Hub, users: &[User], month: &str, counts: &[Arc<AtomicI64>]) -> Result<Vec<RecordUsage>> {
    let channels = process::connect(hub.port, CONNECTIONS).await?;
    let lane = |(index, user): (usize, &User)| {
        RecordUsage::new(channels[index % CONNECTIONS].clone(), user, month, Arc::clone(&counts[index]))
    };
    users.iter().enumerate().map(lane).collect()
}

fn counters(users: &[User]) -> Vec<Arc<AtomicI64>> {
    users.iter().map(|_| Arc::default()).collect()
}

fn counted(counts: &[Arc<AtomicI64>]) -> Vec<i64> {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// Every record counted once: what was there and what was sent is what is there.
fn agrees(before: &[i64], sent: &[i64], after: &[i64]) -> Result<()> {
    for (user, ((before, sent), after)) in before.iter().zip(sent).zip(after).enumerate() {
        ensure!(before + sent == *after, "user {user} had {before} units, sent {sent}, and has {after}");
    }
    Ok(())
}
