//! From a URL to a connection: every setting has a default that suits a hub in the same data centre.

use std::fmt;
use std::time::Duration;

use http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tower::Layer;

use crate::{Client, Credentials, Hub, RetryLayer, RetryPolicy};

const USER_AGENT: &str = concat!("upbridge-client/", env!("CARGO_PKG_VERSION"));
/// An unanswered ping means a dead connection; the calls on it fail and are repeated on a new one.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not `http://host:port` or `https://host:port`.
    #[error("{url:?} is no address of a hub: {why}")]
    InvalidUrl {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates or a setting of the connection cannot be used.
    #[error("the connection cannot be set up: {0}")]
    InvalidSetting(#[source] tonic::transport::Error),
    /// The hub did not answer.
    #[error("the hub at {url} cannot be reached: {source}")]
    Unreachable {
        /// The hub's URL.
        url: String,
        /// What went wrong.
        source: tonic::transport::Error,
    },
}

/// Settings of a [`Client`].
#[derive(Clone)]
pub struct Builder {
    url: String,
    credentials: Option<Credentials>,
    ca_pem: Option<Vec<u8>>,
    tls_server_name: Option<String>,
    connect_timeout: Duration,
    call_timeout: Duration,
    keep_alive_interval: Duration,
    message_limit_bytes: usize,
    retry: RetryPolicy,
    user_agent: String,
}

impl Builder {
    /// Settings for the hub at `url`, `http://host:port` or `https://host:port`.
    pub fn new(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            credentials: None,
            ca_pem: None,
            tls_server_name: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(30),
            message_limit_bytes: 8 << 20, // the results of a full stream, all of them refused with a sentence
            retry: RetryPolicy::default(),
            user_agent: USER_AGENT.to_owned(),
        }
    }

    /// Who calls; nobody when never set.
    pub fn credentials(mut self, credentials: Credentials) -> Builder {
        self.credentials = Some(credentials);
        self
    }

    /// The certificates, in PEM, of the only authorities to trust. Without them the platform's authorities are
    /// trusted, or Mozilla's where the platform has none.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Builder {
        self.ca_pem = Some(pem.into());
        self
    }

    /// The name the hub's certificate must carry, when it differs from the host in the URL.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Builder {
        self.tls_server_name = Some(name.into());
        self
    }

    /// How long a TCP connection may take, 5 s when never set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, all attempts together, 10 s when never set. The hub is told as `grpc-timeout`;
    /// a timeout set on a request takes its place.
    pub fn call_timeout(mut self, timeout: Duration) -> Builder {
        self.call_timeout = timeout;
        self
    }

    /// How often an idle connection is pinged, 30 s when never set.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Builder {
        self.keep_alive_interval = interval;
        self
    }

    /// The largest message to send or to accept, 8 MiB when never set.
    pub fn message_limit_bytes(mut self, limit_bytes: usize) -> Builder {
        self.message_limit_bytes = limit_bytes;
        self
    }

    /// How calls are repeated.
    pub fn retry(mut self, policy: RetryPolicy) -> Builder {
        self.retry = policy;
        self
    }

    /// What the hub's log shows as the caller; `upbridge-client/<version>` stays behind it.
    pub fn user_agent(mut self, product: &str) -> Builder {
        self.user_agent = format!("{product} {USER_AGENT}");
        self
    }

    /// Connects now, so that a wrong address is found here and not at the first call.
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoint = self.endpoint()?;
        let channel =
            endpoint.connect().await.map_err(|source| Error::Unreachable { url: self.url.clone(), source })?;
        Ok(self.client(channel))
    }

    /// Connects at the first call, for callers that may start before the hub. Needs a Tokio runtime all the same.
    pub fn connect_lazily(self) -> Result<Client, Error> {
        let channel = self.endpoint()?.connect_lazy();
        Ok(self.client(channel))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let uri = address(&self.url)?;
        let secure = uri.scheme_str() == Some("https");
        let endpoint = Channel::builder(uri)
            .user_agent(self.user_agent.as_str())
            .map_err(Error::InvalidSetting)?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if !secure {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().timeout(self.connect_timeout);
        if let Some(name) = &self.tls_server_name {
            tls = tls.domain_name(name);
        }
        match &self.ca_pem {
            Some(pem) => endpoint.tls_config(tls.ca_certificate(Certificate::from_pem(pem))),
            None => endpoint
                .clone()
                .tls_config(tls.clone().with_native_roots())
                .or_else(|_| endpoint.tls_config(tls.with_webpki_roots())),
        }
        .map_err(Error::InvalidSetting)
    }

    fn client(self, channel: Channel) -> Client {
        let layer = RetryLayer::new(self.retry, self.call_timeout, self.message_limit_bytes);
        Client::new(Hub::new(layer.layer(channel), self.credentials.as_ref()), self.message_limit_bytes)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Builder").field("url", &self.url).finish_non_exhaustive()
    }
}

fn address(url: &str) -> Result<Uri, Error> {
    let invalid = |why: String| Error::InvalidUrl { url: url.to_owned(), why };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("it must begin with http:// or https://".to_owned()));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(invalid("it must end after the port".to_owned()));
    }
    // A password there would be sent to nobody and logged by everybody.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::InvalidUrl { url: "…".to_owned(), why: "credentials do not belong in it".to_owned() });
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for good in ["http://127.0.0.1:3345", "https://hub.digiup.example/", "http://[::1]:3345"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "hub:3345", "127.0.0.1:3345", "ftp://hub", "http://hub/api", "http://hub/?a", "http:// hub"] {
            assert!(matches!(address(bad), Err(Error::InvalidUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = address("http://ana:hunter2@hub:3345").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn certificates_that_are_none_are_found_before_the_first_call() {
        let builder = Builder::new("https://hub.example").ca_pem("-----BEGIN CERTIFICATE-----\n!\n");
        assert!(matches!(builder.connect_lazily(), Err(Error::InvalidSetting(_))));
    }

    #[tokio::test]
    async fn a_secure_connection_finds_its_roots() {
        assert!(Builder::new("https://hub.example").connect_lazily().is_ok());
    }

    #[tokio::test]
    async fn an_eager_connection_to_nobody_is_an_error() {
        // Taken, so that nobody else comes there, and nobody listens.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let unused = nobody.local_addr().unwrap();
        let error = Client::connect(format!("http://{unused}")).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }
}
