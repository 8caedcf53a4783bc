//! What things are: plain data and pure rules.
//!
//! Nothing here performs I/O, reads a clock, or derives anything for a door or a database; each boundary keeps its
//! own shape and converts by hand.

pub mod alert;
pub mod analytics;
pub mod callback;
pub mod connection;
pub mod context;
pub mod creatorup;
pub mod email;
pub mod event;
pub mod hook;
pub mod integration;
pub mod integration_health;
pub mod integration_log;
pub mod kind;
pub mod membership;
pub mod metric;
pub mod outward;
pub mod period;
pub mod recommendation;
pub mod retention;
pub mod seal;
pub mod signature;
pub mod usage;
pub mod user;
pub mod webhook;

pub use context::{Ctx, Principal};
pub use email::Email;
pub use upbridge_service::model::{
    Clock, Credential, Error, Instant, Json, JsonText, Month, Origin, Reason, RequestId, Result, address, clock, error,
    failure, page, queue, transition, words,
};

/// Work that is remembered for later, with the kinds of it that the hub has.
pub mod job {
    pub use super::kind::JobKind;
    pub use upbridge_service::model::job::*;
}

/// Running counts, with what the hub counts.
pub mod tally {
    pub use super::metric::Metric;
    pub use upbridge_service::model::tally::*;
}
