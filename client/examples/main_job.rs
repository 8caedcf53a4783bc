//! The hub's main job from beginning to end, as CreatorUp would do it, against a hub that runs.
//!
//! `UPBRIDGE_URL` says where the hub is (`http://127.0.0.1:3345` when unset). Each run makes a new user.

#![allow(clippy::print_stdout)] // the story is what the example is for

use anyhow::{Context as _, Result, ensure};
use upbridge_client::{Client, v1};

const REPORTS: i32 = 1_000;
const REPORTS_PER_MESSAGE: i32 = 250;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("UPBRIDGE_URL").unwrap_or_else(|_| "http://127.0.0.1:3345".to_owned());
    let hub = Client::connect(&url).await?;
    println!("Connected to the hub at {url}.");

    let ana = register_and_log_in(&hub).await?;
    subscribe_to(&ana, "Pro").await?;
    verify(&ana).await?;
    check_local_rendering(&ana).await?;
    record_twice(&ana).await?;
    stream_reports(&ana).await?;
    read_the_month(&ana).await
}

async fn register_and_log_in(hub: &Client) -> Result<Client> {
    let email = format!("ana-{}@digiup.example", uuid::Uuid::new_v4().simple());
    let password = "correct horse battery staple".to_owned();
    let user = v1::RegisterRequest {
        email: email.clone(),
        password: password.clone(),
        name: "Ana".to_owned(),
        ..Default::default()
    };
    let registered = hub.auth().register(user).await?.into_inner();
    println!("Registered {email} as user {}.", registered.user.unwrap_or_default().id);

    let session = hub.auth().login(v1::LoginRequest { email, password }).await?.into_inner();
    println!("Logged in: a {} token of {} characters.", session.token_type, session.token.len());
    Ok(hub.with_bearer(session.token))
}

async fn subscribe_to(ana: &Client, name: &str) -> Result<()> {
    let plans = ana.membership().list_plans(v1::ListPlansRequest {}).await?.into_inner().plans;
    println!("Plans to choose from:");
    for plan in &plans {
        let features: Vec<_> = plan.features.iter().map(feature).collect();
        println!("  {} at {} {} a {}: {}", plan.name, plan.price, plan.currency, plan.interval, features.join(", "));
    }
    let plan = plans.iter().find(|plan| plan.name == name).with_context(|| format!("no plan {name}"))?;

    let request = v1::SubscribeRequest { plan_id: Some(plan.id), plan: None };
    let held = ana.membership().subscribe(request).await?.into_inner().subscription.unwrap_or_default();
    println!("Subscribed to {}: {}.", held.plan, held.status().as_str_name());
    Ok(())
}

fn feature(feature: &v1::PlanFeature) -> String {
    match feature.monthly_limit {
        Some(limit) => format!("{} up to {limit} a month", feature.feature),
        None => format!("{} without limit", feature.feature),
    }
}

async fn verify(ana: &Client) -> Result<()> {
    let answer = ana.user_sync().verify_token(v1::VerifyTokenRequest::default()).await?.into_inner();
    ensure!(answer.valid && answer.has_access, "the token of a subscriber gives no access: {:?}", answer.reason());
    println!("The token is good and gives access: {}.", answer.reason().as_str_name());
    Ok(())
}

async fn check_local_rendering(ana: &Client) -> Result<()> {
    let request = v1::CheckFeatureAccessRequest { feature: "local_rendering".to_owned(), ..Default::default() };
    let answer = ana.membership().check_feature_access(request).await?.into_inner();
    ensure!(answer.has_access, "no access to local_rendering: {:?}", answer.reason());
    let left = answer.remaining.map_or("without limit".to_owned(), |left| format!("{left} left"));
    println!("May use {}: {} used this month, {left}.", answer.feature, answer.used);
    Ok(())
}

async fn record_twice(ana: &Client) -> Result<()> {
    let request = v1::RecordUsageRequest { usage_data: Some(batch("wedding".to_owned())), ..Default::default() };
    let first = ana.usage().record_usage(request.clone()).await?.into_inner();
    let second = ana.usage().record_usage(request).await?.into_inner();
    ensure!(!first.duplicate && second.duplicate && first.usage_id == second.usage_id, "a batch was counted twice");
    println!("Recorded a batch as {}; sent again, it was known as a duplicate.", first.usage_id);
    Ok(())
}

async fn stream_reports(ana: &Client) -> Result<()> {
    let messages = (0..REPORTS / REPORTS_PER_MESSAGE).map(|message| v1::RecordUsageStreamRequest {
        reports: (0..REPORTS_PER_MESSAGE)
            .map(|report| v1::UsageReport {
                usage_data: Some(batch(format!("clip {}", message * REPORTS_PER_MESSAGE + report))),
                ..Default::default()
            })
            .collect(),
    });
    let stream = tokio_stream::iter(messages.collect::<Vec<_>>());
    let answer = ana.usage().record_usage_stream(stream).await?.into_inner();
    if let Some(refused) = answer.results.iter().find(|result| !result.reason.is_empty()) {
        println!("A report was refused: {} {}", refused.reason, refused.message);
    }
    ensure!(answer.created == REPORTS, "{} of {REPORTS} reports were recorded", answer.created);
    println!("Streamed {REPORTS} reports: {} created, {} refused.", answer.created, answer.rejected);
    Ok(())
}

async fn read_the_month(ana: &Client) -> Result<()> {
    let month = ana.usage().get_monthly_usage(v1::GetMonthlyUsageRequest::default()).await?.into_inner();
    let sent = i64::from(REPORTS) + 1;
    ensure!(month.total == sent && month.batches == sent, "sent {sent} units, read {} back", month.total);
    println!("In {} {} units in {} batches:", month.month_year, month.total, month.batches);
    for of_type in &month.by_type {
        println!("  {}: {} units in {} batches", of_type.r#type, of_type.total, of_type.batches);
    }
    println!("Every unit that was sent was counted once.");
    Ok(())
}

fn batch(batch_name: String) -> v1::UsageData {
    v1::UsageData {
        batch_name,
        batch_type: "video".to_owned(),
        usage_type: "local_rendering".to_owned(),
        ..Default::default()
    }
}
