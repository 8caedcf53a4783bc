//! What a batch counts for, as CreatorUp keeps it.

use uuid::Uuid;

use super::{Instant, Month};

/// A batch's usage. There is one of each batch, and the hub knows it by the batch's id.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// UUID, version 7.
    pub id: Uuid,
    /// Whose it is, by the id here.
    pub user_id: Uuid,
    /// The batch.
    pub batch_id: Uuid,
    /// Kind of batch.
    pub batch_type: String,
    /// The feature used.
    pub usage_type: String,
    /// Units, positive.
    pub amount: i32,
    /// The month it counts in.
    pub month: Month,
    /// When the hub counted the batch for the first time; nothing is processed before.
    pub accepted_at: Option<Instant>,
    /// When the hub was told all of it; absent while something is yet to be told.
    pub reported_at: Option<Instant>,
    /// When it was made.
    pub created_at: Instant,
}

/// A sum of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The feature used.
    pub usage_type: String,
    /// Kind of batch.
    pub batch_type: String,
    /// Units.
    pub amount: i64,
    /// Number of batches.
    pub batches: i64,
    /// How many of them the hub has yet to be told something of.
    pub unreported: i64,
}
