//! Webhooks out: how many signed deliveries a second are made with the record of each, how soon after its commit an
//! event is at its receiver, and what a receiver that is dead costs the others.
//!
//! The hub's domain and its worker run in this process; the receiver is a process of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;
use upbridge_server::config::Config;
use upbridge_server::domain::Hub;
use upbridge_server::domain::hook::manage::NewHook;
use upbridge_server::domain::hook::tell;
use upbridge_server::model::clock::SystemClock;
use upbridge_server::model::hook::IntegrationEvent;
use upbridge_server::model::integration::{Credentials, Environment, NewIntegration, PartnerStatus, Provider};
use upbridge_server::model::{self, Clock, Ctx, Principal};
use upbridge_server::queue;
use upbridge_server::storage::hook_delivery::{Priority, next_due};
use uuid::Uuid;

use crate::arguments::Arguments;
use crate::hub::Scratch;
use crate::load::median;
use crate::process::{self, Server};
use crate::report::Report;
use crate::{sink, target};

/// Webhooks that are told at once; with 16 calls to each there are 64.
const HOOKS: usize = 4;
/// Events a second when it is measured how soon they are told.
const RATE: u64 = 200;
/// Events of one transaction when many are to wait.
const TOLD: usize = 1_000;

/// Measures webhooks out.
pub async fn run(arguments: &Arguments, scratch: &Scratch, report: &mut Report) -> Result<()> {
    let sink = Sink::start(scratch).await?;
    let mut desk = Desk::open(arguments, scratch).await?;
    let mut hooks = Vec::new();
    for _ in 0..HOOKS {
        hooks.push(desk.hook(&sink, sink::WELL).await?);
    }
    let (deliveries, waiting, rounds, window) = match arguments.quick {
        true => (8_000, 2_000, 1, Duration::from_secs(2)),
        false => (120_000, 100_000, 3, Duration::from_secs(12)),
    };
    let rate = desk.throughput(&sink, &hooks, deliveries).await?;
    let what = format!("Signed deliveries with their records, {} at once", HOOKS * 16);
    report.absolute(&what, rate, "deliveries/s", target::HOOK_DELIVERIES);
    let alone = desk.latency(&sink, &hooks, rounds, window).await?;
    report.absolute(&format!("Commit of an event to its receipt, {RATE}/s, p95"), alone, "ms", target::HOOK_P95_MS);
    let dead = desk.hook(&sink, sink::DEAD).await?;
    desk.tell_many(&[dead], waiting).await?;
    let beside = desk.latency(&sink, &hooks, rounds, window).await?;
    let what = format!("The same beside a dead receiver with {waiting} waiting, p95");
    report.absolute(&what, beside, "ms", target::HOOK_P95_MS);
    report.absolute("The one over the other", beside / alone, "×", target::HOOK_NEIGHBOUR);
    desk.close().await
}

/// The receiver.
struct Sink {
    _server: Server,
    port: u16,
}

impl Sink {
    async fn start(scratch: &Scratch) -> Result<Sink> {
        let port = process::free_port()?;
        let (arguments, log) = ([sink::MODE.to_owned(), port.to_string()], scratch.path().join("sink.log"));
        let mut server = Server::start(&std::env::current_exe()?, &arguments, scratch.path(), &[], &log)?;
        let connect =
            || async move { anyhow::Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop)?) };
        server.answers(connect).await?;
        Ok(Sink { _server: server, port })
    }
}

/// The hub.
struct Desk {
    hub: Arc<Hub>,
    config: Config,
    store_stop: CancellationToken,
    worker: Option<(CancellationToken, JoinHandle<()>)>,
    told: usize,
}

impl Desk {
    async fn open(arguments: &Arguments, scratch: &Scratch) -> Result<Desk> {
        let file = format!("sqlite://{}?mode=rwc", scratch.path().join("hooks.db").display());
        let pairs = [
            ("DATABASE_URL", arguments.postgres.clone().unwrap_or(file)),
            ("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8".to_owned()),
            ("LOG_DIR", "off".to_owned()),
        ];
        let variables: BTreeMap<String, String> =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let config = Config::read(&variables, scratch.path())?;
        let store_stop = CancellationToken::new();
        let hub = upbridge_server::open(&config, Arc::new(SystemClock), store_stop.clone()).await?;
        Ok(Desk { hub: Arc::new(hub), config, store_stop, worker: None, told: 0 })
    }

    fn work(&mut self) {
        let (hub, stop) = (self.hub.clone(), CancellationToken::new());
        let (store, clock) = (hub.store().clone(), hub.clock().clone());
        let working = queue::worker::run(store, clock, hub, self.config.queue_options(), stop.clone());
        self.worker = Some((stop, tokio::spawn(working)));
    }

    async fn close(mut self) -> Result<()> {
        self.hub.stopping().cancel();
        if let Some((stop, worker)) = self.worker.take() {
            stop.cancel();
            worker.await?;
        }
        self.store_stop.cancel();
        self.hub.store().close().await;
        Ok(())
    }

    /// A webhook of an integration of its own; answers with both.
    async fn hook(&self, sink: &Sink, path: &str) -> Result<(Uuid, Uuid)> {
        let ctx =
            Ctx { principal: Principal::Service, request_id: "bench".into(), ip: None, user_agent: "bench".into() };
        let name = Uuid::now_v7().to_string();
        let partner = self.hub.create_partner(&ctx, &name, PartnerStatus::Active).await.map_err(failed)?;
        let credentials = serde_json::json!({ "serverKey": "SB-Mid-server-bench" });
        let provider = Provider::Midtrans;
        let new = NewIntegration {
            partner_id: partner.id,
            category: provider.spec().category,
            provider,
            name,
            environment: Environment::Sandbox,
            credentials: Credentials::new(credentials.as_object().cloned().unwrap_or_default(), None),
            base_url: None,
            is_active: true,
        };
        let (integration, _) = self.hub.create_integration(&ctx, new).await.map_err(failed)?;
        let new = NewHook {
            url: format!("http://127.0.0.1:{}{path}", sink.port),
            secret: None,
            events: vec!["payment.success".to_owned()],
            is_active: None,
            retry_attempts: None,
            retry_delay: None,
            rate_limit: None,
        };
        let (hook, _) = self.hub.create_hook(&ctx, integration.id, new).await.map_err(failed)?;
        Ok((hook.id, integration.id))
    }

    /// Tells of events, in one transaction; of the size that a payment's have.
    async fn tell(&self, orders: Vec<(usize, Uuid)>) -> Result<()> {
        let told = self.hub.store().write(orders, |tx, orders| {
            Box::pin(async move {
                let now = SystemClock.now();
                let event = |(order, integration_id): &(usize, Uuid)| {
                    let data = serde_json::json!({
                        "integrationId": integration_id, "provider": "midtrans", "environment": "sandbox",
                        "order": order, "reference": format!("ORDER-{order:012}"), "amount": "150000.00",
                        "currency": "IDR", "method": "bank_transfer", "status": "settlement",
                    });
                    IntegrationEvent { integration_id: *integration_id, name: "payment.success", data, at: now }
                };
                tell(tx, &orders.iter().map(event).collect::<Vec<_>>(), now).await
            })
        });
        told.await.map_err(failed)
    }

    async fn tell_many(&mut self, hooks: &[(Uuid, Uuid)], count: usize) -> Result<()> {
        for first in (0..count).step_by(TOLD) {
            let orders = (first..count.min(first + TOLD)).map(|at| (self.told + at, hooks[at % hooks.len()].1));
            self.tell(orders.collect()).await?;
            eprint!("\r  {first} of {count} deliveries wait");
        }
        eprint!("\r\x1b[K");
        self.told += count;
        Ok(())
    }

    /// Deliveries a second that were made and recorded, of so many that wait.
    async fn throughput(&mut self, sink: &Sink, hooks: &[(Uuid, Uuid)], count: usize) -> Result<f64> {
        eprintln!("Deliveries of {count} events");
        self.tell_many(hooks, count).await?;
        let begun = Instant::now();
        self.work();
        for (hook, _) in hooks {
            while self.waits(*hook).await? {
                sleep(Duration::from_millis(5)).await; // until the last record is written
            }
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        let came = sink::take(sink.port).await?;
        ensure!(came.len() == count, "{} of {count} deliveries came", came.len());
        Ok(rate)
    }

    async fn waits(&self, hook: Uuid) -> Result<bool> {
        let store = self.hub.store();
        let next = next_due(store.read(), store.dialect(), hook, Priority::Replay).await;
        Ok(next.map_err(failed)?.is_some())
    }

    /// Milliseconds from an event's commit to its receipt that 95 of 100 take no longer than; the median of the rounds.
    async fn latency(&mut self, sink: &Sink, hooks: &[(Uuid, Uuid)], rounds: usize, window: Duration) -> Result<f64> {
        let mut found = Vec::new();
        for round in 1..=rounds {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let count = (window.as_secs_f64() * RATE as f64) as usize;
            let mut committed: HashMap<u64, u64> = HashMap::with_capacity(count);
            let mut telling = tokio::task::JoinSet::new();
            for at in 0..count {
                tick.tick().await;
                let (order, integration) = (self.told + at, hooks[at % hooks.len()].1);
                let (hub, config, stop) = (self.hub.clone(), self.config.clone(), self.store_stop.clone());
                let desk = Desk { hub, config, store_stop: stop, worker: None, told: 0 };
                telling.spawn(async move {
                    desk.tell(vec![(order, integration)]).await?;
                    anyhow::Ok((order as u64, sink::micros()))
                });
            }
            while let Some(told) = telling.join_next().await {
                committed.extend([told??]);
            }
            self.told += count;
            for (hook, _) in hooks {
                while self.waits(*hook).await? {
                    sleep(Duration::from_millis(5)).await; // until the last is delivered
                }
            }
            let came: HashMap<u64, u64> = sink::take(sink.port).await?.into_iter().collect();
            let took = committed.iter().map(|(order, at)| Some(came.get(order)?.saturating_sub(*at)));
            let mut took = took.collect::<Option<Vec<u64>>>().ok_or_else(|| anyhow!("an event was not told"))?;
            took.sort_unstable();
            let p95 = took[(took.len() - 1) * 95 / 100] as f64 / 1e3;
            eprintln!("  round {round} of {rounds}: p50 {:.1} ms, p95 {p95:.1} ms", took[took.len() / 2] as f64 / 1e3);
            found.push(p95);
        }
        Ok(median(found))
    }
}

fn failed(error: model::Error) -> anyhow::Error {
    anyhow!("{error}: {error:?}")
}
