//! Dead letters of certain events.

use uuid::Uuid;

use super::super::rows::Rows;
use super::super::{WriteTx, asked};
use super::{JOB, read_jobs};
use crate::model::Result;
use crate::model::job::Job;

/// Takes the dead letters of these events out, oldest first; whoever takes them makes jobs of them.
pub async fn take_letters(tx: &mut WriteTx, events: &[Uuid]) -> Result<Vec<Job>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Rows::new(&["id"], events.len());
    for id in events {
        rows.uuid(*id);
    }
    let take = format!(
        "DELETE FROM finished_jobs WHERE state = 'dead' AND event_id IN (SELECT id FROM wanted) RETURNING {JOB}"
    );
    let dialect = tx.dialect();
    let taken = asked(rows.query(tx.connection(), dialect, "wanted", &take)).await?;
    let mut letters = read_jobs(&taken, tx.kinds())?;
    letters.sort_by_key(|letter| letter.id);
    // An event that was driven again and died again may have left two; one is enough.
    letters.reverse();
    let mut seen = std::collections::HashSet::new();
    letters.retain(|letter| seen.insert(letter.event_id));
    letters.reverse();
    Ok(letters)
}
