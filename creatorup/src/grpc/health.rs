//! HealthService.

use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::health_service_server::HealthService;
use upbridge_proto::creatorup::v1::{GetHealthRequest, GetHealthResponse, Part};

use super::Door;
use crate::domain;

#[tonic::async_trait]
impl HealthService for Door {
    async fn get_health(&self, _: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        let health = self.creatorup.health().await;
        let part = |part: &domain::Part| Some(Part { works: part.works, detail: part.detail.clone() });
        Ok(Response::new(GetHealthResponse {
            status: health.status().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: part(&health.database),
            hub: part(&health.hub),
            ffmpeg: part(&health.ffmpeg),
            unsent_webhooks: health.unsent_webhooks as i64,
            failed_webhooks: health.failed_webhooks as i64,
            unreported_batches: health.unreported_batches as i64,
        }))
    }
}
