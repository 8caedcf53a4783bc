//! How long things are kept, and what becomes of them then.

use std::path::PathBuf;
use std::time::Duration;

use upbridge_service::config::Reader;

use crate::model::retention::{LEAST_CALLBACK_RECEIPT_DAYS, LEAST_RECEIPT_DAYS, Retention};

/// Ten years.
const MOST_DAYS: u64 = 3_650;

/// `CLEANUP_INTERVAL`, `CLEANUP_ARCHIVE_DIR` and the days of each table.
#[derive(Clone, Debug)]
pub struct Cleanup {
    /// How often what is past its retention is removed; `None` is never, unless an administrator asks for it.
    pub interval: Option<Duration>,
    /// Where rows are written before they are removed; nowhere when absent.
    pub archive: Option<PathBuf>,
    /// Days each table is kept.
    pub retention: Retention,
}

/// Reads them.
pub(super) fn read(reader: &mut Reader<'_>) -> Cleanup {
    let mut days = |name, default, least| reader.number(name, default, least, MOST_DAYS) as u32;
    let retention = Retention {
        events: days("RETENTION_EVENTS_DAYS", 90, 1),
        webhook_logs: days("RETENTION_WEBHOOK_LOGS_DAYS", 90, 1),
        webhook_receipts: days("RETENTION_WEBHOOK_RECEIPTS_DAYS", 45, u64::from(LEAST_RECEIPT_DAYS)),
        sessions: days("RETENTION_SESSIONS_DAYS", 30, 1),
        alerts: days("RETENTION_ALERTS_DAYS", 365, 1),
        integration_logs: days("RETENTION_INTEGRATION_LOGS_DAYS", 90, 1),
        integration_receipts: days("RETENTION_INTEGRATION_RECEIPTS_DAYS", 90, u64::from(LEAST_CALLBACK_RECEIPT_DAYS)),
        webhook_deliveries: days("RETENTION_WEBHOOK_DELIVERIES_DAYS", 30, 1),
    };
    Cleanup {
        interval: match reader.text("CLEANUP_INTERVAL", "86400000").as_str() {
            "off" => None,
            _ => Some(reader.millis("CLEANUP_INTERVAL", 86_400_000, 100, 31 * 86_400_000)),
        },
        archive: reader.optional("CLEANUP_ARCHIVE_DIR").map(PathBuf::from),
        retention,
    }
}
