//! What things are: plain data and pure rules. Nothing here performs I/O or reads a clock.

pub mod batch;
pub mod decision;
pub mod media;
pub mod outbox;
pub mod usage;
pub mod user;

pub use upbridge_service::model::{Clock, Error, Instant, Json, Month, Reason, RequestId, Result};
