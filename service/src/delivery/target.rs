//! Addresses of others, in one spelling.

use std::fmt;

use reqwest::Url;

/// Longest address; with the rest of a job's key it fits its column.
const LONGEST: usize = 200;

/// The address that paths are added to: scheme, host, port and path, without a slash at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Reads `http` and `https` addresses without user, password, query and fragment.
    pub fn parse(text: &str) -> Option<BaseUrl> {
        let mut url = Url::parse(text.trim()).ok()?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && matches!(url.scheme(), "http" | "https")
            && url.has_host();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        (is_plain && url.as_str().len() <= LONGEST).then_some(BaseUrl(url))
    }

    /// A path below it, which begins with a slash.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path().trim_end_matches('/')));
        url
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_one_address() {
        let one = BaseUrl::parse("https://api.creatorup.com").unwrap();
        for spelling in ["https://API.creatorup.com/", "https://api.creatorup.com:443", " https://api.creatorup.com// "]
        {
            assert_eq!(BaseUrl::parse(spelling), Some(one.clone()), "{spelling}");
        }
        assert_eq!(one.to_string(), "https://api.creatorup.com");
        assert_eq!(one.join("/api/v1/x").as_str(), "https://api.creatorup.com/api/v1/x");
        let below = BaseUrl::parse("http://127.1:3000/creatorup/").unwrap();
        assert_eq!(
            (below.to_string().as_str(), below.join("/x").path()),
            ("http://127.0.0.1:3000/creatorup", "/creatorup/x")
        );
        for other in ["http://api.creatorup.com", "https://api.creatorup.com:8443", "https://api.creatorup.com/v2"] {
            assert_ne!(BaseUrl::parse(other), Some(one.clone()), "{other}");
        }
    }

    #[test]
    fn what_is_no_plain_address_is_none() {
        for text in [
            "",
            "api.creatorup.com",
            "ftp://api.creatorup.com",
            "file:///etc/passwd",
            "https://user@api.creatorup.com",
            "https://user:password@api.creatorup.com",
            "https://api.creatorup.com/?to=evil",
            "https://api.creatorup.com/#x",
            "https://",
        ] {
            assert_eq!(BaseUrl::parse(text), None, "{text}");
        }
        assert_eq!(BaseUrl::parse(&format!("https://{}.example", "a.".repeat(200))), None);
    }
}
