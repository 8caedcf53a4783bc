//! The outward door: the only room that calls others.
//!
//! The cast: [`Guard`] knows which addresses may be called, [`Outbound`] calls them, [`CreatorUpApi`] speaks to
//! CreatorUp through it.
//!
//! Guaranteed of every call: it ends within its timeout, the answer's last byte included; it goes to the address that
//! was named and nowhere else (no redirect is followed, no proxy of the environment is used, certificates are
//! verified); no more of an answer than its cap is read, and none of it is asked for compressed. What a caller of the
//! hub can choose goes through the guard, which judges the very addresses that are connected to, so a name that
//! resolves to another address a moment later gains nothing. What the operator configured as CreatorUp's address is
//! trusted.
//!
//! Not guaranteed: that a call which failed was not received. So whatever is sent can be sent again.

mod creatorup;
mod guard;
mod outbound;
mod target;

pub use creatorup::CreatorUpApi;
pub use guard::{Guard, Networks};
pub use outbound::{Answer, MOST_BYTES, Outbound, Trust};
pub use target::BaseUrl;

use std::time::Duration;

/// How CreatorUp is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `CREATORUP_API_URL`
    pub url: BaseUrl,
    /// `CREATORUP_ALLOWED_URLS`: further addresses of CreatorUp that a caller may name.
    pub allowed_urls: Vec<BaseUrl>,
    /// `SYNC_TIMEOUT`: how long one call may take as a whole.
    pub timeout: Duration,
    /// `OUTBOUND_ALLOWED_NETWORKS`
    pub allowed_networks: Networks,
}
