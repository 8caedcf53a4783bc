//! An error as a gRPC status: one table, and the only place a fault is logged.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use upbridge_proto::validate::Violation;
use upbridge_proto::{Contract, codec};

use crate::model::Error;

/// Converts, in the name of the server that offers `contract`; what only the log may see goes there and not to the caller.
pub fn status(contract: &Contract, error: Error) -> Status {
    let reason = error.reason().as_str();
    let message = error.to_string();
    let (code, metadata) = match &error {
        Error::Invalid { field, description } => {
            let violation = Violation { field: field.clone(), description: description.clone() };
            return codec::invalid(&[violation], contract.error_domain);
        }
        Error::Unauthenticated { .. } => (Code::Unauthenticated, HashMap::new()),
        Error::Denied { metadata, .. } => (Code::PermissionDenied, owned(metadata)),
        Error::NotFound { what } => (Code::NotFound, HashMap::from([("what".to_owned(), (*what).to_owned())])),
        Error::Taken { field } => (Code::AlreadyExists, HashMap::from([("field".to_owned(), (*field).to_owned())])),
        Error::State { .. } => (Code::FailedPrecondition, HashMap::new()),
        Error::Unprocessable { field, .. } => {
            (Code::FailedPrecondition, HashMap::from([("field".to_owned(), (*field).to_owned())]))
        }
        Error::Exhausted { metadata, .. } => (Code::ResourceExhausted, owned(metadata)),
        Error::Unavailable { context } => {
            tracing::warn!(context, "the database cannot be used");
            (Code::Unavailable, HashMap::new())
        }
        Error::Away { who, context } => {
            tracing::warn!(who, context, "somebody else's server cannot be reached");
            (Code::Unavailable, HashMap::new())
        }
        Error::Unjudged => (Code::Unavailable, HashMap::new()),
        Error::Internal { context } => {
            tracing::error!(context, "an internal error");
            (Code::Internal, HashMap::new())
        }
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, contract.error_domain, metadata);
    if let Error::Exhausted { retry_after: Some(retry_after), .. } = error {
        details.set_retry_info(Some(retry_after));
    }
    Status::with_error_details(code, message, details)
}

fn owned(metadata: &std::collections::BTreeMap<&'static str, String>) -> HashMap<String, String> {
    metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}
