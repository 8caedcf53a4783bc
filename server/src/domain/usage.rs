//! The usage ledger as callers ask for it; how it is written is [`super::ledger`].

use std::sync::Arc;

use uuid::Uuid;

use super::Hub;
use super::ledger::Entry;
use crate::model::page::{Page, Paged, Place};
use crate::model::usage::{MonthlyUsage, Record, Recorded, Report, UsageFilter};
use crate::model::{Ctx, Error, Month, Result};
use crate::storage;

impl Hub {
    /// Records one report.
    pub async fn record_usage(&self, report: Report) -> Result<Recorded> {
        let mut recorded = self.usage.submit(vec![self.entry(report).await?]).await?;
        recorded.pop().unwrap_or_else(|| Err(Error::internal("a report has no answer")))
    }

    /// Puts what a report is decided by beside it. It comes from the caches, which are never older than this hub's
    /// own writes; sums are read in the transaction, under the hold on the user's row.
    async fn entry(&self, report: Report) -> Result<Entry> {
        let user = self.user(report.user_id).await?;
        let membership = self.membership(report.user_id).await?;
        let feature_known = self.plans().await?.iter().any(|plan| plan.feature(&report.usage_type).is_some());
        Ok(Entry { report, user, membership, feature_known })
    }

    /// Records reports together and answers each, in their order.
    pub async fn record_many(&self, reports: Vec<Report>) -> Result<Vec<Result<Recorded>>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::with_capacity(reports.len());
        for report in &reports {
            match self.entry(report.clone()).await {
                Ok(entry) => entries.push(entry),
                // A user who does not exist: each report is answered by itself.
                Err(Error::NotFound { .. }) => return self.record_each(reports).await,
                Err(error) => return Err(error),
            }
        }
        match self.usage.submit(entries).await {
            // One report the database refuses spoils the transaction of all; by itself it fails alone.
            Err(Error::Internal { .. } | Error::NotFound { .. }) if reports.len() > 1 => {
                self.record_each(reports).await
            }
            answers => answers,
        }
    }

    async fn record_each(&self, reports: Vec<Report>) -> Result<Vec<Result<Recorded>>> {
        let mut answers = Vec::with_capacity(reports.len());
        for report in reports {
            answers.push(self.record_usage(report).await);
        }
        Ok(answers)
    }

    /// A month's sums of a user.
    pub async fn get_monthly_usage(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        month: Option<Month>,
    ) -> Result<Arc<MonthlyUsage>> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        self.user(user_id).await?;
        self.monthly(user_id, month.unwrap_or_else(|| Month::of(self.now()))).await
    }

    /// A page of a user's records, newest first.
    pub async fn list_usage(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        filter: &UsageFilter,
        page: &Page,
    ) -> Result<Paged<Record>> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        self.user(user_id).await?;
        let records = storage::usage::list(self.store.read(), user_id, filter, page).await?;
        Ok(page.cut(records, |record| Place { group: record.month.to_string(), id: record.id }))
    }

    /// Makes every monthly sum, and the counts of the statistics, anew from the ledger; says how many sums there are.
    pub async fn rebuild_sums(&self) -> Result<u64> {
        self.store
            .write((self.now(), self.caches.clone()), |tx, (now, caches)| {
                Box::pin(async move {
                    let sums = storage::usage::rebuild_sums(tx, *now).await?;
                    storage::usage::rebuild_counts(tx).await?;
                    let caches = caches.clone();
                    tx.after_commit(move || caches.usage.forget_all());
                    Ok(sums)
                })
            })
            .await
    }
}
