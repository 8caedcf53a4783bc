//! CallbackService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::callback_service_server::CallbackService;
use upbridge_proto::v1::*;

use super::Door;

#[tonic::async_trait]
impl CallbackService for Door {
    async fn handle_provider_callback(
        &self,
        _: Request<HandleProviderCallbackRequest>,
    ) -> Result<Response<HandleProviderCallbackResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn handle_midtrans_notification(
        &self,
        _: Request<HandleMidtransNotificationRequest>,
    ) -> Result<Response<HandleMidtransNotificationResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }
}
