//! Hints between hubs on one database: "a job may be ready". Sent outside every transaction and at most once in a few
//! milliseconds, because a notification inside a commit makes commits wait for each other. A hint that is lost costs a
//! poll's time.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx;
use sea_orm::sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Store;

const CHANNEL: &str = "upbridge_jobs";
/// Commits within this time are told by one hint.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// After the connection was lost.
const PAUSE: Duration = Duration::from_secs(2);

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
        let pool = self.read.get_postgres_connection_pool();
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            tokio::select! {
                hint = listener.recv() => {
                    if hint?.payload() != own {
                        self.common.ready.notify_one();
                    }
                }
                () = self.common.announce.notified() => {
                    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&own).execute(pool).await?;
                    tokio::time::sleep(DEBOUNCE).await;
                }
            }
        }
    }
}
