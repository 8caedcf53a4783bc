//! What each server decides about those who call it.

use std::future::Future;
use std::net::IpAddr;

use bytes::Bytes;
use http::Extensions;
use http::request::Parts;
use upbridge_proto::schema::Method;

use crate::model::{Credential, Error, Origin, Result};

/// As whom a policy of the contract knows a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// No credential.
    Anonymous,
    /// A signed-in user.
    User,
    /// A signed-in user who administers the server.
    Admin,
    /// The other side's server.
    Service,
    /// The other side's server, by the signature of a webhook.
    Webhook,
}

/// Who callers are to one server, and how often they may call. The [`Gate`](super::gate::Gate) reads credentials and
/// policies; everything it cannot know is asked here, once for each call.
pub trait Reception: Send + Sync + 'static {
    /// One caller. Exactly one is read from each call.
    type Principal: Send + Sync;

    /// Whose the call is. `credential` is the one the headers hold, if any; `request` is for what only this server knows
    /// how to read, such as a cookie or a mark that [`Reception::admit_webhook`] left.
    ///
    /// Errors: the credential is not good.
    fn identify(
        &self,
        method: &'static Method,
        credential: Option<Credential<'_>>,
        request: &Parts,
    ) -> impl Future<Output = Result<Self::Principal>> + Send;

    /// As whom a policy knows them.
    fn rank(&self, principal: &Self::Principal) -> Rank;

    /// What the access log calls them; empty for nobody.
    fn label(&self, principal: &Self::Principal) -> String;

    /// Counts a call against the caller's rate limit; `None` is somebody whose credential was refused, who counts like
    /// one without.
    ///
    /// Errors: the limit is reached.
    fn count(&self, principal: Option<&Self::Principal>, ip: Option<IpAddr>) -> Result<()>;

    /// Lets the caller in: leaves what the server's handlers are told of them in the request's extensions.
    fn enter(&self, principal: Self::Principal, origin: Origin, extensions: &mut Extensions);

    /// Judges a webhook of `event` by the bytes of its body, before they are read, and marks the request when it is good,
    /// so that [`Reception::identify`] knows the caller by the mark. A call that brings another credential and no
    /// signature is no webhook, and is let through unmarked. A server that takes no webhooks has no method that asks.
    ///
    /// Errors: the signature is missing or wrong, or the caller's rate limit is reached.
    fn admit_webhook(&self, event: &str, ip: Option<IpAddr>, request: &mut Parts, body: &Bytes) -> Result<()> {
        let _ = (ip, request, body);
        Err(Error::internal(format!("nobody here takes webhooks of {event}")))
    }

    /// Hears of a webhook of `event` that is too large to be judged.
    ///
    /// Errors: too many come from that address, which is told instead.
    fn oversized_webhook(&self, event: &str, ip: Option<IpAddr>, why: &str) -> Result<()> {
        let _ = (event, ip, why);
        Ok(())
    }

    /// Hears that a webhook that was let in could not be read.
    fn unreadable_webhook(
        &self,
        request: &Extensions,
        ip: Option<IpAddr>,
        why: &str,
    ) -> impl Future<Output = ()> + Send {
        let _ = (request, ip, why);
        std::future::ready(())
    }
}
