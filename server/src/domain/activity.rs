//! The live view: sync events and alerts as they are made and as they change.
//!
//! What is told is the row as it is when it is read: of changes in quick succession, the last.
//!
//! Both tables have an index by the time of the last change, and the feed reads what is new at its end: at once after
//! a commit of this hub, and every second for those of others. All who watch on a hub share the reading; the newest
//! changes stay in a ring, in the order in which this hub saw them.
//!
//! A change has its time before it is committed, so one with an earlier time may become visible later. Each reading
//! therefore goes back [`OVERLAP`] beyond the newest change and leaves out what was seen. What is committed later than
//! that, or with a clock that is slower by more, is missed here; lists have it.
//!
//! Who comes back with the last `event_id` goes on behind it in the ring. Is it no longer there (another hub, a restart,
//! too long ago), changes are read from the table, again from [`OVERLAP`] before it: some may come twice, under the same
//! id, and none is left out unless `gap` says so.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use super::Hub;
use crate::model::alert::Alert;
use crate::model::analytics::EventRecord;
use crate::model::context::SignedIn;
use crate::model::event::EventKind;
use crate::model::{Ctx, Error, Instant, Reason, Result};
use crate::storage;

/// How far each reading goes back behind the newest change.
const OVERLAP: TimeDelta = TimeDelta::seconds(10);
/// How often other hubs' changes are looked for.
const POLL: Duration = Duration::from_secs(1);
/// Commits within this time are read together.
const GATHER: Duration = Duration::from_millis(50);
/// A reading this young serves everybody.
const FRESH: Duration = Duration::from_millis(20);
/// When nobody has watched for so long, the ring begins anew.
const IDLE: Duration = Duration::from_secs(60);
/// Changes one reading takes at most, of each table.
const READ: u64 = 2_000;
/// Changes that are read again at most for somebody who comes back.
const REPLAYED: u64 = 1_000;
/// Changes in the ring.
const RING: usize = 8_192;
/// Watchers of one hub.
const WATCHERS: usize = 256;

/// Names a change: when, of what, and to what. Equal on every hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeId {
    at: Instant,
    id: Uuid,
    state: String,
}

impl ChangeId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<ChangeId> {
        let mut parts = text.splitn(3, '-');
        let at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
        let id = Uuid::try_parse(parts.next()?).ok()?;
        Some(ChangeId { at, id, state: parts.next()?.to_owned() })
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.at.timestamp_micros(), self.id.simple(), self.state)
    }
}

/// What changed, as it is after the change.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A sync event.
    Event(EventRecord),
    /// An alert.
    Alert(Alert),
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its name.
    pub id: ChangeId,
    /// What changed.
    pub what: What,
    /// Whether changes were left out before it.
    pub gap: bool,
}

impl Change {
    /// When it was made.
    pub fn at(&self) -> Instant {
        self.id.at
    }

    fn of_event(event: EventRecord) -> Change {
        let state = format!("{}{}", event.status, event.retry_count);
        Change { id: ChangeId { at: event.updated_at, id: event.id, state }, what: What::Event(event), gap: false }
    }

    fn of_alert(alert: Alert) -> Change {
        let state = if alert.cleared_at.is_some() { "cleared" } else { "open" };
        let id = ChangeId { at: alert.updated_at, id: alert.id, state: state.to_owned() };
        Change { id, what: What::Alert(alert), gap: false }
    }

    fn is_wanted(&self, kind: Option<EventKind>) -> bool {
        match (&self.what, kind) {
            (_, None) => true,
            (What::Event(event), Some(kind)) => event.kind == kind.as_str(),
            (What::Alert(_), Some(_)) => false,
        }
    }
}

/// What all who watch on this hub share.
pub struct Feed {
    ring: Mutex<Ring>,
    places: Arc<Semaphore>,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed { ring: Mutex::default(), places: Arc::new(Semaphore::new(WATCHERS)) }
    }
}

#[derive(Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// The place of the first change in the ring; places never repeat.
    first: u64,
    /// The newest change that was seen; none before the first reading.
    newest: Option<Instant>,
    /// Changes that were seen and would be read again.
    seen: HashSet<ChangeId>,
    read_at: Option<tokio::time::Instant>,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The place behind a change, when it is in the ring.
    fn behind(&self, id: &ChangeId) -> Option<u64> {
        let place = self.changes.iter().position(|change| change.id == *id)?;
        Some(self.first + place as u64 + 1)
    }

    /// Reads what is new.
    async fn advance(&mut self, hub: &Hub) -> Result<()> {
        let now = tokio::time::Instant::now();
        match self.read_at.map(|read_at| now - read_at) {
            Some(ago) if ago < FRESH => return Ok(()),
            Some(ago) if ago > IDLE => {
                let end = self.end();
                *self = Ring { first: end, ..Ring::default() };
            }
            _ => {}
        }
        let is_first = self.newest.is_none();
        let newest = self.newest.unwrap_or_else(|| hub.now());
        let (changes, full) = read(hub, newest - OVERLAP, READ).await?;
        let gap = full && changes.first().is_some_and(|oldest| !self.seen.contains(&oldest.id));
        let mut fresh: Vec<Change> = changes.into_iter().filter(|change| !self.seen.contains(&change.id)).collect();
        let newest = fresh.iter().map(Change::at).max().map_or(newest, |at| at.max(newest));
        self.seen.extend(fresh.iter().map(|change| change.id.clone()));
        self.seen.retain(|id| id.at >= newest - OVERLAP);
        if let (true, false, Some(first)) = (gap, is_first, fresh.first_mut()) {
            first.gap = true;
        }
        // What was there before anybody watched is not news.
        if !is_first {
            self.changes.extend(fresh.into_iter().map(Arc::new));
        }
        let surplus = self.changes.len().saturating_sub(RING);
        self.changes.drain(..surplus);
        self.first += surplus as u64;
        (self.newest, self.read_at) = (Some(newest), Some(now));
        Ok(())
    }
}

/// Changes since an instant, oldest first, and whether there may be more than were read.
async fn read(hub: &Hub, since: Instant, most: u64) -> Result<(Vec<Change>, bool)> {
    let (connection, dialect) = (hub.store.read(), hub.store.dialect());
    let events = storage::analytics::changed_events(connection, dialect, since, most).await?;
    let alerts = storage::alert::changed(connection, dialect, since, most).await?;
    let full = events.len() as u64 == most || alerts.len() as u64 == most;
    let events = events.into_iter().map(Change::of_event);
    let mut changes: Vec<Change> = events.chain(alerts.into_iter().map(Change::of_alert)).collect();
    changes.sort_by(|one, other| one.id.cmp(&other.id));
    Ok((changes, full))
}

/// Somebody who watches.
pub struct Watcher {
    hub: Arc<Hub>,
    signed_in: Arc<SignedIn>,
    kind: Option<EventKind>,
    /// The place in the ring to go on at.
    place: u64,
    /// What was read from the table already.
    replayed: HashSet<ChangeId>,
    waiting: VecDeque<Arc<Change>>,
    committed: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Hub {
    /// Begins to watch: what happens from now on, or behind the last change that was received.
    ///
    /// Errors: RESOURCE_EXHAUSTED (too many watch already), INVALID_ARGUMENT (`last_event_id`).
    pub async fn watch_activity(
        self: &Arc<Self>,
        ctx: &Ctx,
        last: Option<&str>,
        kind: Option<EventKind>,
    ) -> Result<Watcher> {
        let full = |_| Error::Exhausted {
            reason: Reason::RateLimited,
            message: format!("{WATCHERS} watch this hub already"),
            retry_after: Some(Duration::from_secs(10)),
            metadata: Default::default(),
        };
        let place = self.feed.places.clone().try_acquire_owned().map_err(full)?;
        let unknown = || Error::invalid("last_event_id", "must be an event_id of this stream");
        let last = last.filter(|last| !last.is_empty());
        let last = last.map(|last| ChangeId::parse(last).ok_or_else(unknown)).transpose()?;
        let mut watcher = Watcher {
            signed_in: ctx.signed_in()?.clone(),
            committed: self.store.activity(),
            hub: self.clone(),
            kind,
            place: 0,
            replayed: HashSet::new(),
            waiting: VecDeque::new(),
            _place: place,
        };
        watcher.begin(last).await?;
        Ok(watcher)
    }
}

impl Watcher {
    async fn begin(&mut self, last: Option<ChangeId>) -> Result<()> {
        let mut ring = self.hub.feed.ring.lock().await;
        ring.advance(&self.hub).await?;
        let Some(last) = last else {
            self.place = ring.end();
            return Ok(());
        };
        if let Some(place) = ring.behind(&last) {
            self.place = place;
            return Ok(());
        }
        self.place = ring.first;
        drop(ring);
        let (mut changes, full) = read(&self.hub, last.at - OVERLAP, REPLAYED).await?;
        if let (true, Some(first)) = (full, changes.first_mut()) {
            first.gap = true;
        }
        changes.retain(|change| change.id != last);
        self.replayed = changes.iter().map(|change| change.id.clone()).collect();
        self.replayed.insert(last);
        let kind = self.kind;
        self.waiting.extend(changes.into_iter().filter(|change| change.is_wanted(kind)).map(Arc::new));
        Ok(())
    }

    /// The next change, when there is one.
    ///
    /// Errors: UNAVAILABLE (the hub stops), UNAUTHENTICATED (the session is over).
    pub async fn next(&mut self) -> Result<Arc<Change>> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Ok(change);
            }
            let stopping = self.hub.stopping().clone();
            if stopping.is_cancelled() {
                return Err(Error::unavailable("the hub is stopping"));
            }
            // While the database is gone nobody can end a session either; what there is to see comes when it is back.
            match self.hub.still_signed_in(&self.signed_in).await {
                Err(Error::Unavailable { .. }) | Ok(()) => {}
                Err(over) => return Err(over),
            }
            self.committed.mark_unchanged();
            match self.take_new().await {
                Err(Error::Unavailable { .. }) | Ok(()) => {}
                Err(fault) => return Err(fault),
            }
            if self.waiting.is_empty() {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    _ = self.committed.changed() => tokio::time::sleep(GATHER).await,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
    }

    /// Takes what is new out of the ring.
    async fn take_new(&mut self) -> Result<()> {
        let mut ring = self.hub.feed.ring.lock().await;
        ring.advance(&self.hub).await?;
        let missed = self.place < ring.first;
        let skip = self.place.saturating_sub(ring.first) as usize;
        for change in ring.changes.iter().skip(skip) {
            if change.is_wanted(self.kind) && !self.replayed.remove(&change.id) {
                self.waiting.push_back(change.clone());
            }
        }
        self.place = ring.end();
        if let (true, Some(first)) = (missed, self.waiting.front_mut()) {
            Arc::make_mut(first).gap = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changes_name_is_read_as_it_is_written() {
        let at = "2026-03-15T12:00:00.000001Z".parse().unwrap();
        let id = ChangeId { at, id: Uuid::now_v7(), state: "failed-3".to_owned() };
        assert_eq!(ChangeId::parse(&id.to_string()), Some(id));
        for bad in ["", "1", "1-2", "x-018f-open", "1-nonsense-open"] {
            assert_eq!(ChangeId::parse(bad), None, "{bad}");
        }
    }
}
