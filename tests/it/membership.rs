//! Subscriptions: chosen, replaced, cancelled, resumed, run out; one at a time, and known to CreatorUp.

mod access;
mod plan;

use chrono::TimeDelta;
use reqwest::Client as Http;
use serde_json::json;
use upbridge_client::{Client, Code, Status, v1};

use crate::harness::{self, Member, TestHub, at, fault, refusal};

/// `plan` is a number, or else a name.
async fn subscribe(client: &Client, plan: &str) -> Result<v1::SubscribeResponse, Status> {
    let request = match plan.parse() {
        Ok(plan_id) => v1::SubscribeRequest { plan_id: Some(plan_id), plan: None },
        Err(_) => v1::SubscribeRequest { plan_id: None, plan: Some(plan.into()) },
    };
    Ok(client.membership().subscribe(request).await?.into_inner())
}

async fn cancel(client: &Client, immediately: bool) -> Result<v1::Subscription, Status> {
    let request = v1::CancelSubscriptionRequest { immediately };
    Ok(client.membership().cancel_subscription(request).await?.into_inner().subscription.unwrap())
}

/// What CreatorUp's server is told about a member's newest subscription; a token of the member's may have expired.
async fn held(hub: &TestHub, member: &Member) -> Result<v1::Subscription, Status> {
    let request = v1::GetSubscriptionRequest { digiup_user_id: Some(member.id.clone()) };
    Ok(hub.service().await.membership().get_subscription(request).await?.into_inner().subscription.unwrap())
}

/// Stored statuses, oldest first; what is stored may be behind what is answered.
async fn stored(hub: &TestHub) -> Vec<String> {
    hub.database.texts("SELECT status FROM user_subscriptions ORDER BY id").await
}

async fn events(hub: &TestHub) -> i64 {
    hub.database.count("SELECT COUNT(*) FROM sync_events WHERE event_type = 'subscription_sync'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_chosen_by_number_or_by_name_in_any_case() {
    let hub = TestHub::start().await;
    for plan in ["2", "Pro", "pRO"] {
        let member = hub.member().await;
        let done = subscribe(&member.client, plan).await.unwrap();
        let subscription = done.subscription.unwrap();
        assert!(!done.already_subscribed);
        assert_eq!((subscription.plan_id, subscription.plan.as_str()), (2, "Pro"));
        assert_eq!((subscription.status(), subscription.tier()), (v1::SubscriptionStatus::Active, v1::Tier::Reseller));
        assert_eq!((&subscription.user_id, subscription.source.as_str()), (&member.id, "digiup"));
        assert_eq!(subscription.start_date, at("2026-03-15T12:00:00Z"));
        assert_eq!(subscription.end_date, at("2026-04-15T12:00:00Z"));
        assert_eq!(held(&hub, &member).await.unwrap(), subscription);
    }
    let member = hub.member().await;
    for plan in ["77", "Platinum", "Pro%"] {
        assert_eq!(refusal(subscribe(&member.client, plan).await), (Code::NotFound, "NOT_FOUND".into()), "{plan}");
    }
    for plan in ["0", "-1"] {
        assert_eq!(fault(subscribe(&member.client, plan).await), "plan_id");
    }
    let neither = member.client.membership().subscribe(v1::SubscribeRequest::default()).await;
    assert_eq!(fault(neither), "plan_id");
    let contradicting = v1::SubscribeRequest { plan_id: Some(1), plan: Some("Pro".into()) };
    assert_eq!(member.client.membership().subscribe(contradicting).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(refusal(held(&hub, &member).await), (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(stored(&hub).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_chosen_over_http_by_its_path_alone_or_by_its_name() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let post = |path: &str| Http::new().post(hub.url(path)).bearer_auth(&member.token);
    let (code, answer) = harness::json(post("/api/v1/client/membership/subscribe/1")).await;
    let subscription = &answer["data"]["subscription"];
    assert_eq!((code, &subscription["plan"], &subscription["tier"]), (200, &"Starter".into(), &"membership".into()));
    assert_eq!(subscription["end_date"], "2026-04-15T12:00:00Z");
    let (_, answer) =
        harness::json(post("/api/v1/client/membership/subscribe").json(&json!({ "plan": "starter" }))).await;
    assert_eq!(answer["data"]["already_subscribed"], true);
    let (code, _) = harness::json(post("/api/v1/client/membership/subscribe/77")).await;
    assert_eq!(code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_plan_replaces_the_one_held_and_the_same_plan_changes_nothing() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    let first = held(&hub, &member).await.unwrap();
    hub.clock.advance(TimeDelta::hours(1));
    let again = subscribe(&member.client, "Starter").await.unwrap();
    assert_eq!((again.already_subscribed, again.subscription), (true, Some(first)));
    assert_eq!(events(&hub).await, 1, "nothing happened, so there is nothing to tell");

    let replaced = subscribe(&member.client, "Business").await.unwrap();
    assert!(!replaced.already_subscribed);
    assert_eq!(replaced.subscription.unwrap().end_date, at("2026-04-15T13:00:00Z"), "a new month begins");
    assert_eq!(stored(&hub).await, ["replaced", "active"]);
    assert_eq!(held(&hub, &member).await.unwrap().plan, "Business");
    assert_eq!(events(&hub).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_cancelled_at_its_end_gives_access_until_then_and_can_be_resumed() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    hub.clock.advance(TimeDelta::hours(1));
    let canceled = cancel(&member.client, false).await.unwrap();
    assert!(canceled.cancel_at_period_end);
    assert_eq!((canceled.status(), canceled.end_date), (v1::SubscriptionStatus::Active, at("2026-04-15T12:00:00Z")));
    assert!(access::check(&hub, &member).await.has_access);
    hub.clock.advance(TimeDelta::hours(1));
    assert_eq!(cancel(&member.client, false).await.unwrap(), canceled, "twice is once");
    assert_eq!(events(&hub).await, 2);

    let resumed = subscribe(&member.client, "Pro").await.unwrap();
    let subscription = resumed.subscription.unwrap();
    assert!(resumed.already_subscribed && !subscription.cancel_at_period_end);
    assert_eq!((&subscription.id, subscription.end_date), (&canceled.id, canceled.end_date));
    assert_eq!((events(&hub).await, stored(&hub).await), (3, vec!["active".to_owned()]));
    // One that is left to run out does.
    cancel(&member.client, false).await.unwrap();
    hub.clock.advance(TimeDelta::days(31));
    assert_eq!(held(&hub, &member).await.unwrap().status(), v1::SubscriptionStatus::Expired);
    assert!(!access::check(&hub, &member).await.has_access);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_cancelled_immediately_ends_then_and_there() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    hub.clock.advance(TimeDelta::hours(1));
    cancel(&member.client, false).await.expect("first at the end of the period, then at once");
    let canceled = cancel(&member.client, true).await.unwrap();
    assert_eq!((canceled.status(), canceled.end_date), (v1::SubscriptionStatus::Canceled, at("2026-03-15T13:00:00Z")));
    let access = access::check(&hub, &member).await;
    assert_eq!((access.has_access, access.reason()), (false, v1::AccessReason::SubscriptionCanceled));
    hub.clock.advance(TimeDelta::hours(1));
    for immediately in [true, false] {
        assert_eq!(cancel(&member.client, immediately).await.unwrap(), canceled, "a cancelled one stays as it is");
    }
    assert_eq!(events(&hub).await, 3);
    let new = subscribe(&member.client, "Pro").await.unwrap();
    assert!(!new.already_subscribed && access::check(&hub, &member).await.has_access);
    assert_eq!(stored(&hub).await, ["canceled", "active"]);
    let never = hub.member().await;
    assert_eq!(refusal(cancel(&never.client, true).await), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_past_its_end_gives_no_access_before_any_sweep() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    hub.clock.advance(TimeDelta::days(31) - TimeDelta::microseconds(1));
    assert!(access::check(&hub, &member).await.has_access);
    hub.clock.advance(TimeDelta::microseconds(1));
    let access = access::check(&hub, &member).await;
    assert_eq!((access.has_access, access.reason()), (false, v1::AccessReason::SubscriptionExpired));
    assert!(access.features.iter().all(|feature| feature.reason() == v1::AccessReason::SubscriptionExpired));
    assert_eq!(access.access_until, at("2026-04-15T12:00:00Z"));
    assert_eq!(held(&hub, &member).await.unwrap().status(), v1::SubscriptionStatus::Expired);
    assert_eq!(stored(&hub).await, ["active"], "no sweep has come by");
    let mut report = harness::record(harness::usage("late"));
    report.digiup_user_id = Some(member.id.clone());
    let refused = refusal(hub.service().await.usage().record_usage(report).await);
    assert_eq!(refused, (Code::PermissionDenied, "MEMBERSHIP_REQUIRED".into()));

    let login = v1::LoginRequest { email: member.email.clone(), password: harness::MEMBER_PASSWORD.into() };
    let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
    let client = member.client.with_bearer(token);
    assert_eq!(refusal(cancel(&client, true).await), (Code::NotFound, "NOT_FOUND".into()), "there is none to cancel");
    assert!(!subscribe(&client, "Pro").await.unwrap().already_subscribed, "the same plan, and a new month of it");
    assert_eq!(stored(&hub).await, ["expired", "active"]);
    assert!(access::check(&hub, &member).await.has_access);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_subscribers_of_one_user_leave_exactly_one_active() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let calls: Vec<_> = (0..24)
        .map(|caller| {
            let client = member.client.clone();
            tokio::spawn(async move { subscribe(&client, ["1", "2", "3"][caller % 3]).await })
        })
        .collect();
    let mut created = 0;
    for call in calls {
        created += i64::from(!call.await.unwrap().unwrap().already_subscribed);
    }
    let statuses = stored(&hub).await;
    assert_eq!(statuses.iter().filter(|status| *status == "active").count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| status == "active" || status == "replaced"), "{statuses:?}");
    assert_eq!((statuses.len() as i64, events(&hub).await), (created, created), "an event for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_names_a_user_and_a_user_names_nobody_else() {
    let hub = TestHub::start().await;
    let (member, other, service) = (hub.subscriber(2).await, hub.subscriber(1).await, hub.service().await);
    let get = async |client: &Client, named: Option<&str>| {
        let request = v1::GetSubscriptionRequest { digiup_user_id: named.map(str::to_owned) };
        Ok(client.membership().get_subscription(request).await?.into_inner().subscription.unwrap().user_id)
    };
    let nobody = uuid::Uuid::now_v7().to_string();
    assert_eq!(get(&service, Some(&member.id)).await.unwrap(), member.id);
    assert_eq!(get(&member.client, Some(&member.id)).await.unwrap(), member.id);
    assert_eq!(get(&member.client, None).await.unwrap(), member.id);
    assert_eq!(refusal(get(&service, Some(&nobody)).await), (Code::NotFound, "NOT_FOUND".into()));
    // Whether the other exists is none of the caller's business, an administrator's neither: they have other rpcs.
    for client in [&member.client, &hub.admin().await] {
        for named in [&other.id, &nobody] {
            let refused: Result<String, Status> = get(client, Some(named)).await;
            assert_eq!(fault(refused), "digiup_user_id");
        }
    }
    for named in [None, Some("nobody"), Some("")] {
        assert_eq!(fault(get(&service, named).await), "digiup_user_id");
    }
    let profile = v1::GetProfileRequest { digiup_user_id: Some(member.id.clone()) };
    let profile = service.user_sync().get_profile(profile).await.unwrap().into_inner();
    assert_eq!((profile.user.unwrap().id, profile.plan.unwrap().name), (member.id, "Pro".to_owned()));
    let query = format!("/api/v1/creatorup/access?digiup_user_id={}", other.id);
    let http = Http::new().get(hub.url(&query)).header("x-api-key", harness::SERVICE_KEY);
    assert_eq!(harness::json(http).await.1["data"]["user_id"], *other.id);
}
