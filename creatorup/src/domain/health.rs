//! What works and what does not.

use super::CreatorUp;
use crate::model::outbox::Standing;
use crate::storage;

/// Something the work depends on.
#[derive(Clone, Debug)]
pub struct Part {
    /// Whether it works.
    pub works: bool,
    /// Its version or kind, or what is wrong.
    pub detail: String,
}

/// What works.
#[derive(Clone, Debug)]
pub struct Health {
    /// The database.
    pub database: Part,
    /// The hub.
    pub hub: Part,
    /// ffmpeg.
    pub ffmpeg: Part,
    /// Webhooks the hub has yet to take.
    pub unsent_webhooks: u64,
    /// Webhooks the hub will not take.
    pub failed_webhooks: u64,
    /// Batches of which the hub has yet to be told something.
    pub unreported_batches: u64,
}

impl Health {
    /// One word for all of it.
    pub fn status(&self) -> &'static str {
        match (self.database.works, self.hub.works && self.ffmpeg.works) {
            (false, _) => "not_serving",
            (true, false) => "degraded",
            (true, true) => "serving",
        }
    }
}

impl CreatorUp {
    /// Looks at everything the work depends on.
    pub async fn health(&self) -> Health {
        let (database, hub, ffmpeg) = tokio::join!(self.store.ping(), self.hub.ping(), self.studio.version());
        let read = self.store.read();
        // Without a database there is nothing to count.
        let (unsent_webhooks, failed_webhooks, unreported_batches) = match database.is_ok() {
            true => (
                storage::outbox::count(read, Standing::Pending).await.unwrap_or_default(),
                storage::outbox::count(read, Standing::Failed).await.unwrap_or_default(),
                storage::usage::count_unreported(read).await.unwrap_or_default(),
            ),
            false => (0, 0, 0),
        };
        let part = |answer: Result<String, String>| Part {
            works: answer.is_ok(),
            detail: answer.unwrap_or_else(|wrong| wrong),
        };
        let kind = self.store.dialect().name();
        Health {
            database: part(database.map(|_| kind.to_owned()).map_err(|_| format!("{kind} cannot be used"))),
            hub: part(hub.map(|()| "it serves".to_owned()).map_err(|error| error.to_string())),
            ffmpeg: part(ffmpeg),
            unsent_webhooks,
            failed_webhooks,
            unreported_batches,
        }
    }
}
