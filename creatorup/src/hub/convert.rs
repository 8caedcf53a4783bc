//! The hub's messages as the model, and its refusals as what they mean.

use chrono::{DateTime, SubsecRound};
use serde_json::json;
use upbridge_client::{Code, Status, field_violations, reason, retry_after, v1};
use uuid::Uuid;

use crate::model::decision::{Counted, Decision, Verified};
use crate::model::user::{Membership, Profile};
use crate::model::{Error, Instant, Month, Reason, Result};

/// What of a refusal's metadata is passed on.
const METADATA: &[&str] = &["access_reason", "limit", "used", "remaining", "requested"];

/// What a refusal of the hub means to CreatorUp's caller.
pub fn refusal(status: Status) -> Error {
    let said = reason(&status).and_then(|word| Reason::parse(&word));
    let message = status.message().to_owned();
    let metadata = || {
        let info = tonic_types::StatusExt::get_details_error_info(&status);
        let mut metadata = info.map(|info| info.metadata).unwrap_or_default();
        METADATA.iter().filter_map(|key| Some((*key, metadata.remove(*key)?))).collect()
    };
    match (status.code(), said) {
        (Code::Unauthenticated, said) => Error::unauthenticated(
            said.unwrap_or(Reason::InvalidCredentials),
            match said {
                Some(Reason::TokenExpired) => "the token has expired",
                Some(Reason::SessionRevoked) => "the session is over",
                _ => "the hub says that the token is not good",
            },
        ),
        (Code::PermissionDenied, Some(reason)) => Error::Denied { reason, message, metadata: metadata() },
        (Code::ResourceExhausted, Some(reason)) => {
            Error::Exhausted { reason, message, retry_after: retry_after(&status), metadata: metadata() }
        }
        (Code::NotFound, Some(_)) => Error::NotFound { what: "user" },
        (Code::InvalidArgument, Some(_)) => match field_violations(&status).into_iter().next() {
            Some((field, description)) => Error::Invalid { field, description },
            None => Error::internal(format!("the hub does not understand: {message}")),
        },
        (Code::FailedPrecondition, Some(_)) => {
            Error::State { message: "the hub says that the state does not allow it" }
        }
        // Nobody there, no answer in time, a broken connection, a fault of the hub, or something that is no hub.
        (code, _) => Error::away("the hub", format!("{code:?}: {message}")),
    }
}

pub fn verified(answer: v1::VerifyTokenResponse) -> Result<Verified> {
    Ok(Verified {
        profile: read_profile(answer.user, answer.subscription, None)?,
        has_access: answer.has_access,
        reason: word(
            v1::AccessReason::try_from(answer.reason).map_or("", |reason| reason.as_str_name()),
            "ACCESS_REASON_",
        ),
        expires_at: answer.token_expires_at.and_then(instant),
    })
}

pub fn profile(answer: v1::GetProfileResponse) -> Result<Profile> {
    read_profile(answer.user, answer.subscription, answer.plan)
}

fn read_profile(
    user: Option<v1::User>,
    subscription: Option<v1::Subscription>,
    plan: Option<v1::Plan>,
) -> Result<Profile> {
    let user = user.ok_or_else(|| unreadable("a user is missing"))?;
    let changed = |at: Option<prost_types::Timestamp>| at.and_then(instant);
    // The hub does not say when it read this. It was so at the last change of any of it at the latest, by the hub's own
    // clock, and a push that was read later says so.
    let times = [
        changed(user.updated_at),
        subscription.as_ref().and_then(|held| changed(held.updated_at)),
        plan.as_ref().and_then(|plan| changed(plan.updated_at)),
    ];
    let as_of = times.into_iter().flatten().max().ok_or_else(|| unreadable("a user without a time"))?;
    let role = v1::Role::try_from(user.role).map_or("", |role| role.as_str_name());
    let status = v1::UserStatus::try_from(user.status).map_or("", |status| status.as_str_name());
    Ok(Profile {
        digiup_user_id: Uuid::parse_str(&user.id).map_err(|_| unreadable("a user's id is no UUID"))?,
        email: user.email,
        name: user.name,
        username: user.username,
        role: word(role, "ROLE_"),
        status: word(status, "USER_STATUS_"),
        membership: subscription.map(|held| Membership {
            plan: held.plan,
            status: word(
                v1::SubscriptionStatus::try_from(held.status).map_or("", |status| status.as_str_name()),
                "SUBSCRIPTION_STATUS_",
            ),
            end_date: changed(held.end_date),
        }),
        details: json!({}),
        as_of,
    })
}

pub fn decision(answer: v1::CheckFeatureAccessResponse) -> Result<Decision> {
    let reason = v1::AccessReason::try_from(answer.reason).map_or("", |reason| reason.as_str_name());
    Ok(Decision {
        has_access: answer.has_access,
        reason: word(reason, "ACCESS_REASON_"),
        feature: answer.feature,
        plan: answer.plan,
        limit: answer.limit,
        used: answer.used,
        remaining: answer.remaining,
        access_until: answer.access_until.and_then(instant),
        as_of: answer.as_of.and_then(instant).ok_or_else(|| unreadable("a decision without a time"))?,
    })
}

pub fn counted(answer: &v1::CreateBatchResponse) -> Counted {
    Counted { month: answer.usage.as_ref().and_then(|usage| Month::parse(&usage.month_year)) }
}

/// An enum's value in the words of JSON: in lower case, without what all of them begin with.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn instant(at: prost_types::Timestamp) -> Option<Instant> {
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?).map(|at| at.trunc_subsecs(6))
}

fn unreadable(what: &str) -> Error {
    Error::away("the hub", format!("it answered what cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, StatusExt};

    fn refused(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Error {
        let mut details = ErrorDetails::new();
        let metadata: std::collections::HashMap<String, String> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        details.set_error_info(reason, "upbridge", metadata);
        details.add_bad_request_violation("batch_name", "is required");
        refusal(Status::with_error_details(code, "no", details))
    }

    #[test]
    fn a_refusal_keeps_its_meaning() {
        assert!(matches!(
            refused(Code::Unauthenticated, "TOKEN_EXPIRED", &[]),
            Error::Unauthenticated { reason: Reason::TokenExpired, .. }
        ));
        let Error::Denied { reason: Reason::MembershipRequired, metadata, .. } =
            refused(Code::PermissionDenied, "MEMBERSHIP_REQUIRED", &[("access_reason", "no_subscription"), ("x", "y")])
        else {
            panic!("it is a denial");
        };
        assert_eq!(metadata.into_iter().collect::<Vec<_>>(), [("access_reason", "no_subscription".to_owned())]);
        assert!(matches!(
            refused(Code::ResourceExhausted, "QUOTA_EXCEEDED", &[("limit", "100")]),
            Error::Exhausted { reason: Reason::QuotaExceeded, .. }
        ));
        assert!(matches!(refused(Code::NotFound, "NOT_FOUND", &[]), Error::NotFound { what: "user" }));
        let Error::Invalid { field, .. } = refused(Code::InvalidArgument, "INVALID_FIELD", &[]) else {
            panic!("a field is wrong");
        };
        assert_eq!(field, "batch_name");
    }

    #[test]
    fn a_hub_that_is_away_says_nothing_about_the_caller() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Internal, Code::Unimplemented] {
            assert!(matches!(refusal(Status::new(code, "broken")), Error::Away { .. }), "{code:?}");
        }
        // A proxy's 403 has no reason of the hub.
        assert!(matches!(refusal(Status::permission_denied("blocked by a proxy")), Error::Away { .. }));
    }
}
