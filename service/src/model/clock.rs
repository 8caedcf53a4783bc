//! The one source of "now", so that a test can hold it.

use std::sync::Mutex;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::Instant;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// This instant, cut to microseconds.
    fn now(&self) -> Instant;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Utc::now().trunc_subsecs(6)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct HeldClock(Mutex<DateTime<Utc>>);

impl HeldClock {
    /// A clock standing at `at`.
    pub fn at(at: DateTime<Utc>) -> Self {
        HeldClock(Mutex::new(at.trunc_subsecs(6)))
    }

    /// Moves the clock, forwards or backwards.
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += by;
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
