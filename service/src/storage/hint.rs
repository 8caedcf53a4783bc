//! Hints between hubs on one database: "a job may be ready". Sent outside every transaction and at most once in a few
//! milliseconds, because a notification inside a commit makes commits wait for each other. A hint that is lost costs a
//! poll's time.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx;
use sea_orm::sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Store;
use super::pool::Waiting;

const CHANNEL: &str = "upbridge_jobs";
/// Commits within this time are told by one hint.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// After the connection was lost.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a hint may be on its way, to the server and back to whoever sent it.
const ECHO: Duration = Duration::from_secs(5);

impl Store {
    /// Sends and receives hints until `stop`; returns at once where no other hub can be.
    pub async fn exchange_hints(self: Arc<Self>, stop: CancellationToken) {
        if !self.dialect.is_shared() {
            return;
        }
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                Err(error) = self.exchange() => tracing::warn!(%error, "hints between hubs are interrupted"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn exchange(&self) -> Result<std::convert::Infallible, sqlx::Error> {
        let own = Uuid::new_v4().to_string();
        let mut listener = tokio::time::timeout(2 * ECHO, self.ear()).await.map_err(silent)??;
        // A connection that the network has cut off stays silent for ever. Who sends hints hears its own; one that
        // does not listens anew, and one that sends none loses nothing but time.
        let mut echo = None;
        loop {
            tokio::select! {
                biased;
                hint = listener.recv() => {
                    match hint?.payload() == own {
                        true => echo = None,
                        false => self.common.ready.notify_one(),
                    }
                }
                () = self.common.announce.notified() => {
                    if let Err(error) = tokio::time::timeout(ECHO, self.announce(&own)).await.map_err(silent)? {
                        // There was no connection for it, which says nothing of the one that listens.
                        tracing::debug!(%error, "a hint could not be sent");
                        continue;
                    }
                    echo = echo.or_else(|| Some(Instant::now() + ECHO));
                    tokio::time::sleep(DEBOUNCE).await;
                }
                () = until(echo) => return Err(silent(())),
            }
        }
    }

    /// Listens on a connection of its own, which is new: one of the pool may have been cut off unnoticed, and its place
    /// would be lost to those who read.
    async fn ear(&self) -> Result<PgListener, sqlx::Error> {
        let options = self.read().get_postgres_connection_pool().connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ECHO).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    async fn announce(&self, own: &str) -> Result<(), sqlx::Error> {
        let hint = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(own);
        let waiting = Waiting::begin();
        let sent = hint.execute(self.read().get_postgres_connection_pool()).await;
        waiting.answered();
        sent.map(drop)
    }
}

async fn until(echo: Option<Instant>) {
    match echo {
        Some(echo) => tokio::time::sleep_until(echo).await,
        None => std::future::pending().await,
    }
}

fn silent<T>(_: T) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no hint comes through"))
}
