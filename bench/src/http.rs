//! The same calls as HTTP/JSON: HTTP/1.1 with keep-alive, a connection for each lane, as browsers and scripts call.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use upbridge_server::model::signature::Key;

use crate::hub::{FEATURE, User};
use crate::load::Lane;
use crate::{lanes, ledger};

/// Which call.
#[derive(Clone)]
pub enum Kind {
    /// VerifyToken.
    VerifyToken,
    /// CheckFeatureAccess.
    CheckFeatureAccess,
    /// RecordUsage in that month; every record adds one.
    RecordUsage(String, Arc<AtomicI64>),
    /// The usage webhook of CreatorUp, signed, each of a batch of its own; every one that is received adds one.
    Webhook(String, Arc<Key>, Arc<AtomicI64>),
}

/// A connection that sends one call after the other.
pub struct Http {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
    user_id: String,
    kind: Kind,
}

impl Http {
    /// A lane of that user.
    pub async fn new(port: u16, user: &User, kind: Kind) -> Result<Http> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection); // a connection that fails is noticed by its sender
        Ok(Http { sender, authorization: format!("Bearer {}", user.token), user_id: user.id.clone(), kind })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let (verb, path, body) = match &self.kind {
            Kind::VerifyToken => ("POST", "/api/v1/creatorup/verify".to_owned(), "{}".to_owned()),
            Kind::CheckFeatureAccess => {
                ("GET", format!("/api/v1/client/membership/feature/{FEATURE}/access"), String::new())
            }
            Kind::RecordUsage(month_year, _) => {
                let body = ledger::usage_json(month_year, &uuid::Uuid::new_v4().to_string());
                ("POST", "/api/v1/creatorup/sync/usage".to_owned(), body)
            }
            Kind::Webhook(month_year, ..) => {
                let body = ledger::webhook_json(&self.user_id, month_year, &uuid::Uuid::new_v4().to_string());
                ("POST", "/api/v1/creatorup/webhook/usage-update".to_owned(), body)
            }
        };
        let mut request = Request::builder().method(verb).uri(path).header(HOST, "127.0.0.1");
        request = match &self.kind {
            Kind::Webhook(_, key, _) => request.header("x-webhook-signature", key.sign(None, body.as_bytes())),
            _ => request.header(AUTHORIZATION, &self.authorization),
        };
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::new(Bytes::from(body)))?)
    }

    /// Enough to know that it is the right answer, without the load generator paying for a JSON parser.
    fn check(&self, body: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(body)?;
        let right = match &self.kind {
            Kind::VerifyToken => text.contains(&self.user_id),
            Kind::CheckFeatureAccess => text.contains(r#""has_access":true"#),
            Kind::Webhook(..) => text.contains(r#""duplicate":false"#) && text.contains("event_id"),
            Kind::RecordUsage(..) => text.contains(r#""duplicate":false"#) && text.contains(r#""created""#),
        };
        ensure!(right && text.contains(r#""success":true"#), "a wrong answer: {text}");
        Ok(())
    }

    async fn exchange(&mut self) -> Result<()> {
        let request = self.request()?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK || status == StatusCode::ACCEPTED,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        self.check(&body)
    }
}

impl Lane for Http {
    async fn call(&mut self) -> Result<()> {
        tokio::time::timeout(lanes::LONGEST_CALL, self.exchange()).await.context("no answer in time")??;
        if let Kind::RecordUsage(_, recorded) | Kind::Webhook(_, _, recorded) = &self.kind {
            recorded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
