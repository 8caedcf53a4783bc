//! The one error of every server.
//!
//! Each variant has one gRPC code and one HTTP status; the doors convert by an exhaustive match. Messages are public
//! and hold no secret and no value of the caller's; what only the log may see is in `context`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::words::words;

/// The result of anything that may fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

words! {
    /// Why a call failed; the contract's `ErrorReason` without its prefix.
    Reason {
        /// A field breaks its rule.
        InvalidField = "INVALID_FIELD",
        /// The request cannot be decoded.
        MalformedRequest = "MALFORMED_REQUEST",
        /// No credential was sent.
        MissingCredentials = "MISSING_CREDENTIALS",
        /// The credential is not good.
        InvalidCredentials = "INVALID_CREDENTIALS",
        /// The token has expired.
        TokenExpired = "TOKEN_EXPIRED",
        /// The session is over.
        SessionRevoked = "SESSION_REVOKED",
        /// The principal may not call this.
        PrincipalNotAllowed = "PRINCIPAL_NOT_ALLOWED",
        /// The session cookie came from another site.
        CrossSiteRequest = "CROSS_SITE_REQUEST",
        /// No membership includes the feature.
        MembershipRequired = "MEMBERSHIP_REQUIRED",
        /// The month's limit would be exceeded.
        QuotaExceeded = "QUOTA_EXCEEDED",
        /// Too many calls.
        RateLimited = "RATE_LIMITED",
        /// The thing does not exist for this caller.
        NotFound = "NOT_FOUND",
        /// A unique value is taken.
        AlreadyExists = "ALREADY_EXISTS",
        /// The state does not allow it.
        InvalidState = "INVALID_STATE",
        /// The database is locked, full or gone.
        StoreUnavailable = "STORE_UNAVAILABLE",
        /// The deadline passed.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// A fault of the server.
        Internal = "INTERNAL",
        /// The body is too large.
        BodyTooLarge = "BODY_TOO_LARGE",
        /// A webhook's signature is missing or wrong.
        InvalidSignature = "INVALID_SIGNATURE",
        /// A webhook's signature is too old or too new.
        StaleTimestamp = "STALE_TIMESTAMP",
        /// Webhooks are not taken from this address.
        AddressNotAllowed = "ADDRESS_NOT_ALLOWED",
        /// It names something the server does not have.
        Unprocessable = "UNPROCESSABLE",
        /// The other side's server cannot be reached.
        PeerUnavailable = "PEER_UNAVAILABLE",
        /// What would prove the call cannot be used now.
        ProofUnavailable = "PROOF_UNAVAILABLE",
    }
}

/// Why something did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{field} {description}")]
    Invalid {
        /// Path of the field in snake_case.
        field: String,
        /// What is wrong with it.
        description: String,
    },
    /// The caller is not who they must be.
    #[error("{message}")]
    Unauthenticated {
        /// Why.
        reason: Reason,
        /// For people.
        message: &'static str,
    },
    /// The caller may not.
    #[error("{message}")]
    Denied {
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
        /// For programs.
        metadata: BTreeMap<&'static str, String>,
    },
    /// It does not exist, or the caller may not know that it does.
    #[error("there is no such {what}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
    },
    /// A unique value is taken.
    #[error("{field} is taken")]
    Taken {
        /// The field that must be unique.
        field: &'static str,
    },
    /// The state does not allow it.
    #[error("{message}")]
    State {
        /// For people.
        message: &'static str,
    },
    /// It is well formed and names something the server does not have.
    #[error("{field} {description}")]
    Unprocessable {
        /// Path of the field in snake_case.
        field: &'static str,
        /// What is wrong with it.
        description: &'static str,
    },
    /// A limit is reached.
    #[error("{message}")]
    Exhausted {
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
        /// When to come back, when that is known.
        retry_after: Option<Duration>,
        /// For programs.
        metadata: BTreeMap<&'static str, String>,
    },
    /// The database cannot be used now; try again.
    #[error("the database cannot be used now; try again")]
    Unavailable {
        /// For the log.
        context: String,
    },
    /// Somebody else's server, without which there is no answer, cannot be reached now; try again.
    #[error("{who} cannot be reached now; try again")]
    Away {
        /// Who, for people.
        who: &'static str,
        /// For the log.
        context: String,
    },
    /// What would prove the call cannot be used now; try again. Anybody can ask for it, so why is told elsewhere.
    #[error("this cannot be judged now; try again")]
    Unjudged,
    /// A fault of the server.
    #[error("an internal error; the request id finds it in the log")]
    Internal {
        /// For the log.
        context: String,
    },
}

impl Error {
    /// A field that is wrong.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Error {
        Error::Invalid { field: field.into(), description: description.into() }
    }

    /// A caller who is not who they must be.
    pub fn unauthenticated(reason: Reason, message: &'static str) -> Error {
        Error::Unauthenticated { reason, message }
    }

    /// A caller who may not.
    pub fn denied(reason: Reason, message: impl Into<String>) -> Error {
        Error::Denied { reason, message: message.into(), metadata: BTreeMap::new() }
    }

    /// A fault of the server.
    pub fn internal(context: impl std::fmt::Display) -> Error {
        Error::Internal { context: context.to_string() }
    }

    /// Somebody else's server that cannot be reached now.
    pub fn away(who: &'static str, context: impl std::fmt::Display) -> Error {
        Error::Away { who, context: context.to_string() }
    }

    /// A database that cannot be used now.
    pub fn unavailable(context: impl std::fmt::Display) -> Error {
        Error::Unavailable { context: context.to_string() }
    }

    /// Whether the fault lies in the store or the server and not in what was asked.
    pub fn is_fault(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Internal { .. })
    }

    /// Why, as a word for programs.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Invalid { .. } => Reason::InvalidField,
            Error::Unauthenticated { reason, .. } | Error::Denied { reason, .. } | Error::Exhausted { reason, .. } => {
                *reason
            }
            Error::NotFound { .. } => Reason::NotFound,
            Error::Taken { .. } => Reason::AlreadyExists,
            Error::State { .. } => Reason::InvalidState,
            Error::Unprocessable { .. } => Reason::Unprocessable,
            Error::Unavailable { .. } => Reason::StoreUnavailable,
            Error::Away { .. } => Reason::PeerUnavailable,
            Error::Unjudged => Reason::ProofUnavailable,
            Error::Internal { .. } => Reason::Internal,
        }
    }
}
