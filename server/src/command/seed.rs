//! `upbridge seed`: what an empty database is given.

use clap::{Args, Subcommand};
use upbridge_server::domain::Hub;

use super::print;
use super::table::columns;

/// Add the product's plans to a database that has none, or sample data. On SQLite the hub must not be running.
#[derive(Args)]
pub struct Seed {
    /// What to add; the plans when nothing is said.
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Add a partner with an inactive integration of every provider and one inactive webhook, none of them real. What is
    /// there already stays as it is.
    #[command(alias = "20260221-sample-integrations")]
    SampleIntegrations {
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
}

impl Seed {
    /// Adds what is missing.
    pub async fn run(self, hub: &Hub) -> anyhow::Result<()> {
        match self.what {
            None => {
                let plans = hub.seed_plans().await?;
                eprintln!("{plans} plans added");
                Ok(())
            }
            Some(What::SampleIntegrations { json }) => sample_integrations(hub, json).await,
        }
    }
}

async fn sample_integrations(hub: &Hub, json: bool) -> anyhow::Result<()> {
    let samples = hub.seed_sample_integrations().await?;
    if json {
        for one in &samples {
            let object = serde_json::json!({ "kind": one.kind, "name": one.name, "id": one.id, "new": one.is_new });
            print(&object.to_string())?;
        }
    } else {
        let row = |one: &upbridge_server::domain::sample::Sample| {
            let was = if one.is_new { "added" } else { "was there" };
            [one.kind.to_owned(), one.name.clone(), one.id.to_string(), was.to_owned()]
        };
        print(&columns(["KIND", "NAME", "ID", ""], &samples.iter().map(row).collect::<Vec<_>>()))?;
    }
    eprintln!(
        "{} added, {} were there",
        samples.iter().filter(|one| one.is_new).count(),
        samples.iter().filter(|one| !one.is_new).count()
    );
    Ok(())
}
