//! The variables of the line to CreatorUp.

use std::time::Duration;

use super::Reader;
use crate::delivery::{BaseUrl, Networks, Options};

const ADDRESS: &str =
    "must be an http or https address such as https://api.creatorup.com, without user, query and fragment";

/// How users get to CreatorUp.
#[derive(Clone, Debug)]
pub struct CreatorUp {
    /// `CREATORUP_API_URL`, `CREATORUP_ALLOWED_URLS`, `SYNC_TIMEOUT`, `OUTBOUND_ALLOWED_NETWORKS`; `None` without an
    /// address: then nobody is pushed anywhere.
    pub api: Option<Options>,
    /// `SYNC_INTERVAL`
    pub sync_interval: Duration,
    /// `SYNC_BATCH_SIZE`
    pub sync_batch_size: u64,
}

impl Reader<'_> {
    pub(super) fn creatorup(&mut self) -> CreatorUp {
        let url = self.optional("CREATORUP_API_URL").map(|text| self.address("CREATORUP_API_URL", &text));
        let listed = self.text("CREATORUP_ALLOWED_URLS", "");
        let listed = listed.split(',').map(str::trim).filter(|text| !text.is_empty());
        let allowed_urls: Vec<_> = listed.map(|text| self.address("CREATORUP_ALLOWED_URLS", text)).collect();
        let networks = Networks::parse(&self.text("OUTBOUND_ALLOWED_NETWORKS", ""));
        let allowed_networks = networks.unwrap_or_else(|| {
            self.problem(
                "OUTBOUND_ALLOWED_NETWORKS",
                "must be networks such as 10.1.0.0/16, or addresses, separated by commas",
            )
        });
        // Below the deadline of the job that makes the call.
        let timeout = self.millis("SYNC_TIMEOUT", 10_000, 10, 100_000);
        let allowed_urls = allowed_urls.into_iter().flatten().collect();
        CreatorUp {
            api: url.flatten().map(|url| Options { url, allowed_urls, timeout, allowed_networks }),
            sync_interval: self.millis("SYNC_INTERVAL", 300_000, 100, 86_400_000),
            sync_batch_size: self.number("SYNC_BATCH_SIZE", 100, 1, 10_000),
        }
    }

    fn address(&mut self, name: &str, text: &str) -> Option<BaseUrl> {
        BaseUrl::parse(text).or_else(|| self.problem(name, ADDRESS))
    }
}
