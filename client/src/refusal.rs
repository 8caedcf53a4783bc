//! What a failed call says to a program: the hub attaches rich error details, these take them apart.

use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt;
use upbridge_proto::Contract;

/// The reason, stable for programs: a name of `ErrorReason` without its prefix, such as `QUOTA_EXCEEDED`.
/// `None` when the failure is not the hub's word, as when it could not be reached.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| Contract::of_domain(&info.domain).is_some()).map(|info| info.reason)
}

/// The fields at fault, by their path in the request, each with what it must be.
pub fn field_violations(status: &Status) -> Vec<(String, String)> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

/// When to come back, when the hub said so.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_types::ErrorDetails;

    #[test]
    fn details_are_taken_apart() {
        let mut details = ErrorDetails::new();
        details.set_error_info("RATE_LIMITED", "upbridge", std::collections::HashMap::new());
        details.add_bad_request_violation("email", "is required");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        assert_eq!(reason(&status).as_deref(), Some("RATE_LIMITED"));
        assert_eq!(field_violations(&status), [("email".to_owned(), "is required".to_owned())]);
        assert_eq!(retry_after(&status), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_status_without_details_says_nothing() {
        let status = Status::unavailable("nobody is there");
        assert_eq!((reason(&status), retry_after(&status)), (None, None));
        assert!(field_violations(&status).is_empty());
    }

    #[test]
    fn the_reason_of_another_domain_is_not_ours() {
        let mut details = ErrorDetails::new();
        details.set_error_info("RATE_LIMITED", "proxy.example", std::collections::HashMap::new());
        assert_eq!(reason(&Status::with_error_details(Code::Unavailable, "", details)), None);
    }
}
