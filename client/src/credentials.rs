//! Who calls. A credential is turned into its header once, so that a call only copies a reference.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tonic::Status;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A credential. Its secret never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's session token, sent as `authorization: Bearer <token>`.
    Bearer(String),
    /// A service's key, sent as `x-api-key`.
    ApiKey(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Credentials::Bearer(_) => "Bearer(…)",
            Credentials::ApiKey(_) => "ApiKey(…)",
        })
    }
}

/// What a credential puts on a request.
#[derive(Clone, Debug, Default)]
pub(crate) enum Header {
    /// Nobody calls.
    #[default]
    None,
    /// A header; its value is marked sensitive, so that HTTP/2 never indexes it and `Debug` never prints it.
    Some(HeaderName, HeaderValue),
    /// The secret holds characters that no header can carry, so no hub can have issued it.
    Invalid,
}

impl Header {
    pub(crate) fn of(credentials: &Credentials) -> Header {
        let (name, text) = match credentials {
            Credentials::Bearer(token) => (AUTHORIZATION, format!("Bearer {token}")),
            Credentials::ApiKey(key) => (API_KEY, key.clone()),
        };
        let Ok(mut value) = HeaderValue::try_from(text) else { return Header::Invalid };
        value.set_sensitive(true);
        Header::Some(name, value)
    }

    /// Adds the header, unless the caller put a credential on this very request.
    pub(crate) fn apply<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        let headers = request.headers_mut();
        if headers.contains_key(AUTHORIZATION) || headers.contains_key(API_KEY) {
            return Ok(());
        }
        match self {
            Header::None => Ok(()),
            Header::Some(name, value) => {
                headers.insert(name, value.clone());
                Ok(())
            }
            Header::Invalid => Err(Status::unauthenticated("the credential holds characters that no header can carry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        for credentials in [Credentials::Bearer("s3cret".into()), Credentials::ApiKey("s3cret".into())] {
            assert!(!format!("{credentials:?} {:?}", Header::of(&credentials)).contains("s3cret"));
        }
    }

    #[test]
    fn a_credential_on_the_request_wins() {
        let mut request = http::Request::builder().header("x-api-key", "mine").body(()).unwrap();
        Header::of(&Credentials::Bearer("theirs".into())).apply(&mut request).unwrap();
        assert_eq!(request.headers().len(), 1);
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_before_it_is_sent() {
        let refused = Header::of(&Credentials::Bearer("a\r\nx-admin: yes".into())).apply(&mut http::Request::new(()));
        assert_eq!(refused.unwrap_err().code(), tonic::Code::Unauthenticated);
    }
}
