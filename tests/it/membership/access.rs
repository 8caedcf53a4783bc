//! The one decision over access, in its three views, and the trace that asking leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Client as Http;
use upbridge_client::{Client, Code, Status, v1};
use upbridge_server::model::membership::AccessReason;
use v1::AccessReason::{
    FeatureUnknown, Granted, LimitReached, NoSubscription, NotInPlan, SubscriptionCanceled, SubscriptionExpired,
    UserInactive,
};

use super::{cancel, subscribe};
use crate::harness::{self, Member, TestHub, at, fault, record, refusal, usage};

/// Access as CreatorUp's server asks for it.
pub async fn check(hub: &TestHub, member: &Member) -> v1::CheckAccessResponse {
    let request = v1::CheckAccessRequest { digiup_user_id: Some(member.id.clone()) };
    hub.service().await.user_sync().check_access(request).await.unwrap().into_inner()
}

pub async fn feature(hub: &TestHub, member: &Member, feature: &str, amount: i32) -> v1::CheckFeatureAccessResponse {
    let request = v1::CheckFeatureAccessRequest {
        feature: feature.into(),
        amount: Some(amount),
        digiup_user_id: Some(member.id.clone()),
    };
    hub.service().await.membership().check_feature_access(request).await.unwrap().into_inner()
}

async fn verify(client: &Client) -> Result<v1::VerifyTokenResponse, Status> {
    Ok(client.user_sync().verify_token(v1::VerifyTokenRequest { token: None }).await?.into_inner())
}

async fn spend(member: &Member, usage_amount: i32) {
    let usage_data = v1::UsageData { usage_amount: Some(usage_amount), ..usage(&format!("of {usage_amount}")) };
    member.client.usage().record_usage(record(usage_data)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_given_where_it_holds() {
    let hub = TestHub::start().await;
    let mut given = BTreeSet::new();
    let mut ask = async |member: &Member, name: &str, amount: i32, expected: v1::AccessReason| {
        let answer = feature(&hub, member, name, amount).await;
        assert_eq!((answer.reason(), answer.has_access), (expected, expected == Granted), "{name}");
        given.insert(expected.as_str_name());
    };
    let starter = hub.subscriber(1).await;
    ask(&starter, "local_rendering", 100, Granted).await;
    ask(&starter, "local_rendering", 101, LimitReached).await;
    ask(&starter, "cloud_rendering", 1, NotInPlan).await;
    ask(&starter, "teleport", 1, FeatureUnknown).await;
    ask(&starter, "Local_Rendering", 1, FeatureUnknown).await;
    let without = hub.member().await;
    ask(&without, "local_rendering", 1, NoSubscription).await;
    ask(&without, "teleport", 1, FeatureUnknown).await;
    let canceled = hub.subscriber(2).await;
    cancel(&canceled.client, true).await.unwrap();
    ask(&canceled, "local_rendering", 1, SubscriptionCanceled).await;
    let inactive = hub.subscriber(2).await;
    let request = v1::DeactivateUserRequest { user_id: inactive.id.clone() };
    hub.admin().await.users().deactivate_user(request).await.unwrap();
    ask(&inactive, "local_rendering", 1, UserInactive).await;
    ask(&inactive, "teleport", 1, UserInactive).await;
    hub.clock.advance(chrono::TimeDelta::days(31));
    ask(&starter, "local_rendering", 1, SubscriptionExpired).await;
    assert_eq!(given.len(), AccessReason::ALL.len(), "only {given:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_of_access_agree_in_every_state() {
    let hub = TestHub::start().await;
    let (free, starter, pro, canceled) =
        (hub.member().await, hub.subscriber(1).await, hub.subscriber(2).await, hub.subscriber(3).await);
    let ending = hub.subscriber(2).await;
    cancel(&canceled.client, true).await.unwrap();
    cancel(&ending.client, false).await.unwrap();
    spend(&starter, 100).await;
    let states = [
        (&free, NoSubscription, vec![]),
        (&starter, Granted, vec![("local_rendering", LimitReached)]),
        (&pro, Granted, vec![("cloud_rendering", Granted), ("local_rendering", Granted)]),
        (&ending, Granted, vec![("cloud_rendering", Granted), ("local_rendering", Granted)]),
        (
            &canceled,
            SubscriptionCanceled,
            vec![("cloud_rendering", SubscriptionCanceled), ("local_rendering", SubscriptionCanceled)],
        ),
    ];
    for (member, reason, features) in states {
        let (access, verified) = (check(&hub, member).await, verify(&member.client).await.unwrap());
        assert_eq!((access.reason(), access.has_access), (reason, reason == Granted));
        assert_eq!((verified.reason(), verified.has_access), (access.reason(), access.has_access));
        assert_eq!(verified.subscription.as_ref().map(|held| &held.plan), access.plan.as_ref());
        let told: Vec<_> = access.features.iter().map(|one| (one.feature.as_str(), one.reason())).collect();
        assert_eq!(told, features);
        for told in &access.features {
            let asked = feature(&hub, member, &told.feature, 1).await;
            let asked_numbers = (asked.limit, asked.used, asked.remaining);
            assert_eq!((asked.reason(), asked.has_access), (told.reason(), told.has_access));
            assert_eq!(asked_numbers, (told.limit, told.used, told.remaining));
            assert_eq!((asked.plan, asked.access_until), (access.plan.clone(), access.access_until));
            assert_eq!((asked.period_start, asked.period_end), (access.period_start, access.period_end));
        }
        let own = member.client.user_sync().check_access(v1::CheckAccessRequest::default()).await.unwrap();
        assert_eq!(own.into_inner(), access, "the member is told what the service is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_how_much_is_left_for_which_period_and_when_that_was() {
    let hub = TestHub::start().await;
    let (starter, pro) = (hub.subscriber(1).await, hub.subscriber(2).await);
    for member in [&starter, &pro] {
        spend(member, 3).await;
    }
    hub.clock.advance(chrono::TimeDelta::seconds(90));
    let limited = feature(&hub, &starter, "local_rendering", 97).await;
    assert_eq!((limited.limit, limited.used, limited.remaining), (Some(100), 3, Some(97)));
    assert!(limited.has_access && !feature(&hub, &starter, "local_rendering", 98).await.has_access);
    assert_eq!((limited.feature.as_str(), limited.plan.as_deref()), ("local_rendering", Some("Starter")));
    assert_eq!((limited.period_start, limited.period_end), (at("2026-03-01T00:00:00Z"), at("2026-04-01T00:00:00Z")));
    assert_eq!((limited.access_until, limited.as_of), (at("2026-04-15T12:00:00Z"), at("2026-03-15T12:01:30Z")));
    let unlimited = feature(&hub, &pro, "local_rendering", 1).await;
    assert_eq!((unlimited.limit, unlimited.used, unlimited.remaining), (None, 3, None));

    let all = check(&hub, &starter).await;
    assert_eq!((all.limit, all.used, all.remaining, &all.user_id), (Some(100), 3, Some(97), &starter.id));
    assert_eq!((all.period_end, all.as_of), (limited.period_end, limited.as_of));
    let all = check(&hub, &pro).await;
    assert_eq!((all.limit, all.used, all.remaining), (None, 3, None), "one of its features is unlimited");
    let none = check(&hub, &hub.member().await).await;
    assert_eq!((none.plan, none.limit, none.used, none.access_until), (None, None, 0, None));
    // A new month begins at zero.
    hub.clock.advance(chrono::TimeDelta::days(17));
    let next = feature(&hub, &starter, "local_rendering", 100).await;
    assert_eq!((next.has_access, next.used, next.period_start), (true, 0, at("2026-04-01T00:00:00Z")));

    let answer = Http::new().get(hub.url(&format!(
        "/api/v1/client/membership/feature/local_rendering/access?amount=2&digiup_user_id={}",
        starter.id
    )));
    let (code, answer) = harness::json(answer.header("x-api-key", harness::SERVICE_KEY)).await;
    let data = &answer["data"];
    assert_eq!((code, &data["reason"], &data["limit"]), (200, &"granted".into(), &100.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_asked_by_a_service_about_a_user_or_by_a_user_about_themselves() {
    let hub = TestHub::start().await;
    let (member, other, service) = (hub.subscriber(2).await, hub.subscriber(1).await, hub.service().await);
    let ask = async |client: &Client, feature: &str, amount: i32, named: Option<&str>| {
        let digiup_user_id = named.map(str::to_owned);
        let request = v1::CheckFeatureAccessRequest { feature: feature.into(), amount: Some(amount), digiup_user_id };
        Ok::<_, Status>(client.membership().check_feature_access(request).await?.into_inner().plan)
    };
    let name = "local_rendering";
    assert_eq!(ask(&member.client, name, 1, None).await.unwrap().as_deref(), Some("Pro"));
    assert_eq!(ask(&service, name, 1, Some(&other.id)).await.unwrap().as_deref(), Some("Starter"));
    assert_eq!(fault(ask(&member.client, name, 1, Some(&other.id)).await), "digiup_user_id");
    assert_eq!(fault(ask(&service, name, 1, None).await), "digiup_user_id");
    assert_eq!(fault(ask(&member.client, "", 1, None).await), "feature");
    assert_eq!(fault(ask(&member.client, name, 0, None).await), "amount");
    let nobody = uuid::Uuid::now_v7().to_string();
    assert_eq!(refusal(ask(&service, name, 1, Some(&nobody)).await), (Code::NotFound, "NOT_FOUND".into()));
}

/// Waits until the member's last access is `expected`; it is noted after the answer, and nobody waits for it there.
async fn noted(hub: &TestHub, member: &Member, expected: Option<prost_types::Timestamp>) {
    let service = hub.service().await;
    let poll = async {
        loop {
            let request = v1::GetSyncStatusRequest { digiup_user_id: Some(member.id.clone()) };
            let status = service.user_sync().get_sync_status(request).await.unwrap().into_inner();
            if status.last_creatorup_access == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), poll).await.expect("the access is noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_access_is_noted_to_the_minute_by_whoever_asks_and_shown() {
    let hub = TestHub::start().await;
    let asked: [&str; 4] = ["verify", "access", "feature", "again"];
    let member = hub.subscriber(2).await;
    let profile = v1::GetProfileRequest::default();
    member.client.user_sync().get_profile(profile).await.unwrap();
    noted(&hub, &member, None).await;
    for (minute, how) in asked.into_iter().enumerate() {
        match how {
            "verify" => drop(verify(&member.client).await.unwrap()),
            "feature" => drop(feature(&hub, &member, "local_rendering", 1).await),
            _ => drop(check(&hub, &member).await),
        }
        noted(&hub, &member, at(&format!("2026-03-15T12:{minute:02}:00Z"))).await;
        // Within the minute nothing is written.
        hub.clock.advance(chrono::TimeDelta::seconds(59));
        check(&hub, &member).await;
        hub.clock.advance(chrono::TimeDelta::seconds(1));
    }
    let me = member.client.auth().get_me(v1::GetMeRequest {}).await.unwrap().into_inner().user.unwrap();
    assert_eq!(me.last_creatorup_access, at("2026-03-15T12:03:00Z"));
    assert_eq!(me.sync_status(), v1::SyncStatus::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_paths_of_an_answer_answer_with_the_same_bytes() {
    let hub = TestHub::start().await;
    let (member, inactive) = (hub.subscriber(2).await, hub.member().await);
    subscribe(&member.client, "Starter").await.unwrap();
    check(&hub, &member).await;
    noted(&hub, &member, at("2026-03-15T12:00:00Z")).await;
    let request = v1::DeactivateUserRequest { user_id: inactive.id };
    hub.admin().await.users().deactivate_user(request).await.unwrap();
    let http = Http::new();
    // The clock stands still, so even `as_of` is the same.
    let fetch = async |verb: &str, family: &str, path: &str, token: &str| {
        let request = http.request(verb.parse().unwrap(), hub.url(&format!("{family}/creatorup/{path}")));
        let answer = request.bearer_auth(token).header("x-request-id", "one").send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    for (verb, path) in [("POST", "verify"), ("GET", "profile"), ("GET", "access"), ("GET", "sync/status")] {
        for (token, code) in [(&member.token, 200), (&inactive.token, 401)] {
            let short = fetch(verb, "/api/v1", path, token).await;
            assert_eq!(short.0, code, "{path}: {short:?}");
            assert_eq!(fetch(verb, "/api/v1/client", path, token).await, short, "{path}");
        }
    }
}
