//! The one writer: concurrent callers' writes share a transaction, and each is answered after COMMIT.
//!
//! A commit costs a disk flush however much is in it, and SQLite has one writer anyway; so whatever has arrived
//! while the last transaction was committing goes into the next one together. On PostgreSQL two transactions are made
//! at once, each on a connection of its own: one works while the other waits for the disk. They meet each other as
//! those of two servers do, and so may two sets of one [`Lane`]. A write that fails after it wrote
//! something spoils the shared transaction: it is rolled back and each write is replayed by itself, so that one bad
//! row fails alone. A [`Lane`] goes further: writes of one kind are handed to their [`Batch`] as a set and become
//! a few multi-row statements.
//!
//! Guaranteed: an answer of success means the write is committed and its effects (forgotten cache entries) are
//! done. Order among concurrent callers is not guaranteed; a caller's own next write comes after its last answer.
//! A caller that gave up before its write began is skipped.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use sea_orm::{ConnAcquireErr, DbErr, TransactionTrait};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pool::{Pool, Waiting, note_unserved};
use super::tx::Common;
use super::{WriteTx, fault, is_conflict};
use crate::model::{Error, Result};

/// Writes waiting at most; beyond, callers are told to try again.
const QUEUE_LIMIT: usize = 10_000;
/// Writes of one transaction at most, a lane counting as one.
const GROUP_LIMIT: usize = 1_024;
/// Another hub may hold what this one needs; it lets go within a transaction.
const CONFLICT_TRIES: usize = 3;
/// Items a lane hands over at once, and that may wait in it, at most.
const LANE_SET_LIMIT: usize = 2_000;
const LANE_QUEUE_LIMIT: usize = 200_000;

/// Work to be done in a transaction. It may be run again after a rollback.
trait Work: Send {
    fn run<'a>(&'a mut self, tx: &'a mut WriteTx) -> BoxFuture<'a, Result<()>>;
    /// Answers the caller: with the result of the run when the commit succeeded.
    fn finish(self: Box<Self>, committed: Result<()>);
    /// Parts that can fail by themselves.
    fn split(self: Box<Self>) -> Vec<Box<dyn Work>>;
    /// Whether anyone still waits for it.
    fn is_wanted(&self) -> bool;
    /// Whether it comes after the others of its transaction.
    fn is_last(&self) -> bool {
        false
    }
}

/// A handle to the writer.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn Work>>,
    ended: CancellationToken,
}

impl Writer {
    /// Starts the writer on its own connections, one for each transaction at a time. After `stop` it finishes what is waiting and ends.
    pub(super) fn start(pool: Arc<Pool>, common: Arc<Common>, stop: CancellationToken) -> Result<Writer> {
        let (queue, waiting) = mpsc::channel(QUEUE_LIMIT);
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        // A thread of its own: a transaction is half a dozen short waits, and among the tasks of a busy runtime each
        // would end with another wait for a turn.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
        let write = move || {
            let waiting = tokio::sync::Mutex::new(waiting);
            let runs = (0..common.dialect.writers()).map(|place| run(place, &pool, &common, &waiting, &stop));
            runtime.block_on(futures::future::join_all(runs));
            drop(end);
        };
        std::thread::Builder::new().name("writer".to_owned()).spawn(write).map_err(Error::internal)?;
        Ok(Writer { queue, ended })
    }

    /// Waits until the writer has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(super) async fn write<A, T, W>(&self, input: A, work: W) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.wait_for(input, work, false).await
    }

    pub(super) async fn write_last<A, T, W>(&self, input: A, work: W) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.wait_for(input, work, true).await
    }

    async fn wait_for<A, T, W>(&self, input: A, work: W, is_last: bool) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(Box::new(Single { input, work, is_last, result: None, answer }))?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the writer has ended")))
    }

    fn submit(&self, work: Box<dyn Work>) -> Result<()> {
        self.queue.try_send(work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::unavailable("too many writes are waiting"),
            mpsc::error::TrySendError::Closed(_) => Error::unavailable("the hub is stopping"),
        })
    }
}

/// Makes one transaction after the other; `place` tells those apart that are made at once.
async fn run(
    place: u32,
    pool: &Pool,
    common: &Arc<Common>,
    waiting: &tokio::sync::Mutex<mpsc::Receiver<Box<dyn Work>>>,
    stop: &CancellationToken,
) {
    loop {
        let mut waiting = waiting.lock().await;
        let first = tokio::select! {
            biased;
            work = waiting.recv() => work,
            () = stop.cancelled() => {
                // What was accepted is still done; nothing new is.
                waiting.close();
                waiting.recv().await
            }
        };
        let Some(first) = first else { return };
        let mut group = vec![first];
        while group.len() < GROUP_LIMIT
            && let Ok(work) = waiting.try_recv()
        {
            group.push(work);
        }
        drop(waiting);
        group.retain(|work| work.is_wanted());
        group.sort_by_key(|work| work.is_last());
        if !group.is_empty() {
            execute(place, pool, common, group).await;
        }
    }
}

/// Runs a group in one transaction; when a part of it spoils the transaction, runs each part in its own.
async fn execute(place: u32, pool: &Pool, common: &Arc<Common>, mut group: Vec<Box<dyn Work>>) {
    match attempt(place, pool, common, &mut group).await {
        Attempt::Committed => group.into_iter().for_each(|work| work.finish(Ok(()))),
        Attempt::Failed(error) => {
            tracing::warn!(%error, context = ?error, "a transaction could not be made");
            group.into_iter().for_each(|work| work.finish(Err(error.clone())));
        }
        Attempt::Spoiled(error) => {
            let mut parts: Vec<Box<dyn Work>> = group.into_iter().flat_map(Work::split).collect();
            if parts.len() == 1 && !is_conflict(&error) {
                return parts.remove(0).finish(Err(error));
            }
            tracing::debug!(%error, parts = parts.len(), "replaying a spoiled transaction part by part");
            for part in parts {
                let mut alone = vec![part];
                let mut committed = Ok(());
                for _ in 0..CONFLICT_TRIES {
                    committed = match attempt(place, pool, common, &mut alone).await {
                        Attempt::Committed => Ok(()),
                        Attempt::Failed(error) | Attempt::Spoiled(error) => Err(error),
                    };
                    if !committed.as_ref().is_err_and(is_conflict) {
                        break;
                    }
                }
                alone.into_iter().for_each(|work| work.finish(committed.clone()));
            }
        }
    }
}

enum Attempt {
    /// Every work has run and is committed; some may have refused, having written nothing.
    Committed,
    /// The database cannot be used; nothing is written.
    Failed(Error),
    /// One work failed after writing; nothing is written.
    Spoiled(Error),
}

/// Makes an attempt, as long as a database that is there may need. Without an end to it everything that is written
/// would wait for ever behind an answer that the network has swallowed, although another connection would do.
async fn attempt(place: u32, pool: &Pool, common: &Arc<Common>, group: &mut [Box<dyn Work>]) -> Attempt {
    let making = make(place, pool, common, group);
    let Some(patience) = common.patience else { return making.await };
    match tokio::time::timeout(patience, making).await {
        Ok(attempt) => attempt,
        Err(_late) => Attempt::Failed(Error::unavailable("the database did not answer a transaction")),
    }
}

async fn make(place: u32, pool: &Pool, common: &Arc<Common>, group: &mut [Box<dyn Work>]) -> Attempt {
    let dialect = common.dialect;
    let begun = Instant::now();
    let waiting = Waiting::begin();
    let mut transaction = pool.get().begin_with_options(dialect.write_transaction()).await;
    if matches!(transaction, Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))) {
        // This pool was given up for another a moment ago.
        transaction = pool.get().begin_with_options(dialect.write_transaction()).await;
    }
    waiting.answered();
    note_unserved(false, &transaction);
    let transaction = match transaction {
        Ok(transaction) => transaction,
        Err(error) => return Attempt::Failed(fault(error)),
    };
    let open = Instant::now();
    let mut tx = WriteTx::new(transaction, common.clone(), place);
    for work in group.iter_mut() {
        tx.forget_wrote();
        // A panic in one caller's write must not be the end of everybody's.
        let done = AssertUnwindSafe(work.run(&mut tx)).catch_unwind().await;
        let done = done.unwrap_or_else(|_panic| Err(Error::internal("a write panicked")));
        if let Err(error) = done
            && (tx.wrote() || error.is_fault())
        {
            if let Err(error) = tx.rollback().await {
                tracing::warn!(%error, "a transaction could not be rolled back");
                dialect.discard(pool.get()).await;
            }
            return match error {
                Error::Unavailable { .. } if !is_conflict(&error) => Attempt::Failed(error),
                error => Attempt::Spoiled(error),
            };
        }
    }
    let ready = Instant::now();
    let committed = tx.commit().await;
    tracing::trace!(works = group.len(), begin = ?(open - begun), run = ?(ready - open), commit = ?ready.elapsed(), "transaction");
    match committed {
        Ok(effects) => {
            effects.into_iter().for_each(|effect| effect());
            Attempt::Committed
        }
        Err(error) => {
            dialect.discard(pool.get()).await;
            match fault(error) {
                error @ Error::Unavailable { .. } if !is_conflict(&error) => Attempt::Failed(error),
                // What one write left to be written at the end cannot be; nothing of anybody's is committed.
                error => Attempt::Spoiled(error),
            }
        }
    }
}

/// One caller's write.
struct Single<A, T, W> {
    input: A,
    work: W,
    is_last: bool,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<A, T, W> Work for Single<A, T, W>
where
    A: Send + Sync + 'static,
    T: Send + 'static,
    W: for<'a> Fn(&'a mut WriteTx, &'a A) -> BoxFuture<'a, Result<T>> + Send + 'static,
{
    fn run<'a>(&'a mut self, tx: &'a mut WriteTx) -> BoxFuture<'a, Result<()>> {
        let Single { input, work, result, .. } = self;
        let running = work(tx, input);
        Box::pin(async move {
            let done = running.await;
            let standing = done.as_ref().map(|_| ()).map_err(Error::clone);
            *result = Some(done);
            standing
        })
    }

    fn finish(self: Box<Self>, committed: Result<()>) {
        let Single { result, answer, .. } = *self;
        let result = committed.and_then(|()| result.unwrap_or_else(|| Err(Error::internal("a write did not run"))));
        // The caller may have gone; the write stands all the same.
        drop(answer.send(result));
    }

    fn split(self: Box<Self>) -> Vec<Box<dyn Work>> {
        vec![self]
    }

    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn is_last(&self) -> bool {
        self.is_last
    }
}

/// Writes that are made as a set.
pub trait Batch: Send + Sync + 'static {
    /// What one caller asks for.
    type Item: Send + Sync + 'static;
    /// What that caller is answered.
    type Answer: Send + 'static;

    /// Makes the writes of all items and answers each. An item that is refused must have written nothing; an error
    /// of the whole undoes all, and each item is then tried by itself.
    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>>>;

    /// How much an item counts towards the size of a set.
    fn weight(_item: &Self::Item) -> usize {
        1
    }
}

type Pending<B> = (<B as Batch>::Item, Option<oneshot::Sender<Result<<B as Batch>::Answer>>>);

/// The waiting room of a [`Batch`].
pub struct Lane<B: Batch> {
    shared: Arc<LaneShared<B>>,
    writer: Writer,
}

struct LaneShared<B: Batch> {
    batch: B,
    waiting: Mutex<Vec<Pending<B>>>,
}

impl<B: Batch> Lane<B> {
    pub(super) fn new(batch: B, writer: &Writer) -> Lane<B> {
        Lane { shared: Arc::new(LaneShared { batch, waiting: Mutex::new(Vec::new()) }), writer: writer.clone() }
    }

    /// Asks for a write and waits until it is committed.
    pub async fn submit(&self, item: B::Item) -> Result<B::Answer> {
        let (answer, answered) = oneshot::channel();
        self.push(item, Some(answer))?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the writer has ended")))
    }

    /// Asks for a write that nobody waits for; one that cannot be taken is dropped.
    pub fn post(&self, item: B::Item) {
        if let Err(error) = self.push(item, None) {
            tracing::debug!(%error, "a write that nobody waits for was dropped");
        }
    }

    fn push(&self, item: B::Item, answer: Option<oneshot::Sender<Result<B::Answer>>>) -> Result<()> {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= LANE_QUEUE_LIMIT {
            return Err(Error::unavailable("too many writes are waiting"));
        }
        // The writer takes all that wait when it reaches the lane, so one token stands for any number of items.
        if waiting.is_empty() {
            self.writer.submit(Box::new(LaneTurn {
                shared: self.shared.clone(),
                taken: Vec::new(),
                results: None,
                writer: self.writer.clone(),
            }))?;
        }
        waiting.push((item, answer));
        Ok(())
    }
}

/// The turn of a lane in a transaction.
struct LaneTurn<B: Batch> {
    shared: Arc<LaneShared<B>>,
    taken: Vec<Pending<B>>,
    results: Option<Vec<Result<B::Answer>>>,
    writer: Writer,
}

impl<B: Batch> LaneTurn<B> {
    /// Takes what waits, up to the limit of a set, and leaves a token for the rest.
    fn take(&mut self) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, answer)| answer.as_ref().is_none_or(|answer| !answer.is_closed()));
        let mut weight = 0;
        let count = waiting
            .iter()
            .take_while(|(item, _)| {
                let first = weight == 0;
                weight += B::weight(item);
                first || weight <= LANE_SET_LIMIT
            })
            .count();
        self.taken = waiting.drain(..count).collect();
        if !waiting.is_empty() {
            let turn =
                LaneTurn { shared: self.shared.clone(), taken: Vec::new(), results: None, writer: self.writer.clone() };
            if let Err(error) = self.writer.submit(Box::new(turn)) {
                let gone: Vec<Pending<B>> = waiting.drain(..).collect();
                drop(waiting);
                gone.into_iter()
                    .filter_map(|(_, answer)| answer)
                    .for_each(|answer| drop(answer.send(Err(error.clone()))));
            }
        }
    }
}

impl<B: Batch> Work for LaneTurn<B> {
    fn run<'a>(&'a mut self, tx: &'a mut WriteTx) -> BoxFuture<'a, Result<()>> {
        if self.taken.is_empty() {
            self.take();
        }
        Box::pin(async move {
            if self.taken.is_empty() {
                return Ok(());
            }
            let items: Vec<&B::Item> = self.taken.iter().map(|(item, _)| item).collect();
            let results = self.shared.batch.apply(tx, &items).await?;
            if results.len() != items.len() {
                return Err(Error::internal("a batch answered another number of items than it was given"));
            }
            self.results = Some(results);
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>, committed: Result<()>) {
        // A transaction that could not begin, or failed before this turn, has taken nothing: those who wait are
        // answered all the same, or they and all after them would wait for ever.
        if committed.is_err() && self.taken.is_empty() {
            self.take();
        }
        let results = match committed {
            Ok(()) => self.results.unwrap_or_default(),
            Err(error) => self.taken.iter().map(|_| Err(error.clone())).collect(),
        };
        for ((_, answer), result) in self.taken.into_iter().zip(results) {
            match answer {
                Some(answer) => drop(answer.send(result)),
                None => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a write that nobody waits for failed");
                    }
                }
            }
        }
    }

    fn split(mut self: Box<Self>) -> Vec<Box<dyn Work>> {
        // Another work may have spoiled the transaction before this turn came.
        if self.taken.is_empty() {
            self.take();
        }
        let LaneTurn { shared, taken, writer, .. } = *self;
        let alone =
            |pending| LaneTurn { shared: shared.clone(), taken: vec![pending], results: None, writer: writer.clone() };
        taken.into_iter().map(|pending| Box::new(alone(pending)) as Box<dyn Work>).collect()
    }

    fn is_wanted(&self) -> bool {
        true
    }
}
