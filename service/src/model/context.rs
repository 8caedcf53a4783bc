//! Under which request id somebody asks, and with which credential.

use std::net::IpAddr;
use std::sync::Arc;

/// The id of one request, on its reply and on every log line about it.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// A credential as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A session token.
    Token(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

/// From where somebody asks.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The request's id.
    pub request_id: Arc<str>,
    /// Address of the peer; absent where the request came over no socket.
    pub ip: Option<IpAddr>,
    /// What the peer calls itself, cut to 255 characters; may be empty.
    pub user_agent: Arc<str>,
}
