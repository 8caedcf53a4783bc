//! `upbridge db-status`: the database as operators look at it.

use clap::Args;
use upbridge_server::storage;

use super::print;
use super::table::{bytes, columns};

/// Show the database: version, connections, migrations, sizes, rows of each table. A hub may be using it.
#[derive(Args)]
pub struct DbStatus {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DbStatus {
    /// Looks and prints.
    pub async fn run(self, options: &storage::Options) -> anyhow::Result<()> {
        let status = storage::status::status(options).await?;
        let migrations = storage::migration_status(options).await?;
        let pending: Vec<&str> = migrations.iter().filter(|one| !one.applied).map(|one| one.name.as_str()).collect();
        let newest = migrations.iter().rfind(|one| one.applied).map(|one| one.name.as_str());
        if self.json {
            let table = |table: &storage::status::Table| serde_json::json!({ "name": table.name, "rows": table.rows, "is_estimate": table.is_estimate });
            return print(&serde_json::to_string(&serde_json::json!({
                "backend": status.backend,
                "version": status.version,
                "round_trip_us": status.round_trip.as_micros() as u64,
                "pool_size": status.pool_size,
                "connections": status.connections,
                "migration": newest,
                "pending_migrations": pending,
                "bytes": status.bytes,
                "queue_bytes": status.queue_bytes,
                "tables": status.tables.iter().map(table).collect::<Vec<_>>(),
            }))?);
        }
        let unknown = || "unknown".to_owned();
        let rows = status.tables.iter().map(|table| {
            let about = if table.is_estimate { "about " } else { "" };
            [table.name.clone(), format!("{about}{}", table.rows)]
        });
        let rows: Vec<[String; 2]> = rows.collect();
        print(&format!(
            "{} {}, answers in {} µs\nconnections {}, this configuration reads with {} and writes with 1\n\
             migration {}, {} pending\nsize {}, of it the queue {}\n\n{}",
            status.backend,
            status.version,
            status.round_trip.as_micros(),
            status.connections.map_or_else(unknown, |count| count.to_string()),
            status.pool_size,
            newest.unwrap_or("none"),
            pending.len(),
            bytes(status.bytes),
            status.queue_bytes.map_or_else(unknown, bytes),
            columns(["TABLE", "ROWS"], &rows)
        ))
    }
}
