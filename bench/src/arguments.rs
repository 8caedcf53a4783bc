//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::load::Pace;
use crate::target::{self, Target};

/// Measures the hub against a bare server in the same run and prints a Markdown table.
#[derive(Debug, Parser)]
#[command(name = "upbridge-bench", version)]
pub struct Arguments {
    /// What to measure; everything when nothing is named
    #[arg(value_enum)]
    pub scenarios: Vec<Scenario>,
    /// The hub's executable; `upbridge` beside this one when absent
    #[arg(long, value_name = "PATH")]
    pub hub: Option<PathBuf>,
    /// A PostgreSQL database to run the hub on, empty or migrated; a fresh SQLite file when absent
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Writes the table to this file too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Rounds of each measurement, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// One round of half a second and 20,000 rows: does everything work, not how fast
    #[arg(long)]
    pub quick: bool,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The bare tonic server, against itself: how far two equal things differ on this machine
    Bare,
    /// VerifyToken with the tokens of 64 users
    VerifyToken,
    /// CheckFeatureAccess by the same users
    CheckFeatureAccess,
    /// RecordUsage, every report with a key of its own
    RecordUsage,
    /// RecordUsageStream, messages of 1,000 reports, against a loop of bare inserts
    RecordUsageStream,
    /// VerifyToken, CheckFeatureAccess and RecordUsage as HTTP/JSON, against gRPC
    Http,
    /// CreatorUp's usage webhook over 64 connections, against a bare axum handler
    Webhook,
    /// GetMonthlyUsage on a large ledger against a small one
    MonthlyUsage,
    /// GetSyncAnalytics over a long history of events against a short one, one call at a time
    Analytics,
    /// Health and log of an integration with a long past against one with a short one, one call at a time
    Integrations,
    /// Memory and start-up time
    Footprint,
    /// The event queue from end to end, in this process
    Queue,
    /// Webhooks out, in this process, to a receiver that is another
    Hooks,
}

impl Arguments {
    /// Whether to measure that.
    pub fn wants(&self, scenario: Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&scenario)
    }

    /// How long and how often.
    pub fn pace(&self) -> Pace {
        if self.quick {
            return Pace { rounds: 1, warm_up: Duration::from_millis(200), window: Duration::from_millis(500) };
        }
        Pace { rounds: self.rounds, warm_up: Duration::from_secs(1), window: Duration::from_secs(3) }
    }

    /// How long producers and workers of the queue go on together.
    pub fn queue_window(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 60 })
    }

    /// What the queue has to reach with 64 and with 512 producers.
    pub fn queue_target(&self, place: usize) -> Target {
        match self.postgres {
            Some(_) => target::QUEUE_POSTGRES[place],
            None => target::QUEUE[place],
        }
    }

    /// Jobs that wait for a claim, few and many, and jobs that are rescued.
    pub fn queue_backlogs(&self) -> (usize, usize, usize) {
        if self.quick { (1_000, 20_000, 1_000) } else { (1_000, 1_000_000, 10_000) }
    }

    /// The lengths of the histories that GetSyncAnalytics is compared on, in events, and health and logs of integrations.
    pub fn histories(&self) -> (usize, usize) {
        if self.quick { (5_000, 50_000) } else { (50_000, 5_000_000) }
    }

    /// The sizes of the ledgers that GetMonthlyUsage is compared on.
    pub fn ledger_rows(&self) -> (usize, usize) {
        if self.quick { (2_000, 20_000) } else { (10_000, 1_000_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_named_means_everything() {
        let all = Arguments::parse_from(["upbridge-bench", "--quick"]);
        assert!(all.wants(Scenario::Bare) && all.wants(Scenario::Footprint));
        let one = Arguments::parse_from(["upbridge-bench", "verify-token"]);
        assert!(one.wants(Scenario::VerifyToken) && !one.wants(Scenario::Bare));
    }
}
