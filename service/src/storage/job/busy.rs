//! Whether somebody is seen to already.

use std::collections::HashSet;

use super::super::rows::Rows;
use super::super::{WriteTx, asked};
use crate::model::Result;
use crate::model::job::Kind;

/// Which of these keys have a job of a kind that waits under it or runs.
pub async fn busy_keys(tx: &WriteTx, kind: impl Into<Kind>, keys: &[String]) -> Result<HashSet<String>> {
    let kind = kind.into().as_str();
    let mut asked_for = Rows::new(&["busy_key"], keys.len());
    for key in keys {
        asked_for.text(key);
    }
    let query = format!(
        "SELECT busy_key FROM asked_for WHERE EXISTS (SELECT 1 FROM jobs WHERE kind = '{kind}' \
         AND unique_key = busy_key AND unique_key IS NOT NULL AND state <> 'running') OR EXISTS (SELECT 1 FROM jobs \
         WHERE kind = '{kind}' AND queue_key = busy_key AND state = 'running')"
    );
    let rows = asked(asked_for.query(tx.reader(), tx.dialect(), "asked_for", &query)).await?;
    rows.iter().map(|row| row.try_get("", "busy_key").map_err(super::fault)).collect()
}
