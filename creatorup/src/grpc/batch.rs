//! BatchService.

use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::batch_service_server::BatchService;
use upbridge_proto::creatorup::v1::{
    CancelBatchRequest, CancelBatchResponse, CreateBatchRequest, CreateBatchResponse, GetBatchRequest,
    GetBatchResponse, ListBatchesRequest, ListBatchesResponse, ProcessVideoRequest, ProcessVideoResponse,
};
use upbridge_service::model::page::Page;

use super::{Door, convert, open, status};
use crate::domain::batch::NewBatch;
use crate::model::batch::BatchStatus;
use crate::model::{Error, Result};

/// The header that may carry the key, as HTTP APIs have it.
const KEY_HEADER: &str = "idempotency-key";
/// What a batch is when nobody says.
const BATCH_TYPE: &str = "video";
/// Bytes of a batch's metadata as JSON, at most: it is kept, listed, and told to the hub, which takes 1 MiB.
const LONGEST_METADATA: usize = 64 << 10;
/// What is used when nobody says.
const USAGE_TYPE: &str = "local_rendering";

#[tonic::async_trait]
impl BatchService for Door {
    async fn create_batch(
        &self,
        request: Request<CreateBatchRequest>,
    ) -> Result<Response<CreateBatchResponse>, Status> {
        let header = key_header(&request).map_err(status)?;
        let (caller, message) = open(request)?;
        let (user, _) = caller.user().map_err(status)?;
        let key = one_key(header, message.idempotency_key).map_err(status)?;
        let metadata = message.metadata.map(|metadata| convert::json(metadata, "metadata"));
        let metadata = metadata.transpose().map_err(status)?;
        if metadata.as_ref().is_some_and(|metadata| metadata.to_string().len() > LONGEST_METADATA) {
            return Err(status(Error::invalid("metadata", "must be at most 64 KiB as JSON")));
        }
        let asked = NewBatch {
            name: convert::text(message.name, "name").map_err(status)?,
            batch_type: message.r#type.unwrap_or_else(|| BATCH_TYPE.to_owned()),
            usage_type: message.usage_type.unwrap_or_else(|| USAGE_TYPE.to_owned()),
            inputs: message.inputs,
            metadata,
            key,
        };
        let (standing, duplicate) = self.creatorup.create_batch(user, asked).await.map_err(status)?;
        Ok(Response::new(CreateBatchResponse { batch: Some(convert::batch(&standing)), duplicate }))
    }

    async fn process_video(
        &self,
        request: Request<ProcessVideoRequest>,
    ) -> Result<Response<ProcessVideoResponse>, Status> {
        let (caller, message) = open(request)?;
        let (user, token) = caller.user().map_err(status)?;
        let id = convert::uuid(&message.batch_id, "batch_id").map_err(status)?;
        let standing = self.creatorup.process_video(user, token, id).await.map_err(status)?;
        Ok(Response::new(ProcessVideoResponse { batch: Some(convert::batch(&standing)) }))
    }

    async fn get_batch(&self, request: Request<GetBatchRequest>) -> Result<Response<GetBatchResponse>, Status> {
        let (caller, message) = open(request)?;
        let (user, _) = caller.user().map_err(status)?;
        let id = convert::uuid(&message.batch_id, "batch_id").map_err(status)?;
        let standing = self.creatorup.get_batch(user, id).await.map_err(status)?;
        Ok(Response::new(GetBatchResponse { batch: Some(convert::batch(&standing)) }))
    }

    async fn list_batches(
        &self,
        request: Request<ListBatchesRequest>,
    ) -> Result<Response<ListBatchesResponse>, Status> {
        let (caller, message) = open(request)?;
        let (user, _) = caller.user().map_err(status)?;
        let wanted = message.status.map(convert::batch_status).transpose().map_err(status)?;
        let filters = format!("batches {} {}", user.user_id, wanted.map_or("", BatchStatus::as_str));
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &filters).map_err(status)?;
        let found = self.creatorup.list_batches(user, wanted, &page).await.map_err(status)?;
        let batches = found.items.iter().map(convert::batch).collect();
        Ok(Response::new(ListBatchesResponse { batches, next_page_token: found.next }))
    }

    async fn cancel_batch(
        &self,
        request: Request<CancelBatchRequest>,
    ) -> Result<Response<CancelBatchResponse>, Status> {
        let (caller, message) = open(request)?;
        let (user, _) = caller.user().map_err(status)?;
        let id = convert::uuid(&message.batch_id, "batch_id").map_err(status)?;
        let standing = self.creatorup.cancel_batch(user, id).await.map_err(status)?;
        Ok(Response::new(CancelBatchResponse { batch: Some(convert::batch(&standing)) }))
    }
}

fn key_header<T>(request: &Request<T>) -> Result<Option<String>> {
    let Some(value) = request.metadata().get(KEY_HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Error::invalid("idempotency_key", "must have 1 to 255 visible ASCII characters in the header")),
    }
}

/// The key of the header, of the body, or of both.
fn one_key(header: Option<String>, body: Option<String>) -> Result<Option<String>> {
    match (header, body) {
        (Some(header), Some(body)) if header != body => {
            Err(Error::invalid("idempotency_key", "must be that of the idempotency-key header, or absent"))
        }
        (header, body) => body.or(header).map(|key| convert::text(key, "idempotency_key")).transpose(),
    }
}
