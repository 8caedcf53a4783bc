//! The guard, as the domain asks it: what is refused when it would be called is refused when it is named.

use upbridge_service::delivery::Url;

use super::{BaseUrl, Guard};
use crate::model::outward::{Callable, NotCallable, Outward};

impl Outward for Guard {
    fn judge(&self, url: &str) -> Result<Callable, NotCallable> {
        let base = BaseUrl::parse(url).ok_or(NotCallable::Malformed)?;
        let url = base.join("/");
        if !self.permits_url(&url) {
            return Err(NotCallable::Blocked);
        }
        let is_listed = self.lists_url(&url);
        if url.scheme() != "https" && !is_listed {
            return Err(NotCallable::Insecure);
        }
        Ok(Callable { url: base.to_string(), is_listed })
    }

    fn judge_host(&self, host: &str) -> Result<String, NotCallable> {
        let host = host.trim();
        let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        let text = if is_v6 { format!("http://[{host}]/") } else { format!("http://{host}/") };
        let url = Url::parse(&text).map_err(|_| NotCallable::MalformedHost)?;
        let name = url.host_str().unwrap_or_default();
        // Whatever else the text had, such as a port or a path, is not in this.
        if name.is_empty()
            || url.as_str() != format!("http://{name}/")
            || host.ends_with('/')
            || host.contains(':') != is_v6
        {
            return Err(NotCallable::MalformedHost);
        }
        if !self.permits_url(&url) {
            return Err(NotCallable::Blocked);
        }
        Ok(name.trim_matches(['[', ']']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Networks;

    #[test]
    fn addresses_are_judged_by_what_they_say() {
        let guard = Guard::new(Networks::parse("127.0.0.0/8").unwrap());
        let listed = |url: &str| Ok(Callable { url: url.to_owned(), is_listed: true });
        let public = |url: &str| Ok(Callable { url: url.to_owned(), is_listed: false });
        for (url, judged) in [
            ("https://API.example.com/v1/", public("https://api.example.com/v1")),
            ("https://1.1.1.1", public("https://1.1.1.1")),
            ("http://127.1:8080", listed("http://127.0.0.1:8080")),
            ("https://127.0.0.1", listed("https://127.0.0.1")),
            ("http://api.example.com", Err(NotCallable::Insecure)),
            ("http://1.1.1.1", Err(NotCallable::Insecure)),
            ("https://10.0.0.1", Err(NotCallable::Blocked)),
            ("http://169.254.169.254/latest", Err(NotCallable::Blocked)),
            ("https://[::ffff:10.0.0.1]/", Err(NotCallable::Blocked)),
            ("https://user@api.example.com", Err(NotCallable::Malformed)),
            ("https://api.example.com/?a=b", Err(NotCallable::Malformed)),
            ("ftp://api.example.com", Err(NotCallable::Malformed)),
            ("nonsense", Err(NotCallable::Malformed)),
        ] {
            assert_eq!(guard.judge(url), judged, "{url}");
        }
    }

    #[test]
    fn hosts_are_judged_in_every_spelling_and_kept_in_one() {
        let guard = Guard::new(Networks::parse("127.0.0.0/8").unwrap());
        for (host, judged) in [
            ("Mail.Example.com", Ok("mail.example.com")),
            (" mail.example.com ", Ok("mail.example.com")),
            ("1.1.1.1", Ok("1.1.1.1")),
            ("2606:4700:4700::1111", Ok("2606:4700:4700::1111")),
            ("0x7f.1", Ok("127.0.0.1")),
            ("10.0.0.1", Err(NotCallable::Blocked)),
            ("2130706434.", Ok("127.0.0.2")),
            ("167772161", Err(NotCallable::Blocked)),
            ("::1", Err(NotCallable::Blocked)),
            ("Localhost", Ok("localhost")),
            ("::ffff:a00:1", Err(NotCallable::Blocked)),
            ("", Err(NotCallable::MalformedHost)),
            ("mail.example.com:25", Err(NotCallable::MalformedHost)),
            ("mail.example.com:80", Err(NotCallable::MalformedHost)),
            ("mail.example.com/", Err(NotCallable::MalformedHost)),
            ("user@mail.example.com", Err(NotCallable::MalformedHost)),
            ("mail example", Err(NotCallable::MalformedHost)),
            ("mail.example.com?x", Err(NotCallable::MalformedHost)),
            ("mail.example.com#x", Err(NotCallable::MalformedHost)),
            ("mail.example.com\\x", Err(NotCallable::MalformedHost)),
            ("[::1]", Err(NotCallable::MalformedHost)),
        ] {
            assert_eq!(guard.judge_host(host).as_deref(), judged.as_ref().map(|host| *host), "{host}");
        }
    }
}
