//! Hints between hubs on one database: "a job may be ready". Sent outside every transaction and at most once in a few
//! milliseconds, because a notification inside a commit makes commits wait for each other. A hint that is lost costs a
//! poll's time.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx;
use sea_orm::sqlx::postgres::PgListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Store;

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
        let pool = self.read().get_postgres_connection_pool();
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        // A connection that the network has cut off stays silent for ever. Who sends hints hears its own; one that
        // does not listens anew, and one that sends none loses nothing but time.
        let mut echo = None;
        loop {
            tokio::select! {
                hint = listener.recv() => {
                    match hint?.payload() == own {
                        true => echo = None,
                        false => self.common.ready.notify_one(),
                    }
                }
                () = self.common.announce.notified() => {
                    let hint = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&own);
                    tokio::time::timeout(ECHO, hint.execute(pool)).await.map_err(silent)??;
                    echo = echo.or_else(|| Some(Instant::now() + ECHO));
                    tokio::time::sleep(DEBOUNCE).await;
                }
                () = until(echo) => return Err(silent(())),
            }
        }
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
