//! The service beneath every stub: a credential, then deadline and retries, then the connection.

use std::future::ready;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use crate::credentials::Header;
use crate::retry::Answer;
use crate::{Credentials, Retry};

/// A connection together with who calls on it. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Hub {
    connection: Retry<Channel>,
    header: Header,
}

impl Hub {
    pub(crate) fn new(connection: Retry<Channel>, credentials: Option<&Credentials>) -> Hub {
        Hub { connection, header: credentials.map(Header::of).unwrap_or_default() }
    }

    pub(crate) fn with(&self, credentials: Option<&Credentials>) -> Hub {
        Hub::new(self.connection.clone(), credentials)
    }
}

impl Service<http::Request<Body>> for Hub {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.connection.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answer {
        match self.header.apply(&mut request) {
            Ok(()) => self.connection.call(request),
            Err(status) => Box::pin(ready(Err(status))),
        }
    }
}
