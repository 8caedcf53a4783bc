//! The database as operators look at it, beside a hub that runs or without one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseConnection, TryGetable};

use super::dialect::Dialect;
use super::{Options, asked};
use crate::model::Result;

/// Rows of a table counted one by one; beyond, its size is estimated.
const COUNTED: i64 = 100_000;
/// The names of the tables; like the others, SQLite's text first.
const TABLES: [&str; 2] = [
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename",
];
/// About how many rows a table has, without counting them.
const ESTIMATE: [&str; 2] = [
    "SELECT COALESCE(MAX(rowid), 0) FROM {table}",
    "SELECT GREATEST(reltuples, 0)::BIGINT FROM pg_class WHERE oid = '{table}'::regclass",
];
const VERSION: [&str; 2] = ["SELECT sqlite_version()", "SELECT current_setting('server_version')"];
/// How many are connected, where others can be.
const CONNECTIONS: [Option<&str>; 2] =
    [None, Some("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()")];
const DATABASE_BYTES: [&str; 2] = [
    "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "SELECT pg_database_size(current_database())",
];
/// Bytes of the queue's tables with their indexes; SQLite walks over them.
const QUEUE_BYTES: [&str; 2] = [
    "SELECT COALESCE(SUM(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name IN (SELECT name FROM sqlite_master \
     WHERE tbl_name IN ('jobs', 'finished_jobs'))",
    "SELECT CAST(SUM(pg_total_relation_size(tablename::regclass)) AS BIGINT) FROM pg_tables \
     WHERE schemaname = current_schema() AND tablename IN ('jobs', 'finished_jobs')",
];

/// How the database is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// The version of SQLite, or of PostgreSQL's server.
    pub version: String,
    /// How long a question took.
    pub round_trip: Duration,
    /// Connections a hub of this configuration reads with; writing has one more.
    pub pool_size: u32,
    /// Connections of everybody to this database, where that is known.
    pub connections: Option<i64>,
    /// Bytes of the whole database.
    pub bytes: i64,
    /// Bytes of the queue's tables with their indexes, where that is known.
    pub queue_bytes: Option<i64>,
    /// Every table, by name.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: i64,
    /// Whether `rows` is an estimate: an upper bound on SQLite, the planner's guess on PostgreSQL.
    pub is_estimate: bool,
}

/// Looks at the database without claiming it, so a hub may be using it.
pub async fn status(options: &Options) -> Result<Status> {
    let dialect = Dialect::of(&options.url)?;
    let read = dialect.connect(options, 1, true, &Arc::default()).await?;
    let begun = Instant::now();
    let _: i32 = one(&read, dialect, "SELECT 1").await?;
    let round_trip = begun.elapsed();
    let mut tables = Vec::new();
    for row in asked(read.query_all_raw(dialect.statement(*dialect.pick(&TABLES), []))).await? {
        let name: String = row.try_get_by_index(0).map_err(super::fault)?;
        let counted = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {name} LIMIT {COUNTED}) AS counted");
        let counted: i64 = one(&read, dialect, &counted).await?;
        let is_estimate = counted == COUNTED;
        let rows = match is_estimate {
            true => one(&read, dialect, &dialect.pick(&ESTIMATE).replace("{table}", &name)).await?,
            false => counted,
        };
        tables.push(Table { name, rows, is_estimate });
    }
    Ok(Status {
        backend: dialect.name(),
        version: one(&read, dialect, dialect.pick::<&str>(&VERSION)).await?,
        round_trip,
        pool_size: options.read_connections,
        connections: match dialect.pick(&CONNECTIONS) {
            Some(sql) => Some(one(&read, dialect, sql).await?),
            None => None,
        },
        bytes: one(&read, dialect, dialect.pick::<&str>(&DATABASE_BYTES)).await?,
        // A SQLite without its page statistics cannot say; that is no reason to say nothing else.
        queue_bytes: one(&read, dialect, dialect.pick::<&str>(&QUEUE_BYTES)).await.ok(),
        tables,
    })
}

/// Bytes the queue takes in the database, where that is known without walking over it.
pub async fn queue_bytes(read: &DatabaseConnection, dialect: Dialect) -> Result<Option<i64>> {
    if !dialect.is_shared() {
        return Ok(None);
    }
    one(read, dialect, dialect.pick::<&str>(&QUEUE_BYTES)).await.map(Some)
}

async fn one<T: TryGetable>(connection: &DatabaseConnection, dialect: Dialect, sql: &str) -> Result<T> {
    let row = asked(connection.query_one_raw(dialect.statement(sql, []))).await?;
    let row = row.ok_or_else(|| crate::model::Error::internal(format!("{sql} has no answer")))?;
    row.try_get_by_index(0).map_err(super::fault)
}
