//! Webhooks the hub sends.

use crate::model::hook::IntegrationEvent;
use crate::model::{Instant, Result};
use crate::storage::WriteTx;

/// Tells the webhooks of each event's integration that ask for it, in the transaction of what caused it.
pub async fn tell(_tx: &mut WriteTx, _events: &[IntegrationEvent], _now: Instant) -> Result<()> {
    Ok(())
}
