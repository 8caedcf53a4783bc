//! What a server tells about itself: log files, the access log, and metrics.
//!
//! `app.log` holds what happened, `error.log` its errors alone, `access.log` a line for every request (see
//! [`crate::access_log`]). Files are opened for appending and written off the async threads, so `tail -f` and
//! logrotate's `copytruncate` work. No secret is ever a field: handlers log ids, and types that hold secrets have no `Debug` that shows them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tonic::Code;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};
use upbridge_proto::Contract;

use crate::front::code_name;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// How much is logged, and where.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Directory of the files; `None` for standard error alone.
    pub directory: Option<std::path::PathBuf>,
    /// The least level that is logged.
    pub level: Level,
    /// How lines are written.
    pub format: Format,
}

/// Keeps the log's writers alive; dropping it writes what is left.
pub struct LogGuard(#[allow(dead_code)] Vec<WorkerGuard>); // never read: dropping it is its use

/// Starts logging for this process. Crates whose names begin with one of `own` speak at the level that is asked for, all
/// others only when something is wrong.
pub fn start_logging(options: &LogOptions, own: &[&'static str]) -> anyhow::Result<LogGuard> {
    let mut guards = Vec::new();
    let level = LevelFilter::from_level(options.level);
    let spoken = Targets::new().with_default(LevelFilter::WARN.min(level));
    let spoken = spoken.with_targets(own.iter().map(|name| (*name, level)));
    // One layer with three writers: every layer would format the span of every request for itself.
    let writer = match &options.directory {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            let app = file(directory, "app.log", &mut guards);
            let error = file(directory, "error.log", &mut guards).with_max_level(Level::ERROR);
            BoxMakeWriter::new(std::io::stderr.and(app).and(error))
        }
    };
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match options.format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().boxed(),
    };
    // The filter stands before all, not at the layer: a library that asks whether it may speak and then does not (sqlx,
    // at a notice of PostgreSQL) would leave a layer's own filter closed for the next line on that thread.
    tracing_subscriber::registry().with(spoken).with(layer).try_init()?;
    Ok(LogGuard(guards))
}

fn file(directory: &Path, name: &str, guards: &mut Vec<WorkerGuard>) -> NonBlocking {
    let (writer, guard) = tracing_appender::non_blocking(tracing_appender::rolling::never(directory, name));
    guards.push(guard);
    writer
}

/// The metrics of one server. Handles are made once, so counting a call looks nothing up.
pub struct Meters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    calls: Vec<CallMeter>,
}

struct CallMeter {
    seconds: Histogram,
    codes: Vec<Counter>,
}

/// Seconds; an answer within 300 µs and one of 10 s both have a bucket of their own.
const BUCKETS: &[f64] = &[0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

impl Meters {
    /// Makes the metrics of every method of a contract; their names begin with its error domain.
    pub fn new(contract: &'static Contract) -> anyhow::Result<Arc<Meters>> {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let calls = metrics::with_local_recorder(&recorder, || {
            let name = |what: &str| format!("{}_{what}", contract.error_domain);
            let (calls, seconds) = (name("rpc_calls_total"), name("rpc_duration_seconds"));
            metrics::describe_counter!(calls.clone(), "Calls by method and gRPC code.");
            metrics::describe_histogram!(seconds.clone(), "Time to the answer by method.");
            metrics::gauge!(name("build_info"), "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            contract.methods().iter().map(|method| meter(&method.path, &calls, &seconds)).collect()
        });
        Ok(Arc::new(Meters { recorder, handle, calls }))
    }

    /// Makes metrics of the server's own, which are shown among these: what `make` describes and takes handles of with
    /// the macros of `metrics`.
    pub fn with<T>(&self, make: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, make)
    }

    /// Counts a call of the method at that place of the contract.
    pub fn call(&self, method: usize, code: Code, took: Duration) {
        if let Some(meter) = self.calls.get(method) {
            meter.seconds.record(took.as_secs_f64());
            if let Some(counter) = meter.codes.get(code as usize) {
                counter.increment(1);
            }
        }
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

fn meter(path: &'static str, calls: &str, seconds: &str) -> CallMeter {
    let rpc = path.trim_start_matches('/');
    CallMeter {
        seconds: metrics::histogram!(seconds.to_owned(), "rpc" => rpc),
        codes: (0..=16)
            .map(|code| metrics::counter!(calls.to_owned(), "rpc" => rpc, "code" => code_name(Code::from_i32(code))))
            .collect(),
    }
}
