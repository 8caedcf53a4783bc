//! `grpc-timeout`: how the hub is told how long the caller waits.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The header holds eight digits at most.
const MOST_DIGITS: u128 = 99_999_999;

/// The timeout that a request asks for; one that cannot be read counts as none.
pub(crate) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Asks for that timeout, in the finest unit that holds it.
pub(crate) fn write(headers: &mut HeaderMap, timeout: Duration) {
    let text = if timeout.as_micros() <= MOST_DIGITS {
        format!("{}u", timeout.as_micros())
    } else {
        format!("{}m", timeout.as_millis().min(MOST_DIGITS))
    };
    headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter are a header"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut headers = HeaderMap::new();
        for timeout in [Duration::ZERO, Duration::from_micros(1500), Duration::from_secs(10), Duration::from_secs(3600)]
        {
            write(&mut headers, timeout);
            assert_eq!(read(&headers), Some(timeout));
        }
    }

    #[test]
    fn a_timeout_beyond_the_header_is_the_longest_there_is() {
        let mut headers = HeaderMap::new();
        write(&mut headers, Duration::MAX);
        assert_eq!(read(&headers), Some(Duration::from_millis(99_999_999)));
    }

    #[test]
    fn nonsense_is_no_timeout() {
        for text in ["", "S", "10", "10x", "-1S", "123456789S", "1é"] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(read(&headers), None, "{text:?}");
        }
    }
}
