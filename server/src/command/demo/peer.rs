//! CreatorUp as its users call it: JSON over HTTP, with their tokens.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use upbridge_server::delivery::BaseUrl;
use upbridge_service::delivery::{Guard, Networks, Outbound, Trust};

/// Calls CreatorUp.
pub struct Peer {
    base: BaseUrl,
    outbound: Outbound,
}

impl Peer {
    /// Calls nobody yet.
    pub fn new(url: &str) -> anyhow::Result<Peer> {
        let base = BaseUrl::parse(url).context("an address")?;
        let outbound = Outbound::new(Guard::new(Networks::default()), Duration::from_secs(15))?;
        Ok(Peer { base, outbound })
    }

    /// The data of a successful answer.
    pub async fn get(&self, path: &str, token: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, token, Bytes::new()).await
    }

    /// Sends a body; the data of a successful answer.
    pub async fn post(&self, path: &str, token: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, token, body.to_string().into()).await
    }

    /// Whether it answers that it is there.
    pub async fn is_ready(&self) -> bool {
        let asked = self.outbound.call(
            Trust::Configured,
            Method::GET,
            self.base.join("/healthz"),
            HeaderMap::new(),
            Bytes::new(),
        );
        asked.await.is_ok_and(|answer| answer.status.is_success())
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: Bytes) -> anyhow::Result<Value> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !token.is_empty() {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
        }
        let line = format!("{method} {path}");
        let answer = self.outbound.call(Trust::Configured, method, self.base.join(path), headers, body).await;
        let answer = answer.map_err(|failure| anyhow::anyhow!("CreatorUp, {line}: {failure}"))?;
        if !answer.status.is_success() {
            bail!("CreatorUp, {line}: it answered {}", answer.status);
        }
        let mut answer: Value = serde_json::from_slice(&answer.body).with_context(|| line)?;
        Ok(answer["data"].take())
    }
}
