//! What the hub does by itself now and then. Every hub may do it: each step is right however often it is done. What is
//! removed for its age is [`super::cleanup`]'s.

use super::Hub;
use crate::model::Result;

impl Hub {
    /// Marks what has expired and forgets what nobody needs.
    pub async fn tidy(&self) -> Result<()> {
        let expired = self.expire_subscriptions().await?;
        self.limits().prune();
        self.prune_callbacks();
        self.rouse_webhooks().await?;
        if expired > 0 {
            tracing::info!(expired_subscriptions = expired, "tidied");
        }
        Ok(())
    }
}
