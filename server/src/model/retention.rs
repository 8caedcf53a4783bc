//! How long things are kept.

use chrono::TimeDelta;

use super::Instant;
use super::words::words;

/// What tells a repeated webhook is kept for this long at least: senders may send again for weeks.
pub const LEAST_RECEIPT_DAYS: u32 = 30;
/// The least for the callbacks of providers, which send again for weeks too.
pub const LEAST_CALLBACK_RECEIPT_DAYS: u32 = 30;
/// Counts of minutes and of hours are kept for so long; those of days for ever.
pub const MINUTE_COUNT_DAYS: i64 = 3;
/// See [`MINUTE_COUNT_DAYS`].
pub const HOUR_COUNT_DAYS: i64 = 400;
/// Counts of what happened to integrations in a minute are kept for so long: the longest window of their health is 30
/// days, and begins with a whole minute.
pub const INTEGRATION_MINUTE_DAYS: i64 = 32;

words! {
    /// A table whose rows have an end.
    Table {
        /// Sync events that are over, by when they were.
        SyncEvents = "sync_events",
        /// Webhooks that came in, by when they came.
        WebhookLogs = "webhook_logs",
        /// What tells a repeated webhook, by when it was received.
        WebhookReceipts = "webhook_receipts",
        /// Sessions, by when they expired.
        Sessions = "sessions",
        /// Alerts that are cleared, by when they were.
        Alerts = "alerts",
        /// What happened to integrations, by when it did.
        IntegrationLogs = "integration_logs",
        /// What tells a repeated callback of a provider, by when it was received.
        IntegrationReceipts = "integration_receipts",
        /// Deliveries to partners' webhooks that are over, by when they were.
        WebhookDeliveries = "webhook_deliveries",
    }
}

impl Table {
    /// Whether its rows are worth keeping elsewhere: what happened is, what only told a repetition or a session is not.
    pub fn is_archived(self) -> bool {
        match self {
            Table::SyncEvents | Table::WebhookLogs | Table::Alerts => true,
            Table::IntegrationLogs | Table::WebhookDeliveries => true,
            Table::WebhookReceipts | Table::Sessions | Table::IntegrationReceipts => false,
        }
    }
}

/// Days each table is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `RETENTION_EVENTS_DAYS`
    pub events: u32,
    /// `RETENTION_WEBHOOK_LOGS_DAYS`
    pub webhook_logs: u32,
    /// `RETENTION_WEBHOOK_RECEIPTS_DAYS`
    pub webhook_receipts: u32,
    /// `RETENTION_SESSIONS_DAYS`
    pub sessions: u32,
    /// `RETENTION_ALERTS_DAYS`
    pub alerts: u32,
    /// `RETENTION_INTEGRATION_LOGS_DAYS`
    pub integration_logs: u32,
    /// `RETENTION_INTEGRATION_RECEIPTS_DAYS`
    pub integration_receipts: u32,
    /// `RETENTION_WEBHOOK_DELIVERIES_DAYS`
    pub webhook_deliveries: u32,
}

impl Retention {
    /// Days a table is kept, or `days` where somebody says so; never less than the table needs.
    pub fn days(&self, table: Table, days: Option<u32>) -> u32 {
        let own = match table {
            Table::SyncEvents => self.events,
            Table::WebhookLogs => self.webhook_logs,
            Table::WebhookReceipts => self.webhook_receipts,
            Table::Sessions => self.sessions,
            Table::Alerts => self.alerts,
            Table::IntegrationLogs => self.integration_logs,
            Table::IntegrationReceipts => self.integration_receipts,
            Table::WebhookDeliveries => self.webhook_deliveries,
        };
        let least = match table {
            Table::WebhookReceipts => LEAST_RECEIPT_DAYS,
            Table::IntegrationReceipts => LEAST_CALLBACK_RECEIPT_DAYS,
            _ => 0,
        };
        days.unwrap_or(own).max(least)
    }

    /// What is older than this is past its retention.
    pub fn before(&self, table: Table, days: Option<u32>, now: Instant) -> Instant {
        now - TimeDelta::days(self.days(table, days).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_a_repeated_webhook_outlives_any_wish() {
        let kept = Retention {
            events: 90,
            webhook_logs: 90,
            webhook_receipts: 45,
            sessions: 30,
            alerts: 365,
            integration_logs: 90,
            integration_receipts: 90,
            webhook_deliveries: 30,
        };
        assert_eq!(kept.days(Table::IntegrationReceipts, Some(1)), 30);
        assert_eq!(kept.days(Table::WebhookReceipts, Some(1)), 30);
        assert_eq!(kept.days(Table::WebhookReceipts, None), 45);
        assert_eq!(kept.days(Table::SyncEvents, Some(1)), 1);
        let now = "2026-03-31T00:00:00Z".parse().unwrap();
        assert_eq!(kept.before(Table::Sessions, None, now).to_rfc3339(), "2026-03-01T00:00:00+00:00");
    }
}
