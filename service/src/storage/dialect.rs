//! The only place that asks which database it is: how to connect, what to check, how rows are locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement, TransactionOptions,
    Value,
};
use sea_orm::{RuntimeErr, sqlx};
use upbridge_migrations::{Direction, Migrations};

use super::rows::{self, Piece};
use super::{Options, code, fault};
use crate::model::{Error, Result};

/// Older versions have a bug in WAL recovery that can lose a committed transaction.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// An embedded file.
    Sqlite,
    /// A server that hubs can share.
    Postgres,
}

/// A claim on a SQLite file; released when the process ends, however it ends.
pub struct FileLock(#[allow(dead_code)] File); // never read: it is held open for its lock

impl Dialect {
    /// Reads the database's kind from its URL.
    pub fn of(url: &str) -> Result<Dialect> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("sqlite") if sqlite_path(url).is_some() => Ok(Dialect::Sqlite),
            Some("postgres" | "postgresql") => Ok(Dialect::Postgres),
            _ => Err(Error::invalid(
                "DATABASE_URL",
                "must be sqlite://<file>?mode=rwc or postgres://<user>@<host>/<database>",
            )),
        }
    }

    /// The database's name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgres",
        }
    }

    fn backend(self) -> DbBackend {
        match self {
            Dialect::Sqlite => DbBackend::Sqlite,
            Dialect::Postgres => DbBackend::Postgres,
        }
    }

    /// How rows of `width` cells travel, of which those in the columns `json` are JSON.
    pub(super) fn pieces(self, width: usize, cells: Vec<Value>, json: u64) -> Vec<Piece> {
        match self {
            Dialect::Sqlite => rows::values(width, cells).collect(),
            Dialect::Postgres => rows::arrays(width, cells, json),
        }
    }

    /// A row's user as the indexes by key and by name hold it; the migration says why.
    pub fn user_in_index(self, table: &str) -> String {
        match self {
            Dialect::Sqlite => format!("{table}.user_id"),
            Dialect::Postgres => format!("uuid_send({table}.user_id)"),
        }
    }

    /// A statement with placeholders written `$1`, which both databases read.
    pub fn statement(self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// Claims a SQLite file for this process: its caches and its one writer would be wrong beside another hub.
    pub fn claim(self, url: &str) -> Result<Option<FileLock>> {
        let Some(path) = sqlite_path(url).filter(|_| self == Dialect::Sqlite) else { return Ok(None) };
        let broken = |error: std::io::Error| Error::unavailable(format!("{}: {error}", path.display()));
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            create_private_directory(directory).map_err(broken)?;
        }
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(Path::new(&lock_path)).map_err(broken)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock(file))),
            Err(TryLockError::WouldBlock) => Err(Error::invalid(
                "DATABASE_URL",
                format!("names {}, which another hub is using; several hubs need PostgreSQL", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(broken(error)),
        }
    }

    /// Transactions that write at once. SQLite has one writer; of PostgreSQL, one is at work while another waits for
    /// its disk.
    pub(super) fn writers(self) -> u32 {
        match self {
            Dialect::Sqlite => 1,
            Dialect::Postgres => 2,
        }
    }

    /// Opens a pool, which counts what is given back to it. On SQLite one that only reads cannot write.
    pub(super) async fn connect(
        self,
        options: &Options,
        connections: u32,
        only_reads: bool,
        returned: &Arc<AtomicU64>,
    ) -> Result<DatabaseConnection> {
        let wait = options.wait;
        let mut connect = ConnectOptions::new(&options.url);
        connect.max_connections(connections).min_connections(1).acquire_timeout(wait).sqlx_logging(false);
        // A broken connection is noticed by its next statement; a ping before each would double every read.
        connect.test_before_acquire(false);
        match self {
            Dialect::Sqlite => {
                connect.map_sqlx_sqlite_opts(move |sqlite| {
                    let sqlite = sqlite
                        .journal_mode(SqliteJournalMode::Wal)
                        .synchronous(SqliteSynchronous::Full)
                        .busy_timeout(wait)
                        .foreign_keys(true)
                        .statement_cache_capacity(256)
                        .pragma("cache_size", if only_reads { "-4096" } else { "-65536" })
                        // A checkpoint writes each changed page once, however often the log holds it.
                        .pragma("wal_autocheckpoint", "8000")
                        .pragma("temp_store", "memory")
                        .pragma("journal_size_limit", "67108864");
                    if only_reads { sqlite.pragma("query_only", "on") } else { sqlite }
                });
            }
            Dialect::Postgres => {
                // A hub that loses its power or its network must not hold rows that others wait for.
                const SESSION: [(&str, &str); 5] = [
                    ("jit", "off"),
                    ("idle_in_transaction_session_timeout", "15000"),
                    ("tcp_keepalives_idle", "10"),
                    ("tcp_keepalives_interval", "5"),
                    ("tcp_keepalives_count", "3"),
                ];
                // A statement's plan is kept, and may have been made while the table was young: every lookup of the
                // writer has its index and must not become a walk through a table that has grown since. Planning each
                // anew instead would do so for the check of each foreign key too, row by row.
                const PLANNING: [(&str, &str); 2] = [("enable_seqscan", "off"), ("enable_mergejoin", "off")];
                let returned = returned.clone();
                connect
                    .map_sqlx_postgres_pool_opts(move |pool| super::pool::let_go_of_the_silent(pool, returned.clone()));
                connect.map_sqlx_postgres_opts(move |postgres| {
                    let session = postgres.application_name("upbridge").statement_cache_capacity(256).options(SESSION);
                    if only_reads { session } else { session.options(PLANNING) }
                });
            }
        }
        Database::connect(connect).await.map_err(|error| match error {
            // The URL may hold a password, and the error of one that cannot be read repeats it.
            DbErr::Conn(RuntimeErr::Internal(_)) => Error::invalid("DATABASE_URL", "cannot be read as a URL"),
            DbErr::Conn(RuntimeErr::SqlxError(inner)) if matches!(&*inner, sqlx::Error::Configuration(_)) => {
                Error::invalid("DATABASE_URL", "cannot be read as a URL")
            }
            error if code(&error).as_deref() == Some("14") => {
                Error::unavailable("SQLite cannot open the file of DATABASE_URL; a new one needs ?mode=rwc")
            }
            error => fault(error),
        })
    }

    /// Closes SQLite's one writing connection after a transaction that did not end as it should; the pool opens another.
    ///
    /// SQLite undoes a transaction by itself when COMMIT fails, and the driver, which does not know, would take the
    /// next transaction for a part of the one it still believes in. A PostgreSQL connection that fails is closed by
    /// the driver.
    pub async fn discard(self, connection: &DatabaseConnection) {
        if self == Dialect::Postgres {
            return;
        }
        let closed = match connection.get_sqlite_connection_pool().acquire().await {
            Ok(broken) => broken.close().await,
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            tracing::warn!(%error, "a broken connection did not close cleanly");
        }
    }

    /// Brings the schema up or down, one process at a time.
    pub async fn migrate(
        self,
        write: &DatabaseConnection,
        options: &Options,
        migrations: Migrations,
        direction: Direction,
    ) -> Result<()> {
        let lock = match self {
            Dialect::Sqlite => write.clone(),
            Dialect::Postgres => self.connect(options, 1, false, &Arc::default()).await?,
        };
        migrations.run(write, &lock, direction).await.map_err(fault)
    }

    /// Reads back what durability rests on.
    pub async fn check(self, connection: &DatabaseConnection) -> Result<()> {
        if self == Dialect::Postgres {
            return Ok(());
        }
        let version: String = self.one(connection, "SELECT sqlite_version()").await?;
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        if (next(), next(), next()) < OLDEST_SQLITE {
            return Err(Error::internal(format!("SQLite {version} is older than 3.51.3")));
        }
        let mode: String = self.one(connection, "PRAGMA journal_mode").await?;
        let synchronous: i64 = self.one(connection, "PRAGMA synchronous").await?;
        let foreign_keys: i64 = self.one(connection, "PRAGMA foreign_keys").await?;
        match (mode.as_str(), synchronous, foreign_keys) {
            ("wal", 2, 1) => Ok(()),
            found => {
                Err(Error::internal(format!("SQLite runs with (journal_mode, synchronous, foreign_keys) = {found:?}")))
            }
        }
    }

    async fn one<T: sea_orm::TryGetable>(self, connection: &DatabaseConnection, sql: &str) -> Result<T> {
        let row = connection.query_one_raw(self.statement(sql, [])).await.map_err(fault)?;
        row.ok_or_else(|| Error::internal(format!("{sql} has no answer")))?.try_get_by_index(0).map_err(fault)
    }

    /// How a write transaction begins. SQLite must take the write lock at once: a transaction that reads first and
    /// writes later fails with "database is locked" whatever the busy timeout.
    pub fn write_transaction(self) -> TransactionOptions {
        TransactionOptions {
            sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        }
    }

    /// Whether several hubs can share the database.
    pub fn is_shared(self) -> bool {
        self == Dialect::Postgres
    }

    /// One of two texts that say the same to each database: SQLite's first.
    pub fn pick<T>(self, texts: &[T; 2]) -> &T {
        &texts[usize::from(self == Dialect::Postgres)]
    }

    /// This instant by the database's clock, as the columns keep it.
    pub fn now(self) -> &'static str {
        match self {
            Dialect::Sqlite => "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
            Dialect::Postgres => "now()",
        }
    }

    /// Milliseconds since the instant in a column, by the database's clock.
    pub fn millis_since(self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CAST((julianday('now') - julianday({column})) * 86400000 AS BIGINT)"),
            Dialect::Postgres => format!("CAST(EXTRACT(EPOCH FROM now() - {column}) * 1000 AS BIGINT)"),
        }
    }

    /// An instant so long ago, by the database's clock.
    pub fn ago(self, time: Duration) -> String {
        match self {
            Dialect::Sqlite => {
                format!("strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '-{:.3} seconds')", time.as_secs_f64())
            }
            Dialect::Postgres => format!("now() - interval '{:.3} seconds'", time.as_secs_f64()),
        }
    }

    /// Asks for the bytes of the database and, where it is known, of the queue's tables.
    pub fn sizes(self) -> &'static str {
        match self {
            Dialect::Sqlite => {
                "SELECT page_count * page_size AS database, CAST(NULL AS BIGINT) AS queue \
                 FROM pragma_page_count(), pragma_page_size()"
            }
            Dialect::Postgres => {
                "SELECT pg_database_size(current_database()) AS database, \
                 CAST(pg_total_relation_size('jobs') + pg_total_relation_size('finished_jobs') AS BIGINT) AS queue"
            }
        }
    }

    /// What each row of a table has, whatever its key.
    pub fn row_name(self) -> &'static str {
        match self {
            Dialect::Sqlite => "rowid",
            Dialect::Postgres => "ctid",
        }
    }

    /// The columns of a row as the text of a JSON object.
    pub fn row_json(self, columns: &[(&'static str, Column)]) -> String {
        let member = |(name, column): &(&str, Column)| match (self, column) {
            (Dialect::Sqlite, Column::Json) => format!("'{name}', json({name})"),
            // Its bytes, written as a UUID is.
            (Dialect::Sqlite, Column::Uuid) => format!(
                "'{name}', lower(substr(hex({name}), 1, 8) || '-' || substr(hex({name}), 9, 4) || '-' || \
                 substr(hex({name}), 13, 4) || '-' || substr(hex({name}), 17, 4) || '-' || substr(hex({name}), 21))"
            ),
            _ => format!("'{name}', {name}"),
        };
        let members = columns.iter().map(member).collect::<Vec<_>>().join(", ");
        match self {
            Dialect::Sqlite => format!("json_object({members})"),
            Dialect::Postgres => format!("json_build_object({members})::text"),
        }
    }

    /// Unix seconds of a time, as a whole number.
    pub fn unix_seconds(self, time: &str) -> String {
        match self {
            Dialect::Sqlite => format!("CAST(strftime('%s', {time}) AS BIGINT)"),
            Dialect::Postgres => format!("CAST(floor(extract(epoch FROM {time})) AS BIGINT)"),
        }
    }

    /// Holds the rows a query of one table reads and passes by those that others hold, where there can be others.
    pub fn skip_locked(self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Postgres => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Holds the rows a query of one table reads as they are, beside others who do the same, and passes by those that
    /// others change, where there can be others.
    pub fn share_rows(self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Postgres => "FOR SHARE SKIP LOCKED",
        }
    }

    /// An update of a set: `changes` to each row of `table` that has the id of one of `rows`, and `word` in `column`.
    ///
    /// PostgreSQL keeps the plan it made while the table was young or few rows held that word, which would be to walk
    /// all that do, or to compare each row with each; so it is left no way but to look each id up.
    pub fn update_each(self, table: &str, changes: &str, rows: &str, (column, word): (&str, &str)) -> String {
        match self {
            Dialect::Sqlite => format!(
                "UPDATE {table} SET {changes} FROM {rows} WHERE {table}.id = {rows}.id AND {table}.{column} = '{word}'"
            ),
            Dialect::Postgres => format!(
                "UPDATE {table} SET {changes} FROM (SELECT {rows}.*, (SELECT found.ctid FROM {table} AS found \
                 WHERE found.id = {rows}.id) AS place FROM {rows} OFFSET 0) AS {rows} \
                 WHERE {table}.ctid = {rows}.place AND {table}.{column} || '' = '{word}'"
            ),
        }
    }

    /// Takes a lock on each kind and key of the rows `wanted` until the transaction ends, where there can be other
    /// hubs. In one order, so that two hubs never wait for each other.
    pub fn lock_keys(self) -> Option<String> {
        let key = lock_of("wanted.kind", "wanted.queue_key");
        let lock = || {
            format!(
                "SELECT pg_advisory_xact_lock(key)::text FROM (SELECT DISTINCT {key} AS key FROM wanted ORDER BY key \
                 OFFSET 0) AS keys"
            )
        };
        (self == Dialect::Postgres).then(lock)
    }

    /// Takes those of these locks that nobody else has, without waiting; answers with their kinds and keys.
    pub fn try_lock_keys(self) -> Option<String> {
        let lock = || {
            let is_mine = self.try_lock_key("wanted.kind", "wanted.queue_key");
            format!("SELECT kind, queue_key FROM wanted WHERE {is_mine}")
        };
        (self == Dialect::Postgres).then(lock)
    }

    /// A condition that takes the lock of a row's kind and key without waiting, and holds when it could.
    pub fn try_lock_key(self, kind: &str, key: &str) -> String {
        match self {
            Dialect::Sqlite => "true".to_owned(),
            Dialect::Postgres => format!("pg_try_advisory_xact_lock({})", lock_of(kind, key)),
        }
    }

    /// The clause that holds the rows a query reads until the transaction ends, where one is needed.
    pub fn hold_rows(self) -> Option<&'static str> {
        match self {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some("FOR NO KEY UPDATE"),
        }
    }
}

/// The number PostgreSQL knows the lock of a kind and key by.
fn lock_of(kind: &str, key: &str) -> String {
    format!("hashtextextended({kind} || '/' || {key}, 0)")
}

/// Makes a directory, when it is missing, that its owner alone can look into: databases hold password hashes.
pub fn create_private_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// How a column goes into JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// As it is.
    Plain,
    /// As JSON of its own.
    Json,
    /// As the text of a UUID.
    Uuid,
}

/// Whether the database is locked, full or gone, so that the same call may succeed later.
pub fn is_unavailable(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner)) => match &**inner {
            sqlx::Error::Database(_) => code(error).is_some_and(|code| is_unavailable_code(&code)),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            _ => false,
        },
        _ => false,
    }
}

/// SQLite's result codes are numbers, extended ones with the primary in the low byte; PostgreSQL's have 5 characters.
fn is_unavailable_code(code: &str) -> bool {
    if code.len() == 5 && !code.starts_with('-') && code.parse::<u32>().is_err() {
        return is_unavailable_sqlstate(code);
    }
    match code.parse::<u32>() {
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6 | 7 | 8 | 10 | 11 | 13 | 14 | 15 | 26),
        _ => is_unavailable_sqlstate(code),
    }
}

fn is_unavailable_sqlstate(code: &str) -> bool {
    // Connection lost, resources short, operator intervention, read-only server, serialization failure, deadlock.
    ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || ["25006", "40001", "40P01", "55P03"].contains(&code)
}

/// The file of a SQLite URL; `None` for a database in memory, which cannot be shared by a writer and readers.
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_database() {
        assert_eq!(Dialect::of("sqlite://data/upbridge.db?mode=rwc").ok(), Some(Dialect::Sqlite));
        assert_eq!(Dialect::of("postgres://a@b/c").ok(), Some(Dialect::Postgres));
        for bad in ["sqlite::memory:", "sqlite://:memory:", "mysql://a", "", "data.db"] {
            assert!(Dialect::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_that_is_locked_full_or_gone_is_told_from_a_mistake() {
        for code in ["5", "6", "10", "13", "14", "517", "778", "3338", "08006", "53100", "57P01", "40P01", "25006"] {
            assert!(is_unavailable_code(code), "{code}");
        }
        for code in ["1", "19", "787", "1555", "2067", "23505", "42601", "22P02"] {
            assert!(!is_unavailable_code(code), "{code}");
        }
    }
}
