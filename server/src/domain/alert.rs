//! Watching over everything: what is read at every check, which alerts open and clear with it, and what is remembered
//! while the database cannot be written.
//!
//! Alerts are rows, so all hubs share them and each transition is made, and logged, by the one hub whose write made it.
//! While the database is gone a hub keeps its alerts, with their true times, in memory and logs them; it writes them
//! when the database is back, unless another hub has written the same trouble already.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Hub;
use super::analytics::{RATED, rates};
use super::devops::DevopsLine;
use crate::model::alert::{Alert, AlertCode, Readings, Verdict, judge, of_database};
use crate::model::analytics::{Checkup, Reachability, Sizes};
use crate::model::job::JobKind;
use crate::model::period::Period;
use crate::model::queue::JobCounts;
use crate::model::tally::{Metric, Span};
use crate::model::{Error, Instant, Result};
use crate::storage::{WriteTx, alert, tally};

/// How everything stood at the last check, and the alerts that are not written yet.
#[derive(Default)]
pub struct Condition(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    last: Option<Checkup>,
    /// Alerts that opened or cleared while they could not be written.
    unwritten: Vec<Alert>,
}

impl Condition {
    /// How everything stood at the last check; before the first, nothing is known.
    pub fn last(&self, now: Instant) -> Checkup {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.last.clone().unwrap_or_else(|| unknown(now))
    }

    fn take_unwritten(&self) -> Vec<Alert> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unwritten)
    }

    fn keep(&self, checkup: Checkup, unwritten: Vec<Alert>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *memory = Memory { last: Some(checkup), unwritten };
    }

    /// Whether the database was gone at the last check.
    pub fn is_down(&self) -> bool {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.last.as_ref().is_some_and(|last| last.down_since.is_some())
    }
}

fn unknown(now: Instant) -> Checkup {
    Checkup {
        at: now,
        database_latency: None,
        down_since: None,
        sizes: Sizes::default(),
        queue: None,
        queue_connected: false,
        creatorup: None,
        rates: None,
        alerts: Vec::new(),
    }
}

impl Hub {
    /// Whether the database was gone at the last check.
    pub fn is_database_down(&self) -> bool {
        self.condition.is_down()
    }

    /// Whether an address of CreatorUp is configured.
    pub fn has_creatorup(&self) -> bool {
        self.creatorup.is_some()
    }

    /// Checks everything, opens and clears alerts, and remembers how it stands. `database` is how long the database
    /// took to answer.
    pub async fn check_up(&self, database: &Result<Duration>) -> Checkup {
        let now = self.now();
        let last = self.condition.last(now);
        let mut unwritten = self.condition.take_unwritten();
        let creatorup = self.probe_creatorup().await.or(last.creatorup.clone());
        let last = Checkup { at: now, creatorup, ..last };
        let checkup = match database {
            Ok(latency) => {
                let checkup = self.read_vitals(*latency, last).await;
                match self.settle_alerts(&checkup, &mut unwritten, now).await {
                    Ok(alerts) => Checkup { alerts, ..checkup },
                    Err(error @ Error::Unavailable { .. }) => without_database(checkup, &error, &mut unwritten, now),
                    Err(error) => {
                        tracing::error!(%error, context = ?error, "alerts could not be settled");
                        checkup
                    }
                }
            }
            Err(error) => without_database(last, error, &mut unwritten, now),
        };
        self.condition.keep(checkup.clone(), unwritten);
        checkup
    }

    /// Asks CreatorUp whether it is there; nothing when no address is configured.
    async fn probe_creatorup(&self) -> Option<Reachability> {
        let health = self.creatorup_health().await?;
        let answer = health.latency.ok_or_else(|| health.problem.unwrap_or_default());
        Some(Reachability { at: self.now(), answer })
    }

    /// Writes the alerts that open and clear now, and those that did while nothing could be written. Answers with the
    /// open ones.
    async fn settle_alerts(&self, checkup: &Checkup, unwritten: &mut Vec<Alert>, now: Instant) -> Result<Vec<Alert>> {
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let mut verdicts = judge(&readings(checkup));
        verdicts.push((AlertCode::DatabaseDown, Verdict::Holds));
        clear_unwritten(unwritten, &verdicts, now);
        let open = alert::open(read, dialect).await?;
        if unwritten.is_empty() && changes(&verdicts, &open, now).is_empty() {
            return Ok(open);
        }
        let input = (unwritten.clone(), readings(checkup), now, self.devops_line());
        let made = self.store.write(input, |tx, input| Box::pin(async move { write(tx, input).await })).await?;
        unwritten.clear();
        made.iter().for_each(tell);
        alert::open(read, dialect).await
    }
}

/// What the rules judge by.
fn readings(checkup: &Checkup) -> Readings {
    let answer = |reached: &Reachability| reached.answer.as_ref().map(|_| ()).map_err(String::clone);
    Readings {
        events: checkup.rates.map(|rates| rates.events),
        webhooks: checkup.rates.map(|rates| rates.webhooks),
        waiting: checkup.queue.as_ref().filter(|_| checkup.queue_connected).map(|queue| queue.counts.waiting),
        creatorup: checkup.creatorup.as_ref().map(answer),
    }
}

/// The alerts that open, and the open ones that clear.
fn changes(verdicts: &[(AlertCode, Verdict)], open: &[Alert], now: Instant) -> Vec<Alert> {
    let change = |(code, verdict): &(AlertCode, Verdict)| {
        let held = open.iter().find(|alert| alert.code == code.as_str());
        match (verdict, held) {
            (Verdict::Broken(finding), None) => Some(Alert::opening(*code, finding, now)),
            (Verdict::Holds, Some(held)) => Some(cleared(held, now)),
            _ => None,
        }
    };
    verdicts.iter().filter_map(change).collect()
}

fn cleared(alert: &Alert, now: Instant) -> Alert {
    Alert { cleared_at: Some(now), updated_at: now, ..alert.clone() }
}

/// Clears what opened while nothing could be written and holds again.
fn clear_unwritten(unwritten: &mut [Alert], verdicts: &[(AlertCode, Verdict)], now: Instant) {
    for alert in unwritten.iter_mut().filter(|alert| alert.cleared_at.is_none()) {
        let holds = |(code, verdict): &(AlertCode, Verdict)| code.as_str() == alert.code && *verdict == Verdict::Holds;
        if verdicts.iter().any(holds) {
            *alert = cleared(alert, now);
            tell(alert);
        }
    }
}

/// What stands while the database is gone: its own alert, those that were open, and what CreatorUp's probe says.
fn without_database(checkup: Checkup, error: &Error, unwritten: &mut Vec<Alert>, now: Instant) -> Checkup {
    let mut verdicts = judge(&Readings { creatorup: readings(&checkup).creatorup, ..Readings::default() });
    let why = if error.is_fault() { "it cannot be read or written" } else { "it refuses" };
    verdicts.push((AlertCode::DatabaseDown, Verdict::Broken(of_database(why))));
    let mut alerts = checkup.alerts.clone();
    for change in changes(&verdicts, &alerts, now) {
        tell(&change);
        alerts.retain(|alert| alert.code != change.code);
        unwritten.retain(|alert| alert.id != change.id);
        unwritten.push(change.clone());
        if change.cleared_at.is_none() {
            alerts.push(change);
        }
    }
    let down_since = checkup.down_since.or(Some(now));
    Checkup { database_latency: None, queue_connected: false, down_since, alerts, ..checkup }
}

/// Writes what was unwritten, and what opens or clears now; answers with the latter. What was unwritten was told when it
/// happened.
///
/// What the database tells is read again under the hold: what another hub read before and writes now is never older than
/// what this one wrote, so hubs do not open and clear by turns what only one of them still sees.
async fn write(
    tx: &mut WriteTx,
    (unwritten, readings, now, devops): &(Vec<Alert>, Readings, Instant, DevopsLine),
) -> Result<Vec<Alert>> {
    alert::hold(tx, &AlertCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>()).await?;
    for alert in unwritten {
        let until = alert.cleared_at.unwrap_or(*now);
        if !alert::overlaps(tx, &alert.code, alert.opened_at, until).await? {
            open_alert(tx, &Alert { updated_at: *now, cleared_at: None, ..alert.clone() }, *devops).await?;
        }
        if let Some(cleared_at) = alert.cleared_at {
            clear_alert(tx, &alert.code, cleared_at, *now, *devops).await?;
        }
    }
    let mut verdicts = judge(&read_again(tx, readings, *now).await?);
    verdicts.push((AlertCode::DatabaseDown, Verdict::Holds));
    let open = alert::open(tx.reader(), tx.dialect()).await?;
    let made = changes(&verdicts, &open, *now);
    for change in &made {
        match change.cleared_at {
            None => open_alert(tx, change, *devops).await?,
            Some(cleared_at) => clear_alert(tx, &change.code, cleared_at, *now, *devops).await?,
        }
    }
    Ok(made)
}

async fn open_alert(tx: &mut WriteTx, alert: &Alert, devops: DevopsLine) -> Result<()> {
    if alert::insert(tx, alert).await? {
        devops.alert(tx, alert);
    }
    Ok(())
}

async fn clear_alert(
    tx: &mut WriteTx,
    code: &str,
    cleared_at: Instant,
    now: Instant,
    devops: DevopsLine,
) -> Result<()> {
    if let Some(alert) = alert::clear(tx, code, cleared_at, now).await? {
        devops.alert(tx, &alert);
    }
    Ok(())
}

async fn read_again(tx: &WriteTx, readings: &Readings, now: Instant) -> Result<Readings> {
    let window = Period::Hours(24).until(now);
    let counts = tally::over(tx.reader(), tx.dialect(), RATED, &window.stretches(Span::Minute), false).await?;
    let jobs = tally::sums(tx.reader(), tx.dialect(), (Metric::Jobs, Span::Total), (0, 1), false).await?;
    let waiting = JobKind::ALL.iter().map(|kind| JobCounts::of(*kind, &jobs).waiting).sum();
    let rates = rates(&window, &counts);
    Ok(Readings {
        events: Some(rates.events),
        webhooks: Some(rates.webhooks),
        waiting: Some(waiting),
        creatorup: readings.creatorup.clone(),
    })
}

/// One line for each transition.
fn tell(alert: &Alert) {
    let Alert { code, message, severity, .. } = alert;
    match alert.cleared_at {
        None => tracing::warn!(code, severity, message, "an alert opened"),
        Some(_) => tracing::info!(code, since = %alert.opened_at, "an alert cleared"),
    }
}
