//! The running counts of what happened to integrations: what statistics, totals and health are read from, whatever the
//! length of the history. [`super::integration_log::record`] keeps them.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryResult, Value};
use uuid::Uuid;

use super::asked;
use super::dialect::Dialect;
use super::row::{column, word_of};
use crate::model::failure::FailureClass;
use crate::model::integration::{Action, LogStatus};
use crate::model::integration_health::{Counted, HealthWindow, Requests, Source};
use crate::model::integration_log::dates::Pieces;
use crate::model::integration_log::{LogCounts, LogFilter};
use crate::model::tally::Span;
use crate::model::{Error, Result};

/// The kind most entries are of: a callback, or a delivery, that went well.
const COMMON: (Action, LogStatus) = (Action::Webhook, LogStatus::Success);

/// How many entries there are of each action and status in a range of time. One statement, each piece a range of the
/// primary key, or of the indexes of the entries where no bucket fits.
pub async fn of_kinds<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    integration_id: Uuid,
    pieces: &Pieces,
) -> Result<LogCounts> {
    let (mut branches, mut values) = (Vec::new(), vec![Value::from(integration_id)]);
    for (sign, stretch) in &pieces.stretches {
        values.extend([stretch.from.into(), stretch.to.into(), (*sign).into()]);
        let last = values.len();
        branches.push(format!(
            "SELECT action, status, count * CAST(${last} AS BIGINT) AS count, CAST(0 AS BIGINT) AS uncommon \
             FROM integration_counts WHERE integration_id = $1 AND span = '{}' AND starts_at >= ${} AND starts_at < ${}",
            stretch.span.as_str(),
            last - 2,
            last - 1
        ));
    }
    for (sign, (from, to)) in &pieces.rests {
        values.extend([(*from).into(), (*to).into(), (*sign).into()]);
        branches.extend(of_entries(values.len()));
    }
    let mut counts = LogCounts::new();
    if branches.is_empty() {
        return Ok(counts);
    }
    // Rows are dear to hand over, so there is one of each kind.
    let sql = format!(
        "SELECT action, status, CAST(SUM(count) AS BIGINT) AS count, CAST(SUM(uncommon) AS BIGINT) AS uncommon \
         FROM ({}) AS pieces GROUP BY action, status",
        branches.join(" UNION ALL ")
    );
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    for row in &rows {
        let (action, status) = (word_of(row, "action", Action::parse)?, word_of(row, "status", LogStatus::parse)?);
        *counts.entry((action, status)).or_default() += column::<i64>(row, "count")?;
        *counts.entry(COMMON).or_default() -= column::<i64>(row, "uncommon")?;
    }
    counts.retain(|_, count| *count > 0);
    Ok(counts)
}

/// Queries that count entries one by one: in a range between two placeholders, times a third, which is the `last`.
/// Grouping them all would sort them, which is nearly all that a dense range costs: so all are counted as the common
/// kind, and from it are taken those of the others, which have indexes of their own. Their words are literals, because
/// only so does a planner see that a partial index serves.
fn of_entries(last: usize) -> [String; 3] {
    let within = format!(
        "FROM integration_logs WHERE integration_id = $1 AND created_at >= ${} AND created_at < ${}",
        last - 2,
        last - 1
    );
    let count = format!("COUNT(*) * CAST(${last} AS BIGINT)");
    let uncommon = format!("SELECT action, status, {count} AS count, {count} AS uncommon {within}");
    let rare = Action::ALL.iter().filter(|action| **action != COMMON.0);
    let rare: Vec<String> = rare.map(|action| format!("'{}'", action.as_str())).collect();
    let (action, status) = (COMMON.0.as_str(), COMMON.1.as_str());
    [
        format!(
            "SELECT '{action}' AS action, '{status}' AS status, {count} AS count, CAST(0 AS BIGINT) AS uncommon {within}"
        ),
        format!("{uncommon} AND status <> '{status}' GROUP BY action, status"),
        format!(
            "{uncommon} AND status = '{status}' AND action <> '{action}' AND action IN ({}) GROUP BY action, status",
            rare.join(", ")
        ),
    ]
}

/// How many entries the filter lets through in each of the newest `most` days or hours that start in `[from, to)` and
/// have any.
pub async fn of_buckets<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    integration_id: Uuid,
    filter: &LogFilter,
    span: Span,
    (from, to): (i64, i64),
    most: u32,
) -> Result<Vec<(i64, i64)>> {
    let action = filter.action.map_or(String::new(), |action| format!(" AND action = '{}'", action.as_str()));
    let status = filter.status.map_or(String::new(), |status| format!(" AND status = '{}'", status.as_str()));
    let sql = format!(
        "SELECT starts_at, CAST(SUM(count) AS BIGINT) AS count FROM integration_counts WHERE integration_id = $1 \
         AND span = '{}' AND starts_at >= $2 AND starts_at < $3{action}{status} GROUP BY starts_at \
         HAVING SUM(count) > 0 ORDER BY starts_at DESC LIMIT {most}",
        span.as_str()
    );
    let values = [integration_id.into(), from.into(), to.into()];
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    rows.iter().map(|row| Ok((column(row, "starts_at")?, column(row, "count")?))).collect()
}

/// What health is made of. One statement: the hours of the window, which know their minutes; the minutes that stand in
/// for an hour the window begins within; and those of the last hour and quarter of an hour.
pub async fn of_window<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    integration_id: Uuid,
    window: &HealthWindow,
) -> Result<Counted> {
    // What became of somebody's payment, or of the configuration, says nothing of the integration.
    const ENDED: &str = "integration_id = $1 AND action IN ('test', 'webhook', 'error') AND status <> 'pending'";
    const REQUESTS: &str = "error_class NOT IN ('aside', 'unproved')";
    let start = window.start.timestamp();
    let first_hour = Span::Hour.start(window.start);
    let whole = if first_hour == start { start } else { first_hour + 3_600 };
    let minute = |minutes: i64| (Span::Minute.start(window.end) - minutes * 60).max(start);
    let sums = |part: &str, span: &str, which: &str, from: &str| {
        format!(
            "SELECT '{part}' AS part, action, status, error_class, CAST(SUM(count) AS BIGINT) AS count, \
             CAST(SUM(timed) AS BIGINT) AS timed, CAST(SUM(millis) AS BIGINT) AS millis, '' AS bits \
             FROM integration_counts WHERE {ENDED} AND {which} AND span = '{span}' AND starts_at >= {from} \
             GROUP BY action, status, error_class"
        )
    };
    // One text for all hours: rows are dearer than what is in them.
    let bits = dialect.pick(&[
        "group_concat(starts_at || ':' || minutes, ' ')",
        "string_agg(starts_at::text || ':' || minutes::text, ' ')",
    ]);
    let sql = format!(
        "SELECT 'bits' AS part, '' AS action, status, '' AS error_class, CAST(0 AS BIGINT) AS count, \
         CAST(0 AS BIGINT) AS timed, CAST(0 AS BIGINT) AS millis, {bits} AS bits FROM integration_counts \
         WHERE {ENDED} AND {REQUESTS} AND span = 'hour' AND starts_at >= $2 AND starts_at < $3 GROUP BY status \
         UNION ALL {} UNION ALL {} UNION ALL {} UNION ALL {} UNION ALL {} UNION ALL {}",
        sums("whole", "hour", &format!("{REQUESTS} AND starts_at < $3"), "$5"),
        sums("first", "minute", &format!("{REQUESTS} AND starts_at < $5"), "$4"),
        sums("last_hour", "minute", &format!("{REQUESTS} AND starts_at < $3"), "$6"),
        sums("refused", "minute", "starts_at < $3 AND action <> 'webhook' AND error_class = 'auth'", "$7"),
        sums("not_let_in", "minute", "starts_at < $3 AND action = 'webhook' AND error_class = 'auth'", "$7"),
        sums("unproved", "minute", "starts_at < $3 AND error_class = 'unproved'", "$7"),
    );
    let after = Span::Minute.start(window.end) + 60;
    let seconds = [first_hour, after, start, whole, minute(60), minute(15)];
    let values = std::iter::once(Value::from(integration_id)).chain(seconds.map(Value::from));
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    // The minutes of the first hour that are before the window.
    let before = (1_i64 << ((start - first_hour) / 60)) - 1;
    let mut folded = Folded { first: (first_hour, before), ..Folded::default() };
    for row in &rows {
        folded.add(row)?;
    }
    Ok(folded.done())
}

/// What rows of a window come to.
#[derive(Default)]
struct Folded {
    counted: Counted,
    /// The window's first hour, and the bits of its minutes before the window.
    first: (i64, i64),
    /// Bits of the minutes with a request, and of those with a good one, by hour.
    minutes: BTreeMap<i64, (i64, i64)>,
}

impl Folded {
    fn add(&mut self, row: &QueryResult) -> Result<()> {
        let part: String = column(row, "part")?;
        let is_good = word_of(row, "status", LogStatus::parse)? == LogStatus::Success;
        if part == "bits" {
            return self.observe(&column::<String>(row, "bits")?, is_good);
        }
        let count: i64 = column(row, "count")?;
        let counted = &mut self.counted;
        let add = |requests: &mut Requests| {
            *(if is_good { &mut requests.success } else { &mut requests.failed }) += count;
        };
        match part.as_str() {
            "refused" => counted.refused_lately += count,
            "not_let_in" => counted.not_let_in_lately += count,
            "unproved" => counted.unproved_lately += count,
            "last_hour" => add(&mut counted.last_hour),
            _ => {
                add(&mut counted.requests);
                counted.timed += column::<i64>(row, "timed")?;
                counted.millis += column::<i64>(row, "millis")?;
                if !is_good {
                    let class = FailureClass::parse(&column::<String>(row, "error_class")?);
                    *counted.failures.entry(class).or_default() += count;
                    let source = Source::of(word_of(row, "action", Action::parse)?, class);
                    *counted.sources.entry((class, source)).or_default() += count;
                }
            }
        }
        Ok(())
    }

    /// Notes the minutes of hours, each `start:bits`.
    fn observe(&mut self, hours: &str, is_good: bool) -> Result<()> {
        for one in hours.split(' ') {
            let read = one.split_once(':').and_then(|(hour, bits)| Some((hour.parse().ok()?, bits.parse().ok()?)));
            let (hour, bits): (i64, i64) = read.ok_or_else(|| Error::internal("an hour without its minutes"))?;
            let bits = if hour == self.first.0 { bits & !self.first.1 } else { bits };
            let (observed, good) = self.minutes.entry(hour).or_default();
            *observed |= bits;
            *good |= if is_good { bits } else { 0 };
        }
        Ok(())
    }

    fn done(mut self) -> Counted {
        for (observed, good) in self.minutes.values() {
            self.counted.observed_minutes += i64::from(observed.count_ones());
            self.counted.good_minutes += i64::from(good.count_ones());
        }
        self.counted
    }
}
