//! What things are: plain data and pure rules that every server of the house has.
//!
//! Nothing here performs I/O, reads a clock, or derives anything for a door or a database; each boundary keeps its
//! own shape and converts by hand.

pub mod address;
pub mod clock;
pub mod context;
pub mod error;
pub mod failure;
pub mod job;
pub mod json_text;
pub mod month;
pub mod page;
pub mod queue;
pub mod tally;
pub mod transition;
pub mod words;

pub use clock::Clock;
pub use context::{Credential, Origin, RequestId};
pub use error::{Error, Reason, Result};
pub use json_text::JsonText;
pub use month::Month;

/// An instant in UTC, cut to microseconds: what both databases keep.
pub type Instant = chrono::DateTime<chrono::Utc>;
/// Free-form JSON.
pub type Json = serde_json::Value;
