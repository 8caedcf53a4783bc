//! The story, a step after the other.

use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};
use upbridge_client::{Client, v1};

use super::figures::{Figures, Usage};
use super::film;
use super::peer::Peer;
use super::people::{PLANS, People, Person};
use super::servers::{ADMIN_EMAIL, Servers, Side};
use super::stage::Stage;
use super::until;
use crate::command::connection::refused;

/// Who comes, and with which of the plans.
const PEOPLE: [(&str, Option<usize>); 4] = [("Ana", Some(0)), ("Budi", Some(1)), ("Citra", Some(2)), ("Dewi", None)];
/// Everybody's password; the hub lives for a minute and on this machine alone.
const PASSWORD: &str = "correct horse battery staple";
/// Batches: whose, its name, and how many of the videos it holds.
const BATCHES: [(usize, &str, usize); 4] =
    [(0, "harbour-days", 2), (1, "market-morning", 1), (1, "garden", 1), (2, "three-views", 3)];
/// The feature they use.
const FEATURE: &str = "local_rendering";

/// A batch of the demo.
struct Batch {
    owner: usize,
    name: &'static str,
    id: String,
    asked: Value,
}

/// Plays all of it; answers with the figures of its end, and with whom it was played.
pub async fn play(servers: &mut Servers, stage: &mut Stage) -> anyhow::Result<(Figures, People)> {
    for (side, name) in [(Side::Hub, "hub"), (Side::CreatorUp, "creatorup")] {
        stage.progress(&format!("{name} starts"));
        let took = servers.start(side).await?;
        let text =
            format!("{name:<9} at {}, an empty embedded database, ready in {} ms", servers.url(side), took.as_millis());
        stage.tell("start", &text);
    }
    let peer = Peer::new(&servers.url(Side::CreatorUp))?;
    let people = register(servers, stage).await?;
    become_synced(&people, stage).await?;
    ask_for_access(&people, &peer, stage).await?;
    let videos = make_videos(servers, stage).await?;
    let batches = create(&people, &peer, &videos, stage).await?;
    let mut figures = Figures::default();
    if !videos.is_empty() {
        process(&people, &peer, &batches, stage).await?;
        figures.videos = BATCHES.iter().map(|(_, _, videos)| *videos as i64).sum();
        figures.batches.1 = batches.len() as i64;
        figures.slowest_report_ms = Some(hear_of_completion(&people, &peer, &batches, stage).await?);
    }
    compare(&people, &peer, &mut figures, stage).await?;
    retry(&people, &peer, &batches, &figures, stage).await?;
    figures.catch_up_ms = miss_and_catch_up(servers, &people, &peer, stage).await?;
    compare(&people, &peer, &mut figures, stage).await?;
    figures.batches.0 = batches.len() as i64;
    count(&people, &mut figures).await?;
    figures.skipped = stage.skipped.clone();
    Ok((figures, people))
}

async fn register(servers: &Servers, stage: &mut Stage) -> anyhow::Result<People> {
    let client = Client::connect(servers.url(Side::Hub)).await?;
    let mut members = Vec::new();
    for (name, plan) in PEOPLE {
        let email = format!("{}@demo.example", name.to_lowercase());
        let request = v1::RegisterRequest {
            email: email.clone(),
            password: PASSWORD.to_owned(),
            name: name.to_owned(),
            username: None,
            plan_id: None,
        };
        let registered = client.auth().register(request).await.map_err(refused)?.into_inner();
        let hub = client.with_bearer(&registered.token);
        let id = registered.user.context("a registered user")?.id;
        let mut text = format!("{name:<6} {email}");
        if let Some((number, plan)) = plan.map(|plan| PLANS[plan]) {
            let subscribe = v1::SubscribeRequest { plan_id: Some(number), plan: None };
            hub.membership().subscribe(subscribe).await.map_err(refused)?;
            text += &format!(", subscribed to {plan}");
        }
        if plan.is_none() {
            text += ", without a plan";
        }
        stage.tell("register", &text);
        members.push(Person { name, id, token: registered.token, hub });
    }
    let login = v1::LoginRequest { email: ADMIN_EMAIL.to_owned(), password: servers.password().to_owned() };
    let admin_token = client.auth().login(login).await.map_err(refused)?.into_inner().token;
    Ok(People { members, admin: client.with_bearer(&admin_token), admin_token })
}

/// How a user's copy at CreatorUp stands, as the hub says.
async fn standing(person: &Person) -> anyhow::Result<v1::GetSyncStatusResponse> {
    let asked = person.hub.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await;
    Ok(asked.map_err(refused)?.into_inner())
}

async fn become_synced(people: &People, stage: &mut Stage) -> anyhow::Result<()> {
    for (count, person) in people.members.iter().enumerate() {
        stage.progress(&format!("{count} of {} users are at CreatorUp", people.members.len()));
        let what = format!("{} is synced to CreatorUp", person.name);
        let synced = until(what, async || {
            let status = standing(person).await?;
            Ok((status.sync_status() == v1::SyncStatus::Synced).then_some(status))
        });
        let id = synced.await?.creatorup_user_id.unwrap_or_default();
        stage.tell("sync", &format!("{:<6} pushed from the hub's queue, confirmed as {id}", person.name));
    }
    Ok(())
}

async fn ask_for_access(people: &People, peer: &Peer, stage: &mut Stage) -> anyhow::Result<()> {
    for person in &people.members {
        let verified = peer.post("/api/v1/digiup/verify", &person.token, &json!({})).await?;
        let access = peer.get("/api/v1/digiup/membership/check", &person.token).await?;
        let left = match (&access["has_access"], access["remaining"].as_i64()) {
            (Value::Bool(true), Some(left)) => format!(", {left} units left of this month"),
            (Value::Bool(true), None) => ", without limit".to_owned(),
            _ => String::new(),
        };
        let reason = access["reason"].as_str().unwrap_or_default();
        let text = format!("{:<6} token good: {}; {FEATURE}: {reason}{left}", person.name, verified["valid"]);
        stage.tell("access", &text);
    }
    Ok(())
}

async fn make_videos(servers: &Servers, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
    match film::tools().await {
        Ok(tools) => {
            stage.progress("ffmpeg makes videos");
            let videos = film::make(&tools, &servers.media()).await?;
            stage.tell("film", &format!("{}: one second each, made by ffmpeg {}", videos.join(", "), tools.version));
            Ok(videos)
        }
        Err(missing) => {
            stage.skip("film", &format!("no video is made or rendered, and batches stay pending; {missing}"));
            Ok(Vec::new())
        }
    }
}

async fn create(people: &People, peer: &Peer, videos: &[String], stage: &mut Stage) -> anyhow::Result<Vec<Batch>> {
    let mut batches = Vec::new();
    for (owner, name, count) in BATCHES {
        let person = &people.members[owner];
        let inputs = &videos[..count.min(videos.len())];
        let asked =
            json!({ "name": name, "type": "video", "inputs": inputs, "idempotency_key": format!("demo-{name}") });
        let created = peer.post("/api/v1/batch/create", &person.token, &asked).await?;
        let batch = &created["batch"];
        let id = batch["id"].as_str().context("a batch")?.to_owned();
        let known = if batch["usage_reported"] == true { "counted by the hub" } else { "to be counted by the hub" };
        stage.tell(
            "batch",
            &format!("{:<6} creates {name:<16} {known}: {}", person.name, units(&batch["usage_amount"])),
        );
        batches.push(Batch { owner, name, id, asked });
    }
    Ok(batches)
}

async fn process(people: &People, peer: &Peer, batches: &[Batch], stage: &mut Stage) -> anyhow::Result<()> {
    let token = |batch: &Batch| people.members[batch.owner].token.as_str();
    for batch in batches {
        peer.post("/api/v1/video/process", token(batch), &json!({ "batch_id": batch.id })).await?;
    }
    let mut told = vec![false; batches.len()];
    until("all batches are rendered", async || {
        let mut shown = Vec::new();
        for (index, batch) in batches.iter().enumerate().filter(|(index, _)| !told[*index]).collect::<Vec<_>>() {
            let now = peer.get(&format!("/api/v1/batch/{}", batch.id), token(batch)).await?["batch"].take();
            match now["status"].as_str().unwrap_or_default() {
                "completed" => {
                    told[index] = true;
                    let took = now["metadata"]["processing_time"].as_str().unwrap_or_default();
                    let count = now["metadata"]["video_count"].as_i64().unwrap_or_default();
                    stage.tell(
                        "render",
                        &format!("{:<16} {count} to 720p H.264 and a thumbnail, in {took}", batch.name),
                    );
                }
                "failed" | "cancelled" => anyhow::bail!("{} was not rendered: {}", batch.name, now["error"]),
                _ => shown.push(format!("{} {:>3} %", batch.name, now["progress"].as_i64().unwrap_or_default())),
            }
        }
        stage.progress(&shown.join("   "));
        Ok(told.iter().all(|told| *told).then_some(()))
    })
    .await
}

/// Waits until the hub has every webhook, and answers how long the slowest took, in milliseconds.
async fn hear_of_completion(people: &People, peer: &Peer, batches: &[Batch], stage: &mut Stage) -> anyhow::Result<i64> {
    stage.progress("usage webhooks are on their way");
    let mut slowest = 0;
    for batch in batches {
        let person = &people.members[batch.owner];
        let record = until(format!("the webhook of {} is applied", batch.name), async || {
            let listed = person.hub.usage().list_usage(v1::ListUsageRequest::default()).await.map_err(refused)?;
            let listed = listed.into_inner().usage.into_iter();
            Ok(listed.filter(|record| record.completion_reported).find(|record| record.batch_name == batch.name))
        });
        let written = record.await?.synced_at.map_or(0, |at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000);
        let finished = peer.get(&format!("/api/v1/batch/{}", batch.id), &person.token).await?;
        let finished = finished["batch"]["finished_at"].as_str().unwrap_or_default();
        let finished = chrono::DateTime::parse_from_rfc3339(finished).context("when it was completed")?;
        slowest = slowest.max(written - finished.timestamp_millis());
    }
    stage.tell(
        "webhook",
        &format!("{} signed, sent, applied by the hub; the slowest {slowest} ms after its batch", batches.len()),
    );
    Ok(slowest)
}

/// This month's usage of everybody, as both sides count it, once CreatorUp says that it has told everything.
async fn tally(people: &People, peer: &Peer) -> anyhow::Result<Vec<Usage>> {
    let mut all = Vec::new();
    for person in &people.members {
        let reported = until(format!("all of {}'s usage is reported", person.name), async || {
            let month = peer.get("/api/v1/usage/monthly", &person.token).await?;
            Ok((month["is_reported"] == true).then_some(month))
        });
        let month = reported.await?;
        let count = |name: &str| month[name].as_i64().context("a month's sum");
        let creatorup = (count("total")?, count("batches")?);
        let asked = v1::GetMonthlyUsageRequest {
            month_year: month["month_year"].as_str().map(str::to_owned),
            ..Default::default()
        };
        let at_hub = person.hub.usage().get_monthly_usage(asked).await.map_err(refused)?.into_inner();
        all.push(Usage { user: person.name, hub: (at_hub.total, at_hub.batches), creatorup });
    }
    Ok(all)
}

async fn compare(people: &People, peer: &Peer, figures: &mut Figures, stage: &mut Stage) -> anyhow::Result<()> {
    figures.usage = tally(people, peer).await?;
    let all = |side: fn(&Usage) -> (i64, i64)| figures.usage.iter().map(|usage| side(usage).0).sum::<i64>();
    let (hub, creatorup) = (all(|usage| usage.hub), all(|usage| usage.creatorup));
    let verdict = if figures.usage.iter().all(|usage| usage.hub == usage.creatorup) {
        stage.paint().good("equal for everybody")
    } else {
        stage.paint().bad("not equal")
    };
    stage.tell("compare", &format!("{hub} units at the hub, {creatorup} at CreatorUp: {verdict}"));
    Ok(())
}

/// Sends a batch once more, and sees that nothing is counted again.
async fn retry(
    people: &People,
    peer: &Peer,
    batches: &[Batch],
    before: &Figures,
    stage: &mut Stage,
) -> anyhow::Result<()> {
    let batch = batches.first().context("a batch")?;
    let person = &people.members[batch.owner];
    let again = peer.post("/api/v1/batch/create", &person.token, &batch.asked).await?;
    if again["duplicate"] != true || again["batch"]["id"] != *batch.id {
        anyhow::bail!("{} was created a second time", batch.name);
    }
    if tally(people, peer).await? != before.usage {
        anyhow::bail!("{} counted a second time", batch.name);
    }
    stage.tell(
        "retry",
        &format!("{:<6} creates {} once more: the same batch, and it still counts once", person.name, batch.name),
    );
    Ok(())
}

/// CreatorUp is away while a user changes; answers how long after its return it knew, in milliseconds.
async fn miss_and_catch_up(
    servers: &mut Servers,
    people: &People,
    peer: &Peer,
    stage: &mut Stage,
) -> anyhow::Result<i64> {
    servers.kill(Side::CreatorUp);
    stage.tell("outage", "CreatorUp is killed");
    let dewi = people.latecomer()?;
    let (number, plan) = PLANS[0];
    let subscribe = v1::SubscribeRequest { plan_id: Some(number), plan: None };
    dewi.hub.membership().subscribe(subscribe).await.map_err(refused)?;
    let name = format!("{} Lestari", dewi.name);
    let update = v1::UpdateUserRequest { user_id: dewi.id.clone(), name: Some(name.clone()), ..Default::default() };
    people.admin.users().update_user(update).await.map_err(refused)?;
    stage.tell(
        "outage",
        &format!("{:<6} subscribes to {plan} and is called {name} now; the hub answers as ever", dewi.name),
    );
    let trouble = until("the push fails and waits for its next try", async || {
        let status = standing(dewi).await?;
        let mut events = status.recent_events.into_iter().filter(|event| event.status == "pending");
        Ok(events.find_map(|event| event.error_message.map(|message| (event.retry_count, message))))
    });
    let (_, trouble) = trouble.await?;
    stage.tell("outage", &format!("{:<6} waits in the hub's queue: {trouble}", dewi.name));

    let begun = Instant::now();
    servers.start(Side::CreatorUp).await?;
    let started = begun.elapsed().as_millis();
    until("CreatorUp has caught up", async || {
        let status = standing(dewi).await?;
        Ok((status.sync_status() == v1::SyncStatus::Synced).then_some(()))
    })
    .await?;
    let took = (begun.elapsed().as_millis() - started) as i64;
    let pulled = peer.get("/api/v1/digiup/user/sync", &dewi.token).await?;
    let access = peer.get("/api/v1/digiup/membership/check", &dewi.token).await?;
    let text = format!(
        "CreatorUp is back after {started} ms and caught up {took} ms later: {}, {} {}, {FEATURE}: {}",
        text(&pulled["user"]["name"]),
        text(&pulled["user"]["membership"]["plan"]),
        text(&pulled["user"]["membership"]["status"]),
        text(&access["reason"]),
    );
    stage.tell("recovery", &text);
    Ok(took)
}

/// What the hub's administrator sees at the end.
async fn count(people: &People, figures: &mut Figures) -> anyhow::Result<()> {
    let settled = until("the hub's queue is empty", async || {
        let seen = people.admin.analytics().get_sync_analytics(v1::GetSyncAnalyticsRequest::default()).await;
        let seen = seen.map_err(refused)?.into_inner();
        let queue = seen.queue.unwrap_or_default();
        Ok((queue.available && queue.waiting + queue.active == 0).then_some((seen, queue)))
    });
    let (seen, queue) = settled.await?;
    let users = seen.users.unwrap_or_default();
    figures.users = (users.total, users.synced);
    figures.webhooks = seen.webhooks.map_or(0, |webhooks| webhooks.processed);
    figures.success_rate = seen.events.and_then(|events| events.success_rate);
    figures.queue = [queue.waiting, queue.active, queue.delayed, queue.completed, queue.dead];
    Ok(())
}

fn units(amount: &Value) -> String {
    format!("{amount} unit{}", if *amount == 1 { "" } else { "s" })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("nothing")
}
