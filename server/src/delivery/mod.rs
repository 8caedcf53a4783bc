//! The outward door: the only room that calls others.
//!
//! [`CreatorUpApi`] speaks to CreatorUp, through the bounded and guarded client of [`upbridge_service::delivery`], where
//! the essay of what is guaranteed stands. [`ProviderApis`] asks providers whether integrations work.

mod creatorup;
mod outward;
mod provider;

pub use creatorup::CreatorUpApi;
pub use provider::ProviderApis;
pub use upbridge_service::delivery::{Answer, BaseUrl, Guard, MOST_BYTES, Networks, Outbound, Trust};

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
