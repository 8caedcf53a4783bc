//! One entity per table, known to this room alone. Words are checked where rows become the model.

pub mod audit;
pub mod integration_log;
pub mod integration_webhook;
pub mod partner;
pub mod partner_integration;
pub mod plan;
pub mod session;
pub mod subscription;
pub mod sync_event;
pub mod usage;
pub mod usage_monthly;
pub mod usage_revision;
pub mod user;
pub mod webhook_delivery;
pub mod webhook_log;
