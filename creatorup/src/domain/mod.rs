//! What may happen: one `impl CreatorUp` per noun.
//!
//! The cast: [`CreatorUp`] holds the store, the hub and the studio. [`verify`] and [`user_sync`] keep the copies of
//! DigiUp's users, [`membership`] asks the hub and tells it of subscriptions, [`batch`] and [`process`] are the work,
//! [`report`] tells the hub what it counts for, [`usage`] adds it up, and [`work`] hands jobs to all of these.
//!
//! Guaranteed:
//! - A batch is processed only once the hub has counted it, so nobody gets work done that a plan does not allow.
//! - What a batch counts for reaches the hub, however long the hub is away, and counts there once: its key is the
//!   batch's id, from its creation on.
//! - What is told when a batch is over is written in the transaction that ends the batch, or the batch is not over.
//!
//! Not guaranteed: that the hub hears of a batch at once. `usage_reported` of a batch and `is_reported` of a month say
//! whether it has.

pub mod batch;
mod health;
mod membership;
mod process;
mod report;
mod usage;
mod user_sync;
mod verify;
mod work;

pub use health::{Health, Part};
pub use membership::SubscriptionReport;
pub use usage::MonthlyUsage;
pub use work::ALL as JOB_KINDS;

use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::hub::DigiUp;
use crate::model::{Clock, Instant};
use crate::storage::Store;
use crate::video::Studio;

/// What the domain is configured with.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `CREATORUP_API_KEY`: the hub's credential.
    pub service_key: String,
    /// `TOKEN_GRACE_SECONDS`: for how long a token the hub found good is believed while the hub is away.
    pub token_grace: Duration,
    /// How long a new batch's report is left to the call that created it, before the queue makes it.
    pub report_delay: Duration,
}

/// CreatorUp.
pub struct CreatorUp {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    hub: DigiUp,
    studio: Studio,
    rules: Rules,
}

impl CreatorUp {
    /// Puts it together.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, hub: DigiUp, studio: Studio, rules: Rules) -> CreatorUp {
        CreatorUp { store, clock, hub, studio, rules }
    }

    /// The database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What ffmpeg calls its version, or what is missing, for people.
    pub async fn ffmpeg(&self) -> Result<String, String> {
        self.studio.version().await
    }

    /// Whether it is the hub's key.
    pub fn is_service_key(&self, key: &str) -> bool {
        key.as_bytes().ct_eq(self.rules.service_key.as_bytes()).into()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}
