//! What a user used.

use super::CreatorUp;
use crate::model::decision::Caller;
use crate::model::usage::Sum;
use crate::model::{Instant, Month, Result};
use crate::storage;

/// A month's sums.
#[derive(Clone, Debug)]
pub struct MonthlyUsage {
    /// Whose, by the id at DigiUp.
    pub caller: Caller,
    /// The month.
    pub month: Month,
    /// Sums by usage type and batch type.
    pub sums: Vec<Sum>,
    /// When they were read.
    pub as_of: Instant,
}

impl CreatorUp {
    /// The caller's sums of a month, the current one when none is named.
    pub async fn monthly_usage(&self, caller: Caller, month: Option<Month>) -> Result<MonthlyUsage> {
        let as_of = self.now();
        let month = month.unwrap_or_else(|| Month::of(as_of));
        let sums = storage::usage::sums(self.store.read(), self.store.dialect(), caller.user_id, month).await?;
        Ok(MonthlyUsage { caller, month, sums, as_of })
    }
}
