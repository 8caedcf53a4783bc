//! The variables of the webhooks the hub sends.

use std::time::Duration;

use upbridge_service::config::Reader;

/// How webhooks are told.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// `WEBHOOK_CONCURRENCY`
    pub concurrency: usize,
    /// `WEBHOOK_ENDPOINT_CONCURRENCY`
    pub endpoint_concurrency: usize,
    /// `WEBHOOK_TIMEOUT`
    pub timeout: Duration,
    /// `WEBHOOK_DISABLE_AFTER`
    pub disable_after: i32,
}

/// Reads them.
pub(super) fn read(reader: &mut Reader<'_>) -> Hooks {
    Hooks {
        concurrency: reader.number("WEBHOOK_CONCURRENCY", 64, 1, 10_000) as usize,
        endpoint_concurrency: reader.number("WEBHOOK_ENDPOINT_CONCURRENCY", 16, 1, 1_000) as usize,
        timeout: reader.seconds("WEBHOOK_TIMEOUT", 15, 1, 120),
        disable_after: reader.number("WEBHOOK_DISABLE_AFTER", 10, 1, 1_000_000) as i32,
    }
}
