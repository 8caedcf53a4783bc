//! The running counts. What a transaction counts is added up in memory and written as one set when it commits.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::dialect::Dialect;
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::tally::{Counter, Span, Sum};
use crate::model::{Instant, Result};

/// Shards there are: hubs beyond that many share some.
pub(super) const SHARDS: i32 = 16;

/// What one transaction counted: by counter, span, start of the bucket and label.
pub(super) type Counts = BTreeMap<(Counter, Span, i64, String), (i64, i64)>;

/// Adds to what a transaction counts.
pub(super) fn add(counts: &mut Counts, counter: Counter, label: &str, at: Instant, count: i64, amount: i64) {
    for span in counter.spans {
        let sum = counts.entry((counter, *span, span.start(at), label.to_owned())).or_insert((0, 0));
        *sum = (sum.0 + count, sum.1 + amount);
    }
}

/// Writes what a transaction counted. In the order of the keys, so that two hubs never wait for each other.
pub(super) async fn write(tx: &mut WriteTx, counts: Counts, shard: i32) -> Result<(), DbErr> {
    const COLUMNS: &[&str] = &["metric", "span", "starts_at", "label", "shard", "count", "amount"];
    let mut rows = Rows::new(COLUMNS, counts.len());
    for ((counter, span, starts_at, label), (count, amount)) in counts {
        if (count, amount) != (0, 0) {
            rows.text(counter.word).text(span.as_str()).bigint(starts_at).text(label).int(shard);
            rows.bigint(count).bigint(amount);
        }
    }
    let add = "ON CONFLICT (metric, span, starts_at, label, shard) DO UPDATE SET \
               count = tallies.count + excluded.count, amount = tallies.amount + excluded.amount";
    let dialect = tx.dialect();
    rows.insert(tx.connection(), dialect, "tallies", add).await
}

/// The sums of a counter over the buckets that start in `[from, to)`, by label; with `by_bucket`, by bucket too.
pub async fn sums<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    (counter, span): (impl Into<Counter>, Span),
    (from, to): (i64, i64),
    by_bucket: bool,
) -> Result<Vec<Sum>> {
    let bucket = if by_bucket { "starts_at" } else { "CAST(0 AS BIGINT) AS starts_at" };
    let group = if by_bucket { "label, starts_at" } else { "label" };
    let query = dialect.statement(
        format!(
            "SELECT label, {bucket}, CAST(SUM(count) AS BIGINT) AS count, CAST(SUM(amount) AS BIGINT) AS amount \
             FROM tallies WHERE metric = $1 AND span = $2 AND starts_at >= $3 AND starts_at < $4 \
             GROUP BY {group} ORDER BY {group}"
        ),
        [counter.into().word.into(), span.as_str().into(), from.into(), to.into()],
    );
    let rows = asked(connection.query_all_raw(query)).await?;
    rows.iter().map(|row| read(row).map_err(super::fault)).collect()
}

/// Reads what a query gives as `label`, `starts_at`, `count` and `amount`.
pub fn read(row: &QueryResult) -> Result<Sum, DbErr> {
    Ok(Sum {
        label: row.try_get("", "label")?,
        starts_at: row.try_get("", "starts_at")?,
        count: row.try_get("", "count")?,
        amount: row.try_get("", "amount")?,
    })
}

/// Removes everything counted by a counter.
pub async fn forget(tx: &mut WriteTx, counter: impl Into<Counter>) -> Result<()> {
    let forget = tx.dialect().statement("DELETE FROM tallies WHERE metric = $1", [counter.into().word.into()]);
    asked(tx.connection().execute_raw(forget)).await.map(drop)
}

/// Removes the buckets of a span that start before `before`, at most `most` rows.
pub async fn prune(tx: &mut WriteTx, span: Span, before: i64, most: u64) -> Result<u64> {
    let prune = tx.dialect().statement(
        "DELETE FROM tallies WHERE (metric, span, starts_at, label, shard) IN (SELECT metric, span, starts_at, label, \
         shard FROM tallies WHERE span = $1 AND starts_at < $2 LIMIT $3)",
        [span.as_str().into(), before.into(), (most as i64).into()],
    );
    Ok(asked(tx.connection().execute_raw(prune)).await?.rows_affected())
}
