//! What things are: plain data and pure rules.
//!
//! Nothing here performs I/O, reads a clock, or derives anything for a door or a database; each boundary keeps its
//! own shape and converts by hand.

pub mod address;
pub mod alert;
pub mod analytics;
pub mod clock;
pub mod context;
pub mod creatorup;
pub mod email;
pub mod error;
pub mod event;
pub mod job;
pub mod membership;
pub mod month;
pub mod page;
pub mod period;
pub mod queue;
pub mod retention;
pub mod signature;
pub mod tally;
pub mod transition;
pub mod usage;
pub mod user;
pub mod webhook;
pub mod words;

pub use clock::Clock;
pub use context::{Ctx, Principal, RequestId};
pub use email::Email;
pub use error::{Error, Reason, Result};
pub use month::Month;

/// An instant in UTC, cut to microseconds: what both databases keep.
pub type Instant = chrono::DateTime<chrono::Utc>;
/// Free-form JSON.
pub type Json = serde_json::Value;
