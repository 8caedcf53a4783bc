//! PartnerService.

use tonic::{Request, Response, Status};
use upbridge_proto::v1::partner_service_server::PartnerService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::model::integration as model;
use crate::model::page::Page;

#[tonic::async_trait]
impl PartnerService for Door {
    async fn list_partners(
        &self,
        request: Request<ListPartnersRequest>,
    ) -> Result<Response<ListPartnersResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let filter = model::PartnerFilter { status: message.status.and_then(standing), query: message.query };
        let bound = format!("partners {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_partners(&filter, &page).await.map_err(status)?;
        let partners = listed.items.into_iter().map(partner).collect();
        Ok(Response::new(ListPartnersResponse { partners, next_page_token: listed.next }))
    }

    async fn create_partner(
        &self,
        request: Request<CreatePartnerRequest>,
    ) -> Result<Response<CreatePartnerResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let standing = message.status.and_then(standing).unwrap_or(model::PartnerStatus::Active);
        let made = self.hub.create_partner(&ctx, &message.name, standing).await.map_err(status)?;
        Ok(Response::new(CreatePartnerResponse { partner: Some(partner(made)) }))
    }

    async fn get_partner(&self, request: Request<GetPartnerRequest>) -> Result<Response<GetPartnerResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.partner_id, "partner_id").map_err(status)?;
        let found = self.hub.get_partner(id).await.map_err(status)?;
        Ok(Response::new(GetPartnerResponse { partner: Some(partner(found)) }))
    }

    async fn update_partner(
        &self,
        request: Request<UpdatePartnerRequest>,
    ) -> Result<Response<UpdatePartnerResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.partner_id, "partner_id").map_err(status)?;
        let change = model::PartnerChange { name: message.name, status: message.status.and_then(standing) };
        let changed = self.hub.update_partner(&ctx, id, change).await.map_err(status)?;
        Ok(Response::new(UpdatePartnerResponse { partner: Some(partner(changed)) }))
    }

    async fn delete_partner(
        &self,
        request: Request<DeletePartnerRequest>,
    ) -> Result<Response<DeletePartnerResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.partner_id, "partner_id").map_err(status)?;
        self.hub.delete_partner(&ctx, id).await.map_err(status)?;
        Ok(Response::new(DeletePartnerResponse {}))
    }
}

fn standing(number: i32) -> Option<model::PartnerStatus> {
    convert::value(model::PartnerStatus::ALL, number)
}

fn partner(partner: model::Partner) -> Partner {
    Partner {
        id: partner.id.to_string(),
        name: partner.name,
        status: convert::number!(partner.status),
        created_at: Some(convert::timestamp(partner.created_at)),
        updated_at: Some(convert::timestamp(partner.updated_at)),
    }
}
