//! The usage ledger, its revisions, and its monthly sums.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, SqlErr,
};
use uuid::Uuid;

use super::entity::{usage, usage_monthly, usage_revision};
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::page::Page;
use crate::model::tally::Metric;
use crate::model::usage::{MonthlySum, Record, Report, UsageFilter, counted_at};
use crate::model::{Error, Instant, Month, Result};

/// Reads, for each report, the records it could be about: at most one by key, one by natural key without a key,
/// one by natural key with a key, and the oldest of the same names that was opened and not completed.
///
/// Most reports are about nothing that is known. One statement picks out the others, each of its lookups a seek in
/// its own index, and only for those are records read; which of the found it is, is the model's rule.
pub async fn candidates(tx: &WriteTx, reports: &[&Report]) -> Result<Vec<Vec<Record>>> {
    let mut found: Vec<Vec<Record>> = reports.iter().map(|_| Vec::new()).collect();
    let all = asked_about(reports.iter().copied().enumerate(), reports.len());
    let mut met = Vec::new();
    for row in asked(all.query(tx.reader(), tx.dialect(), "report", &seeking(tx, MET))).await? {
        let n = asked(async { row.try_get::<i32>("", "n") }).await? as usize;
        met.push((n, reports[n]));
    }
    if met.is_empty() {
        return Ok(found);
    }
    let count = met.len();
    let met = asked_about(met.into_iter(), count);
    for row in asked(met.query(tx.reader(), tx.dialect(), "report", &seeking(tx, CANDIDATES))).await? {
        let n = asked(async { row.try_get::<i32>("", "n") }).await?;
        let record = asked(async { usage::Model::from_query_result(&row, "") }).await?;
        found[n as usize].push(record.try_into()?);
    }
    Ok(found)
}

/// Reports, each with its number, as the table `report` of a query.
fn asked_about<'a>(reports: impl Iterator<Item = (usize, &'a Report)>, count: usize) -> Rows {
    const COLUMNS: &[&str] =
        &["n", "user_id", "batch_name", "batch_type", "usage_type", "month_year", "idempotency_key"];
    let mut rows = Rows::new(COLUMNS, count);
    for (n, report) in reports {
        rows.int(n as i32)
            .uuid(report.user_id)
            .text(&report.batch_name)
            .text(&report.batch_type)
            .text(&report.usage_type);
        rows.text(report.month().to_string()).text_or_null(report.key.clone());
    }
    rows
}

/// The query with its `@table.user` written as the indexes by key and by name know them.
fn seeking(tx: &WriteTx, query: &str) -> String {
    let (mut sql, mut rest) = (String::with_capacity(2 * query.len()), query);
    while let Some((before, after)) = rest.split_once('@') {
        let (table, after) = after.split_once(".user").unwrap_or((after, ""));
        sql.push_str(before);
        sql.push_str(&tx.dialect().user_in_index(table));
        rest = after;
    }
    sql.push_str(rest);
    sql
}

/// Whether there is a record of the key, or one of the same names without a key, or, to a report without one, any of
/// the same names. Written as single values, because PostgreSQL may answer an EXISTS by reading the whole table.
const MET: &str = "\
    SELECT report.n AS n FROM report WHERE COALESCE(\
    (SELECT 1 FROM creatorup_usage a WHERE @a.user = @report.user AND a.idempotency_key = report.idempotency_key), \
    (SELECT 1 FROM creatorup_usage b WHERE @b.user = @report.user AND b.batch_name = report.batch_name \
     AND b.idempotency_key IS NULL LIMIT 1), \
    (SELECT 1 FROM creatorup_usage c WHERE report.idempotency_key IS NULL AND @c.user = @report.user \
     AND c.batch_name = report.batch_name AND c.month_year = report.month_year AND c.idempotency_key IS NOT NULL \
     LIMIT 1)) IS NOT NULL";

/// Ordered by a column no index is sorted by: ordered by `id`, SQLite would walk all of a user's records in the order
/// of another index instead of seeking the few of that name.
const CANDIDATES: &str = "\
    SELECT report.n AS n, u.* FROM report JOIN creatorup_usage u ON u.id IN (\
    (SELECT id FROM creatorup_usage a WHERE @a.user = @report.user AND a.idempotency_key = report.idempotency_key), \
    (SELECT id FROM creatorup_usage b WHERE @b.user = @report.user AND b.batch_name = report.batch_name \
     AND b.batch_type = report.batch_type AND b.usage_type = report.usage_type AND b.month_year = report.month_year \
     AND b.idempotency_key IS NULL), \
    (SELECT id FROM creatorup_usage c WHERE report.idempotency_key IS NULL AND @c.user = @report.user \
     AND c.batch_name = report.batch_name AND c.batch_type = report.batch_type AND c.usage_type = report.usage_type \
     AND c.month_year = report.month_year AND c.idempotency_key IS NOT NULL ORDER BY c.created_at DESC LIMIT 1), \
    (SELECT id FROM creatorup_usage d WHERE @d.user = @report.user AND d.batch_name = report.batch_name \
     AND d.batch_type = report.batch_type AND d.usage_type = report.usage_type AND d.idempotency_key IS NULL \
     AND NOT d.completion_reported ORDER BY d.created_at LIMIT 1))";

/// Adds records.
pub async fn insert(tx: &mut WriteTx, records: Vec<Record>) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "user_id",
        "creatorup_user_id",
        "batch_name",
        "batch_type",
        "usage_type",
        "usage_amount",
        "month_year",
        "completed_at",
        "completion_reported",
        "metadata",
        "idempotency_key",
        "source",
        "revision",
        "synced_at",
        "created_at",
    ];
    let mut rows = Rows::new(COLUMNS, records.len());
    for record in records {
        rows.uuid(record.id).uuid(record.user_id).text(record.creatorup_user_id).text(record.batch_name);
        rows.text(record.batch_type).text(record.usage_type).int(record.amount).text(record.month.to_string());
        rows.time(record.completed_at).bool(record.completion_reported).json(record.metadata);
        rows.text_or_null(record.key).text(record.source).int(record.revision);
        rows.time(record.synced_at).time(record.created_at);
    }
    let dialect = tx.dialect();
    rows.insert(tx.connection(), dialect, "creatorup_usage", "").await.map_err(|error| match error.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => Error::NotFound { what: "user" },
        _ => super::fault(error),
    })
}

/// Gives a record that has none the key it is also known by.
pub async fn adopt_key(tx: &mut WriteTx, id: Uuid, key: &str) -> Result<()> {
    let row = usage::ActiveModel { idempotency_key: Set(Some(key.to_owned())), ..Default::default() };
    let update = usage::Entity::update_many().set(row).filter(usage::Column::Id.eq(id));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Replaces a record by its amended self and keeps the old values as a revision.
pub async fn amend(tx: &mut WriteTx, old: &Record, new: &Record) -> Result<()> {
    let revision = usage_revision::ActiveModel {
        id: Set(Uuid::now_v7()),
        usage_id: Set(old.id),
        revision: Set(old.revision),
        batch_name: Set(old.batch_name.clone()),
        batch_type: Set(old.batch_type.clone()),
        usage_type: Set(old.usage_type.clone()),
        usage_amount: Set(old.amount),
        month_year: Set(old.month.to_string()),
        completed_at: Set(old.completed_at),
        completion_reported: Set(old.completion_reported),
        metadata: Set(old.metadata.clone()),
        idempotency_key: Set(old.key.clone()),
        replaced_at: Set(new.synced_at),
    };
    asked(usage_revision::Entity::insert(revision).exec_without_returning(tx.connection())).await?;
    asked(usage::Entity::update(row(new)).exec(tx.connection())).await.map(drop)
}

fn row(record: &Record) -> usage::ActiveModel {
    usage::ActiveModel {
        id: Set(record.id),
        user_id: Set(record.user_id),
        creatorup_user_id: Set(record.creatorup_user_id.clone()),
        batch_name: Set(record.batch_name.clone()),
        batch_type: Set(record.batch_type.clone()),
        usage_type: Set(record.usage_type.clone()),
        usage_amount: Set(record.amount),
        month_year: Set(record.month.to_string()),
        completed_at: Set(record.completed_at),
        completion_reported: Set(record.completion_reported),
        metadata: Set(record.metadata.clone()),
        idempotency_key: Set(record.key.clone()),
        source: Set(record.source.clone()),
        revision: Set(record.revision),
        synced_at: Set(record.synced_at),
        created_at: Set(record.created_at),
    }
}

/// What a monthly sum is kept by: user, month, usage type, batch type.
pub type SumKey = (Uuid, Month, String, String);

/// Adds to the monthly sums. In the order of the keys, so that two hubs never wait for each other.
pub async fn add_to_sums(tx: &mut WriteTx, deltas: &BTreeMap<SumKey, (i64, i64)>, now: Instant) -> Result<()> {
    const COLUMNS: &[&str] = &["user_id", "month_year", "usage_type", "batch_type", "amount", "batches", "updated_at"];
    let mut rows = Rows::new(COLUMNS, deltas.len());
    for ((user_id, month, usage_type, batch_type), (amount, batches)) in deltas {
        rows.uuid(*user_id).text(month.to_string()).text(usage_type).text(batch_type);
        rows.bigint(*amount).bigint(*batches).time(now);
    }
    let add = "ON CONFLICT (user_id, month_year, usage_type, batch_type) DO UPDATE SET \
               amount = usage_monthly.amount + excluded.amount, \
               batches = usage_monthly.batches + excluded.batches, updated_at = excluded.updated_at";
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "usage_monthly", add)).await
}

/// The units users have used, by user, month and usage type.
pub async fn used<C: ConnectionTrait>(
    connection: &C,
    users: &[Uuid],
    months: &[Month],
) -> Result<HashMap<(Uuid, Month, String), i64>> {
    use usage_monthly::Column;
    let query = usage_monthly::Entity::find()
        .filter(Column::UserId.is_in(users.iter().copied()))
        .filter(Column::MonthYear.is_in(months.iter().map(Month::to_string)));
    let mut used = HashMap::new();
    for row in asked(query.all(connection)).await? {
        let month = Month::parse(&row.month_year).ok_or_else(|| Error::internal("a sum of no month"))?;
        *used.entry((row.user_id, month, row.usage_type)).or_insert(0) += row.amount;
    }
    Ok(used)
}

/// A user's sums of a month, by usage type and batch type. Types whose batches have all moved elsewhere are left out.
pub async fn monthly<C: ConnectionTrait>(connection: &C, user_id: Uuid, month: Month) -> Result<Vec<MonthlySum>> {
    use usage_monthly::Column;
    let query = usage_monthly::Entity::find()
        .filter(Column::UserId.eq(user_id))
        .filter(Column::MonthYear.eq(month.to_string()))
        .filter(Column::Batches.gt(0))
        .order_by_asc(Column::UsageType)
        .order_by_asc(Column::BatchType);
    let sum = |row: usage_monthly::Model| MonthlySum {
        usage_type: row.usage_type,
        batch_type: row.batch_type,
        amount: row.amount,
        batches: row.batches,
    };
    Ok(asked(query.all(connection)).await?.into_iter().map(sum).collect())
}

/// Makes every monthly sum anew from the ledger, and says how many there are.
pub async fn rebuild_sums(tx: &mut WriteTx, now: Instant) -> Result<u64> {
    asked(usage_monthly::Entity::delete_many().exec(tx.connection())).await?;
    let rebuild = tx.dialect().statement(
        "INSERT INTO usage_monthly (user_id, month_year, usage_type, batch_type, amount, batches, updated_at) \
         SELECT user_id, month_year, usage_type, batch_type, SUM(usage_amount), COUNT(*), $1 \
         FROM creatorup_usage GROUP BY user_id, month_year, usage_type, batch_type",
        [now.into()],
    );
    Ok(asked(tx.connection().execute_raw(rebuild)).await?.rows_affected())
}

/// Counts the ledger anew for the statistics: of everybody, or with a negative `sign` takes what a user has out of them.
/// Answers with the number of records.
async fn count_records(tx: &mut WriteTx, user_id: Option<Uuid>, sign: i64) -> Result<i64> {
    let dialect = tx.dialect();
    // By the hour: the ledger may be long, its hours are not many.
    let hour = format!("{} / 3600 * 3600", dialect.unix_seconds("completed_at"));
    let whose = if user_id.is_some() { "WHERE user_id = $1" } else { "" };
    let query = dialect.statement(
        format!(
            "SELECT usage_type, month_year, {hour} AS hour, COUNT(*) AS records, \
             CAST(SUM(usage_amount) AS BIGINT) AS amount FROM creatorup_usage {whose} GROUP BY 1, 2, 3"
        ),
        user_id.map(sea_orm::Value::from),
    );
    let mut counted = 0;
    for row in asked(tx.reader().query_all_raw(query)).await? {
        let read = || -> Result<(String, String, i64, i64, i64), sea_orm::DbErr> {
            Ok((
                row.try_get("", "usage_type")?,
                row.try_get("", "month_year")?,
                row.try_get("", "hour")?,
                row.try_get("", "records")?,
                row.try_get("", "amount")?,
            ))
        };
        let (usage_type, month, hour, records, amount) = read().map_err(super::fault)?;
        let month = Month::parse(&month).ok_or_else(|| Error::internal("usage of no month"))?;
        let at = counted_at(chrono::DateTime::from_timestamp(hour, 0).unwrap_or_default(), month);
        tx.tally(Metric::Usage, &usage_type, at, sign * records, sign * amount);
        counted += records;
    }
    Ok(counted)
}

/// Makes the statistics' counts of usage anew from the ledger.
pub async fn rebuild_counts(tx: &mut WriteTx) -> Result<i64> {
    super::tally::forget(tx, Metric::Usage).await?;
    count_records(tx, None, 1).await
}

/// Takes what a user has in the ledger out of the statistics, before it is deleted with them.
pub async fn uncount(tx: &mut WriteTx, user_id: Uuid) -> Result<()> {
    count_records(tx, Some(user_id), -1).await.map(drop)
}

/// A page of a user's records, newest month first and newest first in it, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    user_id: Uuid,
    filter: &UsageFilter,
    page: &Page,
) -> Result<Vec<Record>> {
    use usage::Column;
    let mut query = usage::Entity::find()
        .filter(Column::UserId.eq(user_id))
        .order_by_desc(Column::MonthYear)
        .order_by_desc(Column::Id)
        .limit(u64::from(page.size) + 1);
    if let Some(after) = &page.after {
        let same_month = Column::MonthYear.eq(&after.group).and(Column::Id.lt(after.id));
        query =
            query.filter(Column::MonthYear.lte(&after.group)).filter(Column::MonthYear.lt(&after.group).or(same_month));
    }
    if let Some(month) = filter.month {
        query = query.filter(Column::MonthYear.eq(month.to_string()));
    }
    if let Some(usage_type) = &filter.usage_type {
        query = query.filter(Column::UsageType.eq(usage_type));
    }
    if let Some(batch_type) = &filter.batch_type {
        query = query.filter(Column::BatchType.eq(batch_type));
    }
    asked(query.all(connection)).await?.into_iter().map(Record::try_from).collect()
}
