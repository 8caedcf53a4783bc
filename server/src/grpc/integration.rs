//! IntegrationService.

mod test;

use tonic::{Request, Response, Status};
use upbridge_proto::v1::integration_service_server::IntegrationService;
use upbridge_proto::v1::*;

use super::Door;

#[tonic::async_trait]
impl IntegrationService for Door {
    async fn list_providers(
        &self,
        _: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn list_integrations(
        &self,
        _: Request<ListIntegrationsRequest>,
    ) -> Result<Response<ListIntegrationsResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn create_integration(
        &self,
        _: Request<CreateIntegrationRequest>,
    ) -> Result<Response<CreateIntegrationResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn get_integration(
        &self,
        _: Request<GetIntegrationRequest>,
    ) -> Result<Response<GetIntegrationResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn update_integration(
        &self,
        _: Request<UpdateIntegrationRequest>,
    ) -> Result<Response<UpdateIntegrationResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn delete_integration(
        &self,
        _: Request<DeleteIntegrationRequest>,
    ) -> Result<Response<DeleteIntegrationResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn rotate_callback_token(
        &self,
        _: Request<RotateCallbackTokenRequest>,
    ) -> Result<Response<RotateCallbackTokenResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn test_connection(
        &self,
        request: Request<TestConnectionRequest>,
    ) -> Result<Response<TestConnectionResponse>, Status> {
        test::test_connection(self, request).await
    }

    async fn list_integration_logs(
        &self,
        _: Request<ListIntegrationLogsRequest>,
    ) -> Result<Response<ListIntegrationLogsResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn get_integration_health(
        &self,
        _: Request<GetIntegrationHealthRequest>,
    ) -> Result<Response<GetIntegrationHealthResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn rotate_encryption(
        &self,
        _: Request<RotateEncryptionRequest>,
    ) -> Result<Response<RotateEncryptionResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }
}
