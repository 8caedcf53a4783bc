//! PartnerService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::partner_service_server::PartnerService;
use upbridge_proto::v1::*;

use super::Door;

#[tonic::async_trait]
impl PartnerService for Door {
    async fn list_partners(&self, _: Request<ListPartnersRequest>) -> Result<Response<ListPartnersResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn create_partner(
        &self,
        _: Request<CreatePartnerRequest>,
    ) -> Result<Response<CreatePartnerResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn get_partner(&self, _: Request<GetPartnerRequest>) -> Result<Response<GetPartnerResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn update_partner(
        &self,
        _: Request<UpdatePartnerRequest>,
    ) -> Result<Response<UpdatePartnerResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }

    async fn delete_partner(
        &self,
        _: Request<DeletePartnerRequest>,
    ) -> Result<Response<DeletePartnerResponse>, Status> {
        Err(Status::unimplemented("unbuilt"))
    }
}
