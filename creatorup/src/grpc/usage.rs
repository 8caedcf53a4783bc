//! UsageService.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::usage_service_server::UsageService;
use upbridge_proto::creatorup::v1::{GetMonthlyUsageRequest, GetMonthlyUsageResponse, UsageTotal};

use super::{Door, convert, open, status};
use crate::model::usage::Sum;

#[tonic::async_trait]
impl UsageService for Door {
    async fn get_monthly_usage(
        &self,
        request: Request<GetMonthlyUsageRequest>,
    ) -> Result<Response<GetMonthlyUsageResponse>, Status> {
        let (caller, message) = open(request)?;
        let (user, _) = caller.user().map_err(status)?;
        let month = convert::month_or_none(message.month_year.as_deref(), "month_year").map_err(status)?;
        let usage = self.creatorup.monthly_usage(user, month).await.map_err(status)?;
        let unreported = usage.sums.iter().map(|sum| sum.unreported).sum();
        Ok(Response::new(GetMonthlyUsageResponse {
            digiup_user_id: usage.caller.digiup_user_id.to_string(),
            month_year: usage.month.to_string(),
            total: usage.sums.iter().map(|sum| sum.amount).sum(),
            batches: usage.sums.iter().map(|sum| sum.batches).sum(),
            by_type: totals(&usage.sums, |sum| &sum.usage_type),
            by_batch_type: totals(&usage.sums, |sum| &sum.batch_type),
            is_reported: unreported == 0,
            unreported_batches: unreported,
            is_partial: usage.month.end() > usage.as_of,
            as_of: Some(convert::timestamp(usage.as_of)),
        }))
    }
}

fn totals(sums: &[Sum], name: impl Fn(&Sum) -> &String) -> Vec<UsageTotal> {
    let mut totals: BTreeMap<&String, (i64, i64)> = BTreeMap::new();
    for sum in sums {
        let total = totals.entry(name(sum)).or_default();
        total.0 += sum.amount;
        total.1 += sum.batches;
    }
    let total = |(name, (total, batches)): (&String, _)| UsageTotal { r#type: name.clone(), total, batches };
    totals.into_iter().map(total).collect()
}
