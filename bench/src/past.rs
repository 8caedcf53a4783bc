//! A past that the database makes itself: millions of rows through the front door would take an hour.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// Rows made in one transaction, so that the log does not grow to the size of the table.
const MADE: usize = 250_000;
/// Days a past reaches back, evenly.
pub const DAYS: i64 = 90;

/// How one of the two databases makes rows.
#[derive(Clone, Copy)]
pub struct Making {
    /// Whether it is PostgreSQL.
    pub is_postgres: bool,
    from: i64,
    rows: usize,
}

impl Making {
    /// A past of so many `rows` that ends at `now`, in unix seconds.
    pub fn new(database_url: &str, rows: usize, now: i64) -> Making {
        Making { is_postgres: database_url.starts_with("postgres"), from: now - DAYS * 86_400, rows }
    }

    /// The id of row `n`.
    pub fn id(self) -> &'static str {
        if self.is_postgres { "lpad(to_hex(n), 32, '0')::uuid" } else { "unhex(printf('%032x', n))" }
    }

    /// When row `n` was.
    pub fn at(self) -> String {
        let second = format!("({} + n * {} / {})", self.from, DAYS * 86_400, self.rows);
        match self.is_postgres {
            true => format!("to_timestamp({second})"),
            false => format!("strftime('%Y-%m-%dT%H:%M:%f+00:00', {second}, 'unixepoch')"),
        }
    }

    /// When a row was, in unix seconds.
    pub fn unix(self) -> &'static str {
        match self.is_postgres {
            true => "CAST(floor(extract(epoch FROM created_at)) AS BIGINT)",
            false => "CAST(strftime('%s', created_at) AS BIGINT)",
        }
    }

    /// Statements that `insert` the `values` of every row `n`.
    pub fn fill(self, insert: &str, values: &str) -> impl Iterator<Item = String> {
        let fill = move |first: usize| {
            let last = self.rows.min(first + MADE) - 1;
            match self.is_postgres {
                true => format!("{insert} SELECT {values} FROM generate_series({first}::bigint, {last}) AS series(n)"),
                false => format!(
                    "{insert} WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series \
                     WHERE n < {last}) SELECT {values} FROM series"
                ),
            }
        };
        (0..self.rows).step_by(MADE).map(fill).collect::<Vec<_>>().into_iter()
    }

    /// Runs statements, one after the other, and has the database look at what it holds now.
    pub async fn run(self, database_url: &str, statements: Vec<String>) -> Result<()> {
        let statements = statements.into_iter().chain(["ANALYZE".to_owned()]);
        if self.is_postgres {
            let mut connection = PgConnection::connect(database_url).await?;
            for statement in statements {
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
            connection.close().await?;
        } else {
            let mut connection = SqliteConnection::connect(database_url).await?;
            for statement in statements {
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
            connection.close().await?;
        }
        Ok(())
    }
}
