//! The tables as SeaORM sees them; nobody outside `storage` does.

pub mod batch;
pub mod outbox;
pub mod usage_record;
pub mod user;
pub mod verified_token;
