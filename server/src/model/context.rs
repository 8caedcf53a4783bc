//! Who asks, from where, and under which request id.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::callback::Callback;
use super::user::{Role, User};
use super::webhook::Delivery;
use super::{Error, Instant, Reason, Result};

/// One caller. Exactly one is read from each call.
#[derive(Clone, Debug)]
pub enum Principal {
    /// No credential.
    Anonymous,
    /// A signed-in user.
    User(Arc<SignedIn>),
    /// CreatorUp's server, by its API key.
    Service,
    /// CreatorUp's server, by the signature of a webhook.
    Webhook(Arc<Delivery>),
    /// Somebody who calls back and has yet to prove that they are an integration's provider.
    Provider(Arc<Callback>),
}

/// A user with a good token.
#[derive(Debug)]
pub struct SignedIn {
    /// The user as last read; at most a few seconds old, never older than this hub's own writes.
    pub user: Arc<User>,
    /// The session, the token's `jti`.
    pub session_id: Uuid,
    /// When the token expires.
    pub expires_at: Instant,
}

/// What every domain function is told about its caller.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Who asks.
    pub principal: Principal,
    /// The request's id.
    pub request_id: Arc<str>,
    /// Address of the peer; absent for work the hub starts itself.
    pub ip: Option<IpAddr>,
    /// What the peer calls itself, cut to 255 characters; may be empty.
    pub user_agent: Arc<str>,
}

impl Ctx {
    /// The signed-in user, or UNAUTHENTICATED.
    pub fn signed_in(&self) -> Result<&Arc<SignedIn>> {
        match &self.principal {
            Principal::User(signed_in) => Ok(signed_in),
            _ => Err(Error::unauthenticated(Reason::MissingCredentials, "sign in first")),
        }
    }

    /// The signed-in user's id; nothing for everybody else.
    pub fn user_id(&self) -> Option<Uuid> {
        match &self.principal {
            Principal::User(signed_in) => Some(signed_in.user.id),
            _ => None,
        }
    }

    /// The user a call is about: the caller's own, or the one a service names in `field`.
    ///
    /// A user may name themselves; naming another is refused as if that field were wrong, because whether the
    /// other exists is none of their business.
    pub fn subject(&self, named: Option<Uuid>, field: &'static str) -> Result<Uuid> {
        match (&self.principal, named) {
            (Principal::User(signed_in), None) => Ok(signed_in.user.id),
            (Principal::User(signed_in), Some(id)) if signed_in.user.id == id => Ok(id),
            (Principal::User(_), Some(_)) => Err(Error::invalid(field, "must be absent or your own id")),
            (Principal::Service | Principal::Webhook(_), Some(id)) => Ok(id),
            (Principal::Service | Principal::Webhook(_), None) => {
                Err(Error::invalid(field, "is required when a service calls"))
            }
            (Principal::Anonymous | Principal::Provider(_), _) => {
                Err(Error::unauthenticated(Reason::MissingCredentials, "sign in first"))
            }
        }
    }

    /// Whether the caller is an administrator.
    pub fn is_admin(&self) -> bool {
        matches!(&self.principal, Principal::User(signed_in) if signed_in.user.role == Role::Admin)
    }
}
