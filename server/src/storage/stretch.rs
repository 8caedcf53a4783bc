//! The running counts over stretches of buckets: what analytics answers from.

use sea_orm::ConnectionTrait;

use super::asked;
use super::dialect::Dialect;
use super::tally::read;
use crate::model::period::Stretch;
use crate::model::tally::{Metric, Sum};
use crate::model::{Error, Result};

/// The sums of some metrics over stretches of buckets, by label; with `by_bucket`, by bucket too. One statement, each
/// stretch a range of the primary key.
pub async fn over<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    metrics: &[Metric],
    stretches: &[Stretch],
    by_bucket: bool,
) -> Result<Vec<(Metric, Sum)>> {
    let (bucket, group) = if by_bucket { ("starts_at", "label, starts_at") } else { ("CAST(0 AS BIGINT)", "label") };
    let (mut branches, mut values) = (Vec::new(), Vec::new());
    for stretch in stretches {
        values.extend([stretch.from.into(), stretch.to.into()]);
        for metric in metrics {
            branches.push(format!(
                "SELECT '{}' AS metric, label, {bucket} AS starts_at, CAST(SUM(count) AS BIGINT) AS count, \
                 CAST(SUM(amount) AS BIGINT) AS amount FROM tallies WHERE metric = '{}' AND span = '{}' \
                 AND starts_at >= ${} AND starts_at < ${} GROUP BY {group}",
                metric.as_str(),
                metric.as_str(),
                stretch.span.as_str(),
                values.len() - 1,
                values.len()
            ));
        }
    }
    if branches.is_empty() {
        return Ok(Vec::new());
    }
    let rows = asked(connection.query_all_raw(dialect.statement(branches.join(" UNION ALL "), values))).await?;
    rows.iter()
        .map(|row| {
            let metric: String = row.try_get("", "metric").map_err(super::fault)?;
            let metric = Metric::parse(&metric).ok_or_else(|| Error::internal("an unknown metric"))?;
            Ok((metric, read(row).map_err(super::fault)?))
        })
        .collect()
}
