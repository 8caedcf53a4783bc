//! The variables of the line to CreatorUp.

use std::time::Duration;

use upbridge_service::config::Reader;

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
    /// `OUTBOUND_ALLOWED_NETWORKS`, of everything that others may make the hub call.
    pub allowed_networks: Networks,
}

/// Reads them.
pub(super) fn read(reader: &mut Reader<'_>) -> CreatorUp {
    let url = reader.optional("CREATORUP_API_URL").map(|text| address(reader, "CREATORUP_API_URL", &text));
    let listed = reader.text("CREATORUP_ALLOWED_URLS", "");
    let listed = listed.split(',').map(str::trim).filter(|text| !text.is_empty());
    let allowed_urls: Vec<_> = listed.map(|text| address(reader, "CREATORUP_ALLOWED_URLS", text)).collect();
    let networks = Networks::parse(&reader.text("OUTBOUND_ALLOWED_NETWORKS", ""));
    let allowed_networks = networks.unwrap_or_else(|| {
        reader.problem(
            "OUTBOUND_ALLOWED_NETWORKS",
            "must be networks such as 10.1.0.0/16, or addresses, separated by commas",
        )
    });
    // Below the deadline of the job that makes the call.
    let timeout = reader.millis("SYNC_TIMEOUT", 10_000, 10, 100_000);
    let allowed_urls = allowed_urls.into_iter().flatten().collect();
    CreatorUp {
        api: url.flatten().map(|url| Options {
            url,
            allowed_urls,
            timeout,
            allowed_networks: allowed_networks.clone(),
        }),
        allowed_networks,
        sync_interval: reader.millis("SYNC_INTERVAL", 300_000, 100, 86_400_000),
        sync_batch_size: reader.number("SYNC_BATCH_SIZE", 100, 1, 10_000),
    }
}

fn address(reader: &mut Reader<'_>, name: &str, text: &str) -> Option<BaseUrl> {
    BaseUrl::parse(text).or_else(|| reader.problem(name, ADDRESS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> (CreatorUp, Vec<String>) {
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut reader = Reader::new(&variables, Path::new("unused"));
        let creatorup = super::read(&mut reader);
        (creatorup, reader.finish().err().map(|problems| problems.list().to_vec()).unwrap_or_default())
    }

    #[test]
    fn nothing_set_is_nobody_to_push_to_and_the_defaults_of_the_sources() {
        let (creatorup, problems) = read(&[]);
        assert!(creatorup.api.is_none() && problems.is_empty(), "{problems:?}");
        assert_eq!((creatorup.sync_interval.as_secs(), creatorup.sync_batch_size), (300, 100));
        let (creatorup, _) = read(&[("CREATORUP_API_URL", "https://api.creatorup.com/")]);
        let api = creatorup.api.expect("an address");
        assert_eq!((api.url.to_string().as_str(), api.timeout.as_secs()), ("https://api.creatorup.com", 10));
    }

    #[test]
    fn every_problem_names_its_variable_and_no_value() {
        let bad = [
            ("CREATORUP_API_URL", "https://hunter2@api.creatorup.com"),
            ("CREATORUP_ALLOWED_URLS", "https://good.example, hunter2"),
            ("OUTBOUND_ALLOWED_NETWORKS", "10.0.0.0/99"),
            ("SYNC_TIMEOUT", "120000"),
            ("SYNC_INTERVAL", "0"),
            ("SYNC_BATCH_SIZE", "0"),
        ];
        let (_, problems) = read(&bad);
        assert_eq!(problems.len(), bad.len(), "{problems:?}");
        assert!(bad.iter().all(|(name, _)| problems.iter().any(|problem| problem.starts_with(name))), "{problems:?}");
        assert!(!problems.concat().contains("hunter2"), "{problems:?}");
    }
}
