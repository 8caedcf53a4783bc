//! IntegrationService.

mod health;
mod log;
mod test;

use tonic::{Request, Response, Status};
use upbridge_proto::v1::integration_service_server::IntegrationService;
use upbridge_proto::v1::*;

mod message;

use super::{Door, convert, status};
use crate::model::integration::Provider;
use crate::model::page::Page;

#[tonic::async_trait]
impl IntegrationService for Door {
    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let wanted = message.category.and_then(message::category);
        let is_wanted = |provider: &Provider| wanted.is_none_or(|wanted| provider.spec().category == wanted);
        let providers = Provider::ALL.iter().copied().filter(is_wanted).map(message::provider).collect();
        Ok(Response::new(ListProvidersResponse { providers }))
    }

    async fn list_integrations(
        &self,
        request: Request<ListIntegrationsRequest>,
    ) -> Result<Response<ListIntegrationsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let partner_id = convert::uuid(&message.partner_id, "partner_id").map_err(status)?;
        let filter = message::filter(&message);
        let bound = format!("integrations {partner_id} {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_integrations(partner_id, &filter, &page).await.map_err(status)?;
        let integrations = listed.items.into_iter().map(message::integration).collect();
        Ok(Response::new(ListIntegrationsResponse { integrations, next_page_token: listed.next }))
    }

    async fn create_integration(
        &self,
        request: Request<CreateIntegrationRequest>,
    ) -> Result<Response<CreateIntegrationResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let new = message::new(message).map_err(status)?;
        let (made, token) = self.hub.create_integration(&ctx, new).await.map_err(status)?;
        let callback_path = message::callback_path(&made, token.as_deref());
        Ok(Response::new(CreateIntegrationResponse { integration: Some(message::integration(made)), callback_path }))
    }

    async fn get_integration(
        &self,
        request: Request<GetIntegrationRequest>,
    ) -> Result<Response<GetIntegrationResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        let found = self.hub.get_integration(id).await.map_err(status)?;
        Ok(Response::new(GetIntegrationResponse { integration: Some(message::integration(found)) }))
    }

    async fn update_integration(
        &self,
        request: Request<UpdateIntegrationRequest>,
    ) -> Result<Response<UpdateIntegrationResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        let change = message::change(message).map_err(status)?;
        let changed = self.hub.update_integration(&ctx, id, change).await.map_err(status)?;
        Ok(Response::new(UpdateIntegrationResponse { integration: Some(message::integration(changed)) }))
    }

    async fn delete_integration(
        &self,
        request: Request<DeleteIntegrationRequest>,
    ) -> Result<Response<DeleteIntegrationResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        self.hub.delete_integration(&ctx, id).await.map_err(status)?;
        Ok(Response::new(DeleteIntegrationResponse {}))
    }

    async fn rotate_callback_token(
        &self,
        request: Request<RotateCallbackTokenRequest>,
    ) -> Result<Response<RotateCallbackTokenResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.integration_id, "integration_id").map_err(status)?;
        let (integration, token) = self.hub.rotate_callback_token(&ctx, id).await.map_err(status)?;
        Ok(Response::new(RotateCallbackTokenResponse {
            callback_path: message::callback_path(&integration, Some(&token)),
        }))
    }

    async fn test_connection(
        &self,
        request: Request<TestConnectionRequest>,
    ) -> Result<Response<TestConnectionResponse>, Status> {
        test::test_connection(self, request).await
    }

    async fn list_integration_logs(
        &self,
        request: Request<ListIntegrationLogsRequest>,
    ) -> Result<Response<ListIntegrationLogsResponse>, Status> {
        log::list(self, request).await
    }

    async fn get_integration_health(
        &self,
        request: Request<GetIntegrationHealthRequest>,
    ) -> Result<Response<GetIntegrationHealthResponse>, Status> {
        health::get(self, request).await
    }

    async fn rotate_encryption(
        &self,
        request: Request<RotateEncryptionRequest>,
    ) -> Result<Response<RotateEncryptionResponse>, Status> {
        let (ctx, _) = convert::open(request)?;
        let rotated = self.hub.rotate_encryption(&ctx).await.map_err(status)?;
        Ok(Response::new(RotateEncryptionResponse {
            rotated: rotated.rotated as i64,
            remaining: rotated.remaining as i64,
            key_id: rotated.key_id,
        }))
    }
}
