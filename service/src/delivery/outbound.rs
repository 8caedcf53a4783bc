//! Calls to others, with a bound on everything: time, size, and where they lead.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, ClientBuilder, Response, Url};

use super::guard::{Blocked, Guard};
use crate::model::failure::{Failure, FailureClass};

/// Bytes of an answer that are read; an answer that is longer is not understood.
pub const MOST_BYTES: usize = 64 * 1024;
/// Longest wait for a connection; the timeout of the whole call ends it too.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next call.
const IDLE: Duration = Duration::from_secs(30);

/// Who chose the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The operator: wherever it leads is meant.
    Configured,
    /// Somebody else: it must not lead inside.
    Guarded,
}

/// How much of an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The whole body when the status says success, and nothing of other answers.
    OnSuccess,
    /// The whole body, whatever the status; one of more bytes is not understood.
    Whole(usize),
    /// The first bytes of the body, whatever the status; of the rest nothing is read.
    First(usize),
}

/// A call to somebody.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who chose the address.
    pub trust: Trust,
    /// What is done.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// What is said beside the body.
    pub headers: HeaderMap,
    /// What is said.
    pub body: Bytes,
    /// The longest it may take, up to the last byte read; `None` is what the caller of the others has.
    pub timeout: Option<Duration>,
    /// How much of the answer is read.
    pub reading: Reading,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// As much of its body as was to be read.
    pub body: Bytes,
    /// The address that was called.
    pub remote: Option<SocketAddr>,
}

/// Calls others.
pub struct Outbound {
    configured: Client,
    guarded: Client,
    guard: Guard,
}

impl Outbound {
    /// A caller whose calls take `timeout` at most, from the first byte to the last.
    pub fn new(guard: Guard, timeout: Duration) -> Result<Outbound, reqwest::Error> {
        Ok(Outbound {
            configured: bounded(timeout).build()?,
            guarded: bounded(timeout).dns_resolver(guard.clone()).build()?,
            guard,
        })
    }

    /// Makes a call and reads the answer when it says success.
    pub async fn call(
        &self,
        trust: Trust,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let reading = Reading::OnSuccess;
        self.exchange(Call { trust, method, url, headers, body, timeout: None, reading }).await
    }

    /// Makes a call and reads as much of the answer as it asks for.
    pub async fn exchange(&self, call: Call) -> Result<Answer, Failure> {
        let Call { trust, method, url, headers, body, timeout, reading } = call;
        let client = match trust {
            Trust::Configured => &self.configured,
            // A literal address is never resolved, so it is judged here.
            Trust::Guarded if !self.guard.permits_url(&url) => return Err(blocked()),
            Trust::Guarded => &self.guarded,
        };
        let mut request = client.request(method, url).headers(headers).body(body);
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let response = request.send().await.map_err(|error| failure(&error))?;
        let remote = response.remote_addr();
        if trust == Trust::Guarded && remote.is_none_or(|address| !self.guard.permits(address.ip())) {
            return Err(blocked());
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match reading {
            Reading::OnSuccess if !status.is_success() => Bytes::new(),
            Reading::OnSuccess => read(response, MOST_BYTES, false).await?,
            Reading::Whole(most) => read(response, most, false).await?,
            Reading::First(most) => read(response, most, true).await?,
        };
        Ok(Answer { status, headers, body, remote })
    }

    /// Judges addresses as the calls do.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }
}

fn bounded(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT.min(timeout))
        .redirect(reqwest::redirect::Policy::none())
        // A proxy of the environment would connect for us, past the guard.
        .no_proxy()
        // Trying again is the queue's.
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("upbridge/", env!("CARGO_PKG_VERSION")))
}

async fn read(mut response: Response, most: usize, is_cut: bool) -> Result<Bytes, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
        let room = most - body.len();
        if piece.len() > room && !is_cut {
            return Err(Failure::passing(
                FailureClass::Garbage,
                format!("the answer has more than {} KiB", most / 1024),
            ));
        }
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == most && is_cut {
            break;
        }
    }
    Ok(body.into())
}

fn blocked() -> Failure {
    Failure::permanent(FailureClass::Blocked, Blocked.to_string())
}

/// What went wrong, without the address: it may hold what is nobody else's business.
fn failure(error: &reqwest::Error) -> Failure {
    if is_caused_by::<Blocked>(error) {
        return blocked();
    }
    let (class, message) = if error.is_timeout() {
        (FailureClass::Timeout, "there was no whole answer in time")
    } else if is_caused_by::<rustls::Error>(error) {
        (FailureClass::Tls, "the connection could not be secured")
    } else if error.is_connect() {
        (FailureClass::Network, "there is no connection")
    } else {
        (FailureClass::Network, "the connection broke before the answer was whole")
    };
    Failure::passing(class, message)
}

fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error hides what it wraps from `source`.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<E>() || wrapped.is_some_and(|wrapped| is_caused_by::<E>(wrapped)) {
            return true;
        }
        cause = error.source();
    }
    false
}
