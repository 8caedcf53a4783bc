//! MembershipService.

use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::membership_service_server::MembershipService;
use upbridge_proto::creatorup::v1::{
    CheckMembershipRequest, CheckMembershipResponse, ReportSubscriptionRequest, ReportSubscriptionResponse,
};

use super::{Door, convert, open, status};
use crate::domain::SubscriptionReport;

/// The feature asked about when none is named: what the sources ask about.
const FEATURE: &str = "local_rendering";

#[tonic::async_trait]
impl MembershipService for Door {
    async fn check_membership(
        &self,
        request: Request<CheckMembershipRequest>,
    ) -> Result<Response<CheckMembershipResponse>, Status> {
        let (caller, message) = open(request)?;
        let (_, token) = caller.user().map_err(status)?;
        let feature = message.feature.as_deref().unwrap_or(FEATURE);
        let decision = self.creatorup.check_membership(token, feature).await.map_err(status)?;
        Ok(Response::new(CheckMembershipResponse {
            has_access: decision.has_access,
            reason: decision.reason,
            feature: decision.feature,
            plan: decision.plan,
            limit: decision.limit,
            used: decision.used,
            remaining: decision.remaining,
            access_until: decision.access_until.map(convert::timestamp),
            as_of: Some(convert::timestamp(decision.as_of)),
        }))
    }

    async fn report_subscription(
        &self,
        request: Request<ReportSubscriptionRequest>,
    ) -> Result<Response<ReportSubscriptionResponse>, Status> {
        let (_, message) = open(request)?;
        let report = SubscriptionReport {
            digiup_user_id: convert::uuid(&message.digiup_user_id, "digiup_user_id").map_err(status)?,
            plan: message.plan,
            status: message.status,
            end_date: convert::instant_or_none(message.end_date, "end_date").map_err(status)?,
            occurred_at: convert::instant_or_none(message.occurred_at, "occurred_at").map_err(status)?,
            event_id: message.event_id,
        };
        let (event_id, duplicate) = self.creatorup.report_subscription(report).await.map_err(status)?;
        Ok(Response::new(ReportSubscriptionResponse { event_id, duplicate }))
    }
}
