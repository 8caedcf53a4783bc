//! CallbackService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::callback_service_server::CallbackService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};

#[tonic::async_trait]
impl CallbackService for Door {
    async fn handle_provider_callback(
        &self,
        request: Request<HandleProviderCallbackRequest>,
    ) -> Result<Response<HandleProviderCallbackResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let (id, token) = (&message.integration_id, message.token.as_deref());
        let receipt = self.hub.handle_provider_callback(&ctx, id, token).await.map_err(status)?;
        Ok(Response::new(HandleProviderCallbackResponse {
            received: true,
            event_id: receipt.event_id.to_string(),
            duplicate: receipt.is_duplicate,
        }))
    }

    async fn handle_midtrans_notification(
        &self,
        request: Request<HandleMidtransNotificationRequest>,
    ) -> Result<Response<HandleMidtransNotificationResponse>, Status> {
        let (ctx, _) = convert::open(request)?;
        let receipt = self.hub.handle_midtrans_notification(&ctx).await.map_err(status)?;
        Ok(Response::new(HandleMidtransNotificationResponse {
            received: true,
            event_id: receipt.event_id.to_string(),
            duplicate: receipt.is_duplicate,
        }))
    }
}
