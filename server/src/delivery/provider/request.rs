//! What a provider is asked over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use upbridge_service::delivery::Url;

use super::super::BaseUrl;
use crate::model::connection::{Account, Fault, FaultCode};

/// A request, or why there can be none.
pub type Asking = Result<Ask, Fault>;

/// A request.
pub struct Ask {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Ask {
    /// A request at a path below the provider's address.
    pub fn new(method: Method, account: &Account, path: &str) -> Asking {
        let name = account.provider.spec().name;
        let missing = || wrong(format!("the base URL is missing: {name} has no usual address"));
        let base = BaseUrl::parse(account.url().ok_or_else(missing)?);
        let base =
            base.ok_or_else(|| wrong("the base URL is no http or https address without user, query and fragment"))?;
        let headers = HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static("application/json"))]);
        Ok(Ask { method, url: base.join(path), headers, body: Bytes::new() })
    }

    pub fn with(mut self, name: &'static str, value: HeaderValue) -> Ask {
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    pub fn body(mut self, body: Bytes) -> Ask {
        self.body = body;
        self
    }
}

/// A credential that must be there.
pub fn required<'a>(account: &'a Account, name: &str) -> Result<&'a str, Fault> {
    let given = account.credentials.text(name).filter(|text| !text.trim().is_empty());
    given.ok_or_else(|| wrong(format!("{name} is missing")))
}

/// `Authorization: Basic`.
pub fn basic(user: &str, password: &str) -> Result<HeaderValue, Fault> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// A header nothing prints.
pub fn secret(text: &str) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| wrong("a credential holds characters that none has, such as a line break"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Something is configured that cannot be right.
pub fn wrong(hint: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Configuration, hint)
}
