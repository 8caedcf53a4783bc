//! MembershipService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::membership_service_server::MembershipService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::model::membership::{PlanChange, PlanFeature as ModelFeature, Tier as ModelTier};

#[tonic::async_trait]
impl MembershipService for Door {
    async fn list_plans(&self, request: Request<ListPlansRequest>) -> Result<Response<ListPlansResponse>, Status> {
        convert::open(request)?;
        let plans = self.hub.list_plans(false).await.map_err(status)?;
        Ok(Response::new(ListPlansResponse { plans: plans.iter().map(convert::plan).collect() }))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<SubscribeResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let done = self.hub.subscribe(&ctx, message.plan_id, message.plan.as_deref()).await;
        let (membership, already_subscribed) = done.map_err(status)?;
        let subscription = Some(convert::membership(&membership, self.hub.now()));
        Ok(Response::new(SubscribeResponse { subscription, already_subscribed }))
    }

    async fn cancel_subscription(
        &self,
        request: Request<CancelSubscriptionRequest>,
    ) -> Result<Response<CancelSubscriptionResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let membership = self.hub.cancel_subscription(&ctx, message.immediately).await.map_err(status)?;
        let subscription = Some(convert::membership(&membership, self.hub.now()));
        Ok(Response::new(CancelSubscriptionResponse { subscription }))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<GetSubscriptionResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let membership = self.hub.get_subscription(&ctx, subject).await.map_err(status)?;
        let subscription = Some(convert::membership(&membership, self.hub.now()));
        Ok(Response::new(GetSubscriptionResponse { subscription }))
    }

    async fn check_feature_access(
        &self,
        request: Request<CheckFeatureAccessRequest>,
    ) -> Result<Response<CheckFeatureAccessResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let subject = convert::uuid_or_none(message.digiup_user_id.as_deref(), "digiup_user_id").map_err(status)?;
        let amount = i64::from(message.amount.unwrap_or(1));
        let access = self.hub.check_feature_access(&ctx, subject, &message.feature, amount).await.map_err(status)?;
        let decision = &access.decision;
        Ok(Response::new(CheckFeatureAccessResponse {
            has_access: decision.has_access(),
            reason: convert::reason(&access),
            plan: decision.plan.clone(),
            limit: decision.limit,
            used: decision.used,
            remaining: decision.remaining(),
            period_start: Some(convert::timestamp(access.month.start())),
            period_end: Some(convert::timestamp(access.month.end())),
            access_until: decision.access_until.map(convert::timestamp),
            as_of: Some(convert::timestamp(access.as_of)),
            feature: access.feature,
        }))
    }

    async fn list_all_plans(
        &self,
        request: Request<ListAllPlansRequest>,
    ) -> Result<Response<ListAllPlansResponse>, Status> {
        convert::open(request)?;
        let plans = self.hub.list_plans(true).await.map_err(status)?;
        Ok(Response::new(ListAllPlansResponse { plans: plans.iter().map(convert::plan).collect() }))
    }

    async fn create_plan(&self, request: Request<CreatePlanRequest>) -> Result<Response<CreatePlanResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let change = PlanChange {
            name: Some(message.name),
            tier: tier(message.tier),
            price: price(Some(message.price)),
            currency: message.currency,
            features: Some(features(message.features)),
            is_active: None,
        };
        let plan = self.hub.create_plan(&ctx, change).await.map_err(status)?;
        Ok(Response::new(CreatePlanResponse { plan: Some(convert::plan(&plan)) }))
    }

    async fn update_plan(&self, request: Request<UpdatePlanRequest>) -> Result<Response<UpdatePlanResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let change = PlanChange {
            name: message.name,
            tier: message.tier.and_then(tier),
            price: price(message.price),
            currency: message.currency,
            features: Some(features(message.features)).filter(|features| !features.is_empty()),
            is_active: message.is_active,
        };
        let plan = self.hub.update_plan(&ctx, message.plan_id, change).await.map_err(status)?;
        Ok(Response::new(UpdatePlanResponse { plan: Some(convert::plan(&plan)) }))
    }

    async fn retire_plan(&self, request: Request<RetirePlanRequest>) -> Result<Response<RetirePlanResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let plan = self.hub.retire_plan(&ctx, message.plan_id).await.map_err(status)?;
        Ok(Response::new(RetirePlanResponse { plan: Some(convert::plan(&plan)) }))
    }
}

fn tier(number: i32) -> Option<ModelTier> {
    convert::value(ModelTier::ALL, number)
}

/// The contract's bounds are those of the column.
fn price(price: Option<i64>) -> Option<i32> {
    price.and_then(|price| i32::try_from(price).ok())
}

fn features(features: Vec<PlanFeatureInput>) -> Vec<ModelFeature> {
    let feature = |input: PlanFeatureInput| ModelFeature { feature: input.feature, monthly_limit: input.monthly_limit };
    features.into_iter().map(feature).collect()
}
