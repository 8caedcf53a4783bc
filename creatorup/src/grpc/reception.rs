//! Who callers are: users by the hub's word on their token, and the hub by CreatorUp's API key.

use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use http::request::Parts;
use upbridge_proto::schema::Method;
use upbridge_service::grpc::{Rank, Reception};
use upbridge_service::model::{Credential, Origin};

use crate::domain::CreatorUp;
use crate::model::decision;
use crate::model::{Error, Reason, Result};

/// One caller.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No credential.
    Anonymous,
    /// A token that nobody has judged yet: the call itself is there to have it judged.
    Unjudged(Arc<str>),
    /// A user, with the token the hub is asked with.
    User(decision::Caller, Arc<str>),
    /// The hub.
    Service,
}

impl Caller {
    /// The user and the token, or UNAUTHENTICATED.
    pub fn user(&self) -> Result<(decision::Caller, &str)> {
        match self {
            Caller::User(user, token) => Ok((*user, token)),
            _ => Err(Error::unauthenticated(Reason::MissingCredentials, "send a DigiUp token as Bearer")),
        }
    }
}

/// The reception of CreatorUp.
pub struct Front {
    /// Whom it asks.
    pub creatorup: Arc<CreatorUp>,
}

/// Bytes of a token, at most, as the contract says where one is a field: the hub is not asked about more.
const LONGEST_TOKEN: usize = 4096;

impl Reception for Front {
    type Principal = Caller;

    async fn identify(&self, method: &'static Method, credential: Option<Credential<'_>>, _: &Parts) -> Result<Caller> {
        match credential {
            None => Ok(Caller::Anonymous),
            Some(Credential::ApiKey(key) | Credential::Token(key)) if self.creatorup.is_service_key(key) => {
                Ok(Caller::Service)
            }
            Some(Credential::ApiKey(_)) => {
                Err(Error::unauthenticated(Reason::InvalidCredentials, "the API key is not valid"))
            }
            Some(Credential::Token(token)) if token.len() > LONGEST_TOKEN => {
                Err(Error::unauthenticated(Reason::InvalidCredentials, "the token is not valid"))
            }
            Some(Credential::Token(token)) => {
                if method.policy.as_ref().is_some_and(|policy| policy.token_field.is_some()) {
                    return Ok(Caller::Unjudged(token.into()));
                }
                Ok(Caller::User(self.creatorup.identify(token).await?, token.into()))
            }
        }
    }

    fn rank(&self, caller: &Caller) -> Rank {
        match caller {
            Caller::Anonymous => Rank::Anonymous,
            Caller::Unjudged(_) | Caller::User(..) => Rank::User,
            Caller::Service => Rank::Service,
        }
    }

    fn label(&self, caller: &Caller) -> String {
        match caller {
            Caller::User(user, _) => user.digiup_user_id.to_string(),
            Caller::Service => "service".to_owned(),
            Caller::Anonymous | Caller::Unjudged(_) => String::new(),
        }
    }

    fn count(&self, _: Option<&Caller>, _: Option<IpAddr>) -> Result<()> {
        // Each user's call is a call at the hub, which counts it; CreatorUp has no limits of its own.
        Ok(())
    }

    fn enter(&self, caller: Caller, _: Origin, extensions: &mut Extensions) {
        extensions.insert(caller);
    }
}
