//! Calls to others, with a bound on everything: time, size, and where they lead.

use std::error::Error;
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

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, when the status says success; of other answers nothing is read.
    pub body: Bytes,
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

    /// Makes a call and reads the answer.
    pub async fn call(
        &self,
        trust: Trust,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let client = match trust {
            Trust::Configured => &self.configured,
            // A literal address is never resolved, so it is judged here.
            Trust::Guarded if !self.guard.permits_url(&url) => return Err(blocked()),
            Trust::Guarded => &self.guarded,
        };
        let sent = client.request(method, url).headers(headers).body(body).send().await;
        let response = sent.map_err(|error| failure(&error))?;
        if trust == Trust::Guarded && response.remote_addr().is_none_or(|address| !self.guard.permits(address.ip())) {
            return Err(blocked());
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = if status.is_success() { read(response).await? } else { Bytes::new() };
        Ok(Answer { status, headers, body })
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

async fn read(mut response: Response) -> Result<Bytes, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
        if body.len() + piece.len() > MOST_BYTES {
            return Err(Failure::passing(
                FailureClass::Garbage,
                format!("the answer has more than {} KiB", MOST_BYTES / 1024),
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

fn blocked() -> Failure {
    Failure::permanent(FailureClass::Blocked, "the address is not one the hub may call")
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
