//! What the hub does by itself now and then. Every hub may do it: each step is right however often it is done.

use chrono::TimeDelta;

use super::Hub;
use crate::model::Result;
use crate::storage;

/// Days an expired session is kept for its owner to see.
const SESSION_DAYS: i64 = 30;
/// Sessions one pass deletes at most.
const SESSIONS_PER_PASS: u64 = 1_000;

impl Hub {
    /// Marks what has expired and forgets what nobody needs.
    pub async fn tidy(&self) -> Result<()> {
        let expired = self.expire_subscriptions().await?;
        let before = self.now() - TimeDelta::days(SESSION_DAYS);
        let pruned = self
            .store
            .write(before, |tx, before| Box::pin(storage::session::prune(tx, *before, SESSIONS_PER_PASS)))
            .await?;
        self.limits().prune();
        if expired > 0 || pruned > 0 {
            tracing::info!(expired_subscriptions = expired, pruned_sessions = pruned, "tidied");
        }
        Ok(())
    }
}
