//! VerifyService.

use tonic::{Request, Response, Status};
use upbridge_proto::creatorup::v1::verify_service_server::VerifyService;
use upbridge_proto::creatorup::v1::{VerifyTokenRequest, VerifyTokenResponse};

use super::{Caller, Door, convert, open, status};
use crate::model::{Error, Reason, Result};

#[tonic::async_trait]
impl VerifyService for Door {
    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let (caller, message) = open(request)?;
        let token = one_token(&caller, message.token).map_err(status)?;
        let (verified, user) = self.creatorup.verify_token(&token).await.map_err(status)?;
        Ok(Response::new(VerifyTokenResponse {
            valid: true,
            access_granted: verified.has_access,
            reason: verified.reason,
            user: Some(convert::user(&user)),
            token_expires_at: verified.expires_at.map(convert::timestamp),
        }))
    }
}

/// The token of the header, of the body, or of both.
fn one_token(caller: &Caller, body: Option<String>) -> Result<String> {
    let header = match caller {
        Caller::Unjudged(token) | Caller::User(_, token) => Some(token.to_string()),
        Caller::Anonymous | Caller::Service => None,
    };
    match (header, body.filter(|token| !token.is_empty())) {
        (Some(header), Some(body)) if header != body => {
            Err(Error::invalid("token", "must be that of the Authorization header, or absent"))
        }
        (Some(token), _) | (None, Some(token)) => Ok(token),
        (None, None) => {
            Err(Error::unauthenticated(Reason::MissingCredentials, "send a DigiUp token as Bearer, or in the body"))
        }
    }
}
