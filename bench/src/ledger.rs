//! Reports in bulk: the stream into the hub, and the loop of bare inserts it is measured against.
//!
//! Both take 20,000 records at a time, prepared before the clock starts, and are durable every 1,000: the stream
//! by its messages, the loop by its transactions of two inserts of 500 rows. The loop's table has the columns of
//! a ledger row, a primary key, and the unique index that makes a record count once; it has no totals, no quota,
//! no events, and nobody to answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost_types::value::Kind;
use prost_types::{Struct, Timestamp, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tonic::Request;
use tonic::transport::Channel;
use upbridge_client::v1;
use upbridge_client::v1::usage_service_client::UsageServiceClient;
use uuid::Uuid;

use crate::hub::{FEATURE, SERVICE_KEY, Scratch, User, now_seconds};
use crate::load::LANES;
use crate::process;

/// Reports in a stream.
pub const STREAM: usize = 20_000;
/// Reports in a message, and rows in a transaction.
const MESSAGE: usize = 1_000;
/// Rows in an insert.
const INSERT: usize = 500;
/// A stream that takes longer than this is broken, not slow.
const LONGEST_STREAM: Duration = Duration::from_secs(300);

/// A name of its own for every batch, numbered as renderers number their work.
fn batch_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("batch {:09}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A finished batch of one unit.
pub fn usage(month_year: &str) -> v1::UsageData {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let metadata = [("codec".to_owned(), text("h264")), ("resolution".to_owned(), text("1920x1080"))];
    v1::UsageData {
        batch_name: batch_name(),
        batch_type: "video".to_owned(),
        usage_type: FEATURE.to_owned(),
        usage_amount: Some(1),
        month_year: Some(month_year.to_owned()),
        completed_at: Some(Timestamp { seconds: now_seconds(), nanos: 0 }),
        metadata: Some(Struct { fields: metadata.into() }),
        usage_id: None,
    }
}

/// The same as the body of an HTTP request.
pub fn usage_json(month_year: &str, key: &str) -> String {
    serde_json::json!({
        "usage_data": {
            "batch_name": batch_name(),
            "batch_type": "video",
            "usage_type": FEATURE,
            "usage_amount": 1,
            "month_year": month_year,
            "completed_at": Timestamp { seconds: now_seconds(), nanos: 0 }.to_string(),
            "metadata": {"codec": "h264", "resolution": "1920x1080"},
        },
        "idempotency_key": key,
    })
    .to_string()
}

/// The body of CreatorUp's usage webhook, of a batch of its own.
pub fn webhook_json(user_id: &str, month_year: &str, batch: &str) -> String {
    serde_json::json!({
        "digiup_user_id": user_id,
        "usage_data": {
            "batch_name": batch,
            "batch_type": "video",
            "usage_type": FEATURE,
            "usage_amount": 1,
            "month_year": month_year,
            "completed_at": Timestamp { seconds: now_seconds(), nanos: 0 }.to_string(),
            "metadata": {"codec": "h264", "resolution": "1920x1080"},
        },
    })
    .to_string()
}

/// The stream, by the service's key and for all users in turn.
pub struct Stream<'a> {
    client: UsageServiceClient<Channel>,
    users: &'a [User],
    month_year: &'a str,
    /// Records made so far, by user.
    pub recorded: Vec<i64>,
}

impl<'a> Stream<'a> {
    /// A connection for streams of these users' reports.
    pub async fn new(port: u16, users: &'a [User], month_year: &'a str) -> Result<Stream<'a>> {
        let channel = process::connect(port, 1).await?.remove(0);
        let client = UsageServiceClient::new(channel).max_decoding_message_size(16 << 20);
        Ok(Stream { client, users, month_year, recorded: vec![0; users.len()] })
    }

    /// Records `rows` reports, [`STREAM`] at most, in one stream; how long the call took.
    pub async fn record(&mut self, rows: usize) -> Result<Duration> {
        let reports: Vec<_> = (0..rows).map(|row| self.report(row)).collect();
        let messages: Vec<_> =
            reports.chunks(MESSAGE).map(|chunk| v1::RecordUsageStreamRequest { reports: chunk.to_vec() }).collect();
        let mut request = Request::new(tokio_stream::iter(messages));
        request.metadata_mut().insert("x-api-key", SERVICE_KEY.parse()?);
        request.set_timeout(LONGEST_STREAM);
        let begin = Instant::now();
        let answer = self.client.record_usage_stream(request).await?.into_inner();
        let took = begin.elapsed();
        if let Some(refused) = answer.results.iter().find(|result| !result.reason.is_empty()) {
            anyhow::bail!("a report was refused: {} {} {}", refused.reason, refused.field, refused.message);
        }
        let created = usize::try_from(answer.created)?;
        ensure!(created == rows && answer.results.len() == rows, "{created} of {rows} reports were recorded");
        for row in 0..rows {
            self.recorded[row % self.users.len()] += 1;
        }
        Ok(took)
    }

    fn report(&self, row: usize) -> v1::UsageReport {
        v1::UsageReport {
            usage_data: Some(usage(self.month_year)),
            digiup_user_id: Some(self.users[row % self.users.len()].id.clone()),
            idempotency_key: Some(Uuid::new_v4().to_string()),
        }
    }
}

/// The loop of bare inserts.
pub struct Inserts {
    connection: Connection,
    statement: &'static str,
    user_ids: Vec<[u8; 16]>,
}

enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

struct Row {
    id: [u8; 16],
    user_id: [u8; 16],
    idempotency_key: String,
    at_ms: i64,
}

const TABLE: &str = "bench_ledger_scratch";
const COLUMNS: [&str; 15] = [
    "id",
    "user_id",
    "creatorup_user_id",
    "batch_name",
    "batch_type",
    "usage_type",
    "usage_amount",
    "month_year",
    "completed_at",
    "metadata",
    "idempotency_key",
    "source",
    "revision",
    "synced_at",
    "created_at",
];

/// The same statements on both databases, whose connections share no type.
macro_rules! on {
    ($connection:expr, $name:ident => $body:expr) => {
        match $connection {
            Connection::Sqlite($name) => $body,
            Connection::Postgres($name) => $body,
        }
    };
}

impl Inserts {
    /// An empty table, in a SQLite file of its own or in the given PostgreSQL database.
    pub async fn new(scratch: &Scratch, postgres: Option<&str>) -> Result<Inserts> {
        let mut connection = match postgres {
            Some(url) => Connection::Postgres(PgConnection::connect(url).await.context("the database of --postgres")?),
            None => {
                let options = SqliteConnectOptions::new()
                    .filename(scratch.path().join("inserts.db"))
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full);
                Connection::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
        };
        let bytes = if postgres.is_some() { "BYTEA" } else { "BLOB" };
        let create = format!(
            "CREATE TABLE {TABLE} (id {bytes} PRIMARY KEY, user_id {bytes} NOT NULL, creatorup_user_id TEXT NOT NULL, \
             batch_name TEXT NOT NULL, batch_type TEXT NOT NULL, usage_type TEXT NOT NULL, \
             usage_amount INTEGER NOT NULL, month_year TEXT NOT NULL, completed_at BIGINT, metadata TEXT, \
             idempotency_key TEXT, source TEXT NOT NULL, revision INTEGER NOT NULL, synced_at BIGINT NOT NULL, \
             created_at BIGINT NOT NULL, UNIQUE (user_id, idempotency_key))"
        );
        let drop = format!("DROP TABLE IF EXISTS {TABLE}");
        for statement in [drop, create] {
            on!(&mut connection, open => { sqlx::query(AssertSqlSafe(statement)).execute(open).await?; });
        }
        let statement = String::leak(statement(postgres.is_some())); // used for as long as the process lives
        let user_ids = (0..LANES).map(|_| Uuid::new_v4().into_bytes()).collect();
        Ok(Inserts { connection, statement, user_ids })
    }

    /// Inserts `rows` rows, durably a thousand at a time; how long that took.
    pub async fn record(&mut self, rows: usize, month_year: &str) -> Result<Duration> {
        ensure!(rows.is_multiple_of(INSERT), "rows come in inserts of {INSERT}");
        let at_ms = now_seconds() * 1000;
        let new = |row: usize| Row {
            id: Uuid::now_v7().into_bytes(),
            user_id: self.user_ids[row % self.user_ids.len()],
            idempotency_key: Uuid::new_v4().to_string(),
            at_ms,
        };
        let prepared: Vec<Row> = (0..rows).map(new).collect();
        let begin = Instant::now();
        for transaction in prepared.chunks(MESSAGE) {
            on!(&mut self.connection, open => {
                let mut open = open.begin().await?;
                for insert in transaction.chunks(INSERT) {
                    let mut query = sqlx::query(self.statement);
                    for row in insert {
                        query = query
                            .bind(&row.id[..])
                            .bind(&row.user_id[..])
                            .bind("")
                            .bind(batch_name())
                            .bind("video")
                            .bind(FEATURE)
                            .bind(1_i32)
                            .bind(month_year)
                            .bind(row.at_ms)
                            .bind(r#"{"codec":"h264","resolution":"1920x1080"}"#)
                            .bind(&row.idempotency_key)
                            .bind("stream")
                            .bind(0_i32)
                            .bind(row.at_ms)
                            .bind(row.at_ms);
                    }
                    query.execute(&mut *open).await?;
                }
                open.commit().await?;
            });
        }
        Ok(begin.elapsed())
    }

    /// Removes the table; answers how many rows were in it.
    pub async fn finish(mut self) -> Result<i64> {
        let count = format!("SELECT COUNT(*) FROM {TABLE}");
        let drop = format!("DROP TABLE {TABLE}");
        on!(&mut self.connection, open => {
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *open).await?;
            sqlx::query(AssertSqlSafe(drop)).execute(&mut *open).await?;
            Ok(rows)
        })
    }
}

fn statement(numbered: bool) -> String {
    let width = COLUMNS.len();
    // PostgreSQL wants numbers. To SQLite they are names, which it looks up one by one: with 7,500 of them an
    // insert took more than ten times as long.
    let place = |number: usize| if numbered { format!("${number}") } else { "?".to_owned() };
    let tuple = |row: usize| {
        let places: Vec<_> = (1..=width).map(|column| place(row * width + column)).collect();
        format!("({})", places.join(","))
    };
    let tuples: Vec<_> = (0..INSERT).map(tuple).collect();
    format!("INSERT INTO {TABLE} ({}) VALUES {}", COLUMNS.join(","), tuples.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_row_of_the_loop_is_in_the_table() {
        let scratch = Scratch::new().unwrap();
        let mut inserts = Inserts::new(&scratch, None).await.unwrap();
        inserts.record(1_500, "2026-11").await.unwrap();
        inserts.record(500, "2026-11").await.unwrap();
        assert_eq!(inserts.finish().await.unwrap(), 2_000);
    }
}
