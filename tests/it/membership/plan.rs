//! Plans: what is offered at first, and what administrators make of it.

use reqwest::Client as Http;
use serde_json::{Value, json};
use upbridge_client::{Client, Code, Status, v1};
use v1::AccessReason::{Granted, LimitReached, NotInPlan};

use super::access::feature as ask;
use super::{held, subscribe};
use crate::harness::{self, TestHub, at, fault, refusal};

fn feature(name: &str, monthly_limit: Option<i64>) -> v1::PlanFeatureInput {
    v1::PlanFeatureInput { feature: name.into(), monthly_limit }
}

async fn create(client: &Client, name: &str, features: Vec<v1::PlanFeatureInput>) -> Result<v1::Plan, Status> {
    let tier = v1::Tier::Membership.into();
    let request = v1::CreatePlanRequest { name: name.into(), tier, price: 50_000, currency: None, features };
    Ok(client.membership().create_plan(request).await?.into_inner().plan.unwrap())
}

async fn update(client: &Client, request: v1::UpdatePlanRequest) -> Result<v1::Plan, Status> {
    Ok(client.membership().update_plan(request).await?.into_inner().plan.unwrap())
}

fn change(plan_id: i32) -> v1::UpdatePlanRequest {
    v1::UpdatePlanRequest { plan_id, ..Default::default() }
}

async fn offered(client: &Client) -> Vec<v1::Plan> {
    client.membership().list_plans(v1::ListPlansRequest {}).await.unwrap().into_inner().plans
}

async fn all(client: &Client) -> Vec<v1::Plan> {
    client.membership().list_all_plans(v1::ListAllPlansRequest {}).await.unwrap().into_inner().plans
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plans_of_the_product_are_offered_to_anyone() {
    let hub = TestHub::start().await;
    let (_, answer) = harness::json(Http::new().get(hub.url("/api/v1/client/membership/plans"))).await;
    let plan = |id: i32, name: &str, tier: &str, price: i64, features: Value| {
        json!({
            "id": id,
            "name": name,
            "tier": tier,
            "price": price,
            "currency": "IDR",
            "interval": "month",
            "features": features,
            "is_active": true,
            "created_at": "2026-03-15T12:00:00Z",
            "updated_at": "2026-03-15T12:00:00Z",
        })
    };
    let limited = |name: &str, limit: Option<i64>| json!({ "feature": name, "monthly_limit": limit });
    let (local, cloud) = ("local_rendering", "cloud_rendering");
    let expected = json!([
        plan(1, "Starter", "membership", 99_000, json!([limited(local, Some(100))])),
        plan(2, "Pro", "reseller", 299_000, json!([limited(local, None), limited(cloud, Some(100))])),
        plan(3, "Business", "pro_reseller", 999_000, json!([limited(local, None), limited(cloud, None)])),
    ]);
    assert_eq!(answer["data"]["plans"], expected);
    assert_eq!(all(&hub.admin().await).await, offered(&hub.client().await).await);
    // A hub that starts again finds them there.
    let database = hub.stop().await;
    let hub = harness::Setup::default().start_on(database).await;
    assert_eq!(offered(&hub.client().await).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_made_can_be_chosen_at_once() {
    let hub = TestHub::start().await;
    let (admin, member) = (hub.admin().await, hub.member().await);
    offered(&member.client).await;
    let made =
        create(&admin, "Studio", vec![feature("storage", Some(0)), feature("local_rendering", None)]).await.unwrap();
    assert_eq!((made.id, made.price, made.currency.as_str(), made.is_active), (4, 50_000, "IDR", true));
    assert_eq!(offered(&member.client).await.last(), Some(&made));
    let subscription = subscribe(&member.client, "studio").await.unwrap().subscription.unwrap();
    assert_eq!((subscription.plan_id, subscription.plan.as_str()), (4, "Studio"));
    assert_eq!(ask(&hub, &member, "storage", 1).await.reason(), LimitReached, "a limit of zero includes nothing");
    assert_eq!(ask(&hub, &hub.subscriber(1).await, "storage", 1).await.reason(), NotInPlan);
    assert_eq!(ask(&hub, &member, "local_rendering", 1).await.reason(), Granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_a_feature_once_and_has_a_name_of_its_own_in_any_case() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let twice = || vec![feature("a", None), feature("b", None), feature("a", Some(1))];
    assert_eq!(fault(create(&admin, "Studio", twice()).await), "features[2].feature");
    assert_eq!(
        fault(update(&admin, v1::UpdatePlanRequest { features: twice(), ..change(1) }).await),
        "features[2].feature"
    );
    assert_eq!(fault(create(&admin, "Studio", vec![feature("Not A Name", None)]).await), "features[0].feature");
    assert_eq!(fault(create(&admin, "", vec![]).await), "name");
    let taken = (Code::AlreadyExists, "ALREADY_EXISTS".to_owned());
    assert_eq!(refusal(create(&admin, "sTARTER", vec![]).await), taken);
    let renamed = |name: &str| v1::UpdatePlanRequest { name: Some(name.into()), ..change(1) };
    assert_eq!(refusal(update(&admin, renamed("PRO")).await), taken);
    assert_eq!(update(&admin, renamed("STARTER")).await.unwrap().name, "STARTER", "its own name in another case");
    assert_eq!(fault(update(&admin, v1::UpdatePlanRequest { price: Some(-1), ..change(1) }).await), "price");
    assert_eq!(fault(update(&admin, v1::UpdatePlanRequest { price: Some(1 << 31), ..change(1) }).await), "price");
    assert_eq!(
        fault(update(&admin, v1::UpdatePlanRequest { currency: Some("idr".into()), ..change(1) }).await),
        "currency"
    );
    assert_eq!(refusal(update(&admin, v1::UpdatePlanRequest { price: Some(1), ..change(77) }).await).0, Code::NotFound);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM audit_log WHERE target_kind = 'plan'").await, 1);
    // Two who take a name at the same moment.
    let calls: Vec<_> = (0..8)
        .map(|caller| {
            let client = admin.clone();
            let name = if caller % 2 == 0 { "Studio" } else { "STUDIO" };
            tokio::spawn(async move { create(&client, name, vec![]).await })
        })
        .collect();
    let mut made = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => made += 1,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status}"),
        }
    }
    assert_eq!((made, all(&admin).await.len()), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_of_a_plan_can_be_changed_alone_and_over_http_in_camel_case() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let mut expected = all(&admin).await.remove(0);
    hub.clock.advance(chrono::TimeDelta::minutes(1));
    expected.updated_at = at("2026-03-15T12:01:00Z");
    expected.price = 0;
    assert_eq!(update(&admin, v1::UpdatePlanRequest { price: Some(0), ..change(1) }).await.unwrap(), expected);
    expected.set_tier(v1::Tier::ProReseller);
    assert_eq!(
        update(&admin, v1::UpdatePlanRequest { tier: Some(expected.tier), ..change(1) }).await.unwrap(),
        expected
    );
    expected.currency = "USD".into();
    let request = v1::UpdatePlanRequest { currency: Some("USD".into()), ..change(1) };
    assert_eq!(update(&admin, request).await.unwrap(), expected);
    expected.features = vec![v1::PlanFeature { feature: "storage".into(), monthly_limit: None }];
    let request = v1::UpdatePlanRequest { features: vec![feature("storage", None)], ..change(1) };
    assert_eq!(update(&admin, request).await.unwrap(), expected);
    assert_eq!(all(&admin).await[0], expected);

    let login = v1::LoginRequest { email: harness::ADMIN_EMAIL.into(), password: harness::ADMIN_PASSWORD.into() };
    let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
    let http = Http::new();
    let body = json!({ "name": "Lite", "tier": "membership", "price": 1, "features": [{ "feature": "storage", "monthlyLimit": 5 }] });
    let (code, made) = harness::json(http.post(hub.url("/api/admin/plans")).bearer_auth(&token).json(&body)).await;
    assert_eq!((code, &made["data"]["isActive"]), (201, &true.into()));
    assert_eq!(made["data"]["features"], json!([{ "feature": "storage", "monthlyLimit": 5 }]));
    for (request, active) in [
        (http.patch(hub.url("/api/admin/plans/4")).json(&json!({ "isActive": false })), false),
        (http.put(hub.url("/api/admin/plans/4")).json(&json!({ "isActive": true })), true),
        (http.delete(hub.url("/api/admin/plans/4")), false),
        (http.post(hub.url("/api/admin/plans/4/retire")), false),
    ] {
        let (code, answer) = harness::json(request.bearer_auth(&token)).await;
        assert_eq!((code, &answer["data"]["isActive"]), (200, &active.into()), "{answer}");
    }
    let (_, listed) = harness::json(http.get(hub.url("/api/admin/plans")).bearer_auth(&token)).await;
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][3]["name"]), (4, &"Lite".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_plan_is_kept_by_its_subscribers_and_chosen_by_nobody() {
    let hub = TestHub::start().await;
    let (admin, subscriber, late) = (hub.admin().await, hub.subscriber(2).await, hub.member().await);
    let retire = async |plan_id| admin.membership().retire_plan(v1::RetirePlanRequest { plan_id }).await;
    for _ in 0..2 {
        assert!(!retire(2).await.unwrap().into_inner().plan.unwrap().is_active, "twice is once");
    }
    assert_eq!(refusal(retire(77).await), (Code::NotFound, "NOT_FOUND".into()));
    let names = |plans: Vec<v1::Plan>| plans.into_iter().map(|plan| plan.name).collect::<Vec<_>>();
    assert_eq!(names(offered(&late.client).await), ["Starter", "Business"]);
    assert_eq!(names(all(&admin).await), ["Starter", "Pro", "Business"]);
    let retired = (Code::FailedPrecondition, "INVALID_STATE".to_owned());
    for plan in ["2", "pro"] {
        assert_eq!(refusal(subscribe(&late.client, plan).await), retired);
    }
    let users = "SELECT COUNT(*) FROM users";
    let before = hub.database.count(users).await;
    let request = v1::RegisterRequest {
        email: "new@test.example".into(),
        password: harness::MEMBER_PASSWORD.into(),
        plan_id: Some(2),
        ..Default::default()
    };
    assert_eq!(refusal(late.client.auth().register(request).await), retired);
    assert_eq!(hub.database.count(users).await, before);
    assert_eq!(held(&hub, &subscriber).await.unwrap().status(), v1::SubscriptionStatus::Active);
    assert!(ask(&hub, &subscriber, "cloud_rendering", 1).await.has_access);
    update(&admin, v1::UpdatePlanRequest { is_active: Some(true), ..change(2) }).await.unwrap();
    subscribe(&late.client, "Pro").await.expect("it is offered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_plan_is_felt_by_its_subscribers_at_once() {
    let hub = TestHub::start().await;
    let (admin, member) = (hub.admin().await, hub.subscriber(1).await);
    let check = async |name: &str| {
        let answer = ask(&hub, &member, name, 1).await;
        (answer.reason(), answer.limit)
    };
    assert_eq!(check("local_rendering").await, (Granted, Some(100)));
    assert_eq!(check("cloud_rendering").await, (NotInPlan, None));
    let with = |features| v1::UpdatePlanRequest { features, ..change(1) };
    update(&admin, with(vec![feature("local_rendering", Some(0)), feature("cloud_rendering", None)])).await.unwrap();
    assert_eq!(check("local_rendering").await, (LimitReached, Some(0)));
    assert_eq!(check("cloud_rendering").await, (Granted, None));
    update(&admin, with(vec![feature("local_rendering", None)])).await.unwrap();
    assert_eq!(check("local_rendering").await, (Granted, None));
    assert_eq!(check("cloud_rendering").await, (NotInPlan, None));
    let renamed = v1::UpdatePlanRequest { name: Some("Entry".into()), ..change(1) };
    update(&admin, renamed).await.unwrap();
    assert_eq!(held(&hub, &member).await.unwrap().plan, "Entry");
    // And by the ledger, which asks the same question.
    update(&admin, with(vec![feature("cloud_rendering", None)])).await.unwrap();
    let refused = refusal(member.client.usage().record_usage(harness::record(harness::usage("a"))).await);
    assert_eq!(refused, (Code::PermissionDenied, "MEMBERSHIP_REQUIRED".into()));
}
