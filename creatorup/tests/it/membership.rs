//! What a member may do, and what the hub is told about memberships.

use serde_json::json;
use tonic::Code;
use upbridge_client::v1::AccessReason;
use upbridge_proto::creatorup::v1::{CheckMembershipRequest, ReportSubscriptionRequest};

use crate::harness::{SERVICE_KEY, TestCreatorUp};

const CHECK: &str = "/api/v1/digiup/membership/check";
const REPORT: &str = "/api/v1/digiup/membership/report";
const KEY: Option<(&str, &str)> = Some(("x-api-key", SERVICE_KEY));

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_decides_and_creatorup_answers_as_it_does() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let (status, answer) = creatorup.as_user(&token, CHECK, None).await;
    let data = &answer["data"];
    assert_eq!((status, &data["has_access"], &data["feature"]), (200, &json!(true), &json!("local_rendering")));
    creatorup.hub().change(&token, |member| {
        member.reason = AccessReason::LimitReached;
        member.limit = Some(100);
    });
    let (status, answer) = creatorup.as_user(&token, &format!("{CHECK}?feature=cloud_rendering"), None).await;
    let data = &answer["data"];
    assert_eq!((status, &data["has_access"], &data["reason"]), (200, &json!(false), &json!("limit_reached")));
    assert_eq!((&data["feature"], &data["limit"]), (&json!("cloud_rendering"), &json!(100)));
    let typed = creatorup.api(&token).await.membership().check_membership(CheckMembershipRequest::default()).await;
    assert!(!typed.unwrap().into_inner().has_access);
    assert_eq!(creatorup.http(CHECK, None, None).await.0, 401);
    creatorup.hub().close().await;
    assert_eq!(creatorup.as_user(&token, CHECK, None).await.0, 503, "nobody else decides");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_changed_here_reaches_the_hub_signed_and_once() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await;
    creatorup.hub().close().await;
    let report = json!({"digiup_user_id": member.id, "plan": "Pro", "status": "active",
                        "end_date": "2030-01-01T00:00:00Z", "event_id": "order-17"});
    let (status, first) = creatorup.http(REPORT, KEY, Some(report.clone())).await;
    assert_eq!((status, &first["data"]), (202, &json!({"event_id": "order-17", "duplicate": false})));
    let (_, again) = creatorup.http(REPORT, KEY, Some(report)).await;
    assert_eq!(again["data"]["duplicate"], json!(true));
    creatorup.hub().reopen().await;
    creatorup.hub().until("the webhook comes", |hub| !hub.webhooks().is_empty()).await;
    let told = creatorup.hub().webhooks().remove(0);
    assert_eq!((&told["event"], &told["digiup_user_id"]), (&json!("subscription-update"), &json!(member.id)));
    assert_eq!(told["subscription_data"]["plan"], "Pro");
    assert!(told["occurred_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reported_is_refused() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let report = |plan: &str, event_id: &str| ReportSubscriptionRequest {
        digiup_user_id: member.id.to_string(),
        plan: plan.into(),
        status: "active".into(),
        event_id: Some(event_id.into()),
        ..ReportSubscriptionRequest::default()
    };
    let api = creatorup.service().await;
    let unknown = api.membership().report_subscription(report("Pro", "a")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await;
    api.membership().report_subscription(report("Pro", "a")).await.unwrap();
    let other = api.membership().report_subscription(report("Starter", "a")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let user = creatorup.api(&token).await.membership().report_subscription(report("Pro", "b")).await.unwrap_err();
    assert_eq!(user.code(), Code::PermissionDenied);
}
