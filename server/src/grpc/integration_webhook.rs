//! IntegrationWebhookService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::integration_webhook_service_server::IntegrationWebhookService;
use upbridge_proto::v1::*;

use super::Door;

#[tonic::async_trait]
impl IntegrationWebhookService for Door {
    async fn list_integration_webhooks(
        &self,
        _: Request<ListIntegrationWebhooksRequest>,
    ) -> Result<Response<ListIntegrationWebhooksResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn create_integration_webhook(
        &self,
        _: Request<CreateIntegrationWebhookRequest>,
    ) -> Result<Response<CreateIntegrationWebhookResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn get_integration_webhook(
        &self,
        _: Request<GetIntegrationWebhookRequest>,
    ) -> Result<Response<GetIntegrationWebhookResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn update_integration_webhook(
        &self,
        _: Request<UpdateIntegrationWebhookRequest>,
    ) -> Result<Response<UpdateIntegrationWebhookResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn delete_integration_webhook(
        &self,
        _: Request<DeleteIntegrationWebhookRequest>,
    ) -> Result<Response<DeleteIntegrationWebhookResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn rotate_webhook_secret(
        &self,
        _: Request<RotateWebhookSecretRequest>,
    ) -> Result<Response<RotateWebhookSecretResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn send_test_event(
        &self,
        _: Request<SendTestEventRequest>,
    ) -> Result<Response<SendTestEventResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn list_webhook_deliveries(
        &self,
        _: Request<ListWebhookDeliveriesRequest>,
    ) -> Result<Response<ListWebhookDeliveriesResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn get_webhook_delivery(
        &self,
        _: Request<GetWebhookDeliveryRequest>,
    ) -> Result<Response<GetWebhookDeliveryResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn resend_webhook_delivery(
        &self,
        _: Request<ResendWebhookDeliveryRequest>,
    ) -> Result<Response<ResendWebhookDeliveryResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn replay_webhook_deliveries(
        &self,
        _: Request<ReplayWebhookDeliveriesRequest>,
    ) -> Result<Response<ReplayWebhookDeliveriesResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }
}
