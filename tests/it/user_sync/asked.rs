//! SyncUser: a push that somebody asks for.

use reqwest::Client as Http;
use serde_json::{Value, json};
use upbridge_client::{Code, v1};

use super::{gate, settles, status_of, synced, with};
use crate::harness::{self, Peer, Play, TestHub, eventually, fault, refusal};

const PATH: &str = "/api/v1/creatorup/sync/user";

fn waiting(digiup_user_id: Option<&str>) -> v1::SyncUserRequest {
    v1::SyncUserRequest {
        digiup_user_id: digiup_user_id.map(str::to_owned),
        wait_ms: Some(10_000),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_of_the_sources_pushes_the_caller() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let member = synced(&hub).await;
    let http = Http::new();
    let ask = |body: Value| http.post(hub.url(PATH)).bearer_auth(&member.token).json(&body);
    let (code, answer) = harness::json(ask(json!({ "creatorup_api_url": peer.url(), "wait_ms": 10_000 }))).await;
    assert_eq!((code, &answer["success"]), (200, &json!(true)), "{answer}");
    let data = &answer["data"];
    assert_eq!(
        (&data["sync_status"], &data["creatorup_user_id"]),
        (&json!("synced"), &json!(format!("c-{}", member.id)))
    );
    assert!(data["creatorup_synced_at"].as_str().unwrap().ends_with('Z'), "{answer}");
    let event = status_of(&hub, &member.id).await.recent_events.remove(0);
    assert_eq!((json!(event.id), &*event.status), (data["event_id"].clone(), "completed"));
    assert_eq!(peer.heard_of(&member.id).len(), 2);

    // Without a body and without a content type.
    for path in [PATH, "/api/v1/client/creatorup/sync/user"] {
        settles(&hub, &member.id).await;
        let (code, answer) = harness::json(http.post(hub.url(path)).bearer_auth(&member.token)).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["data"].as_object().unwrap().len(), 4, "{answer}");
    }
    eventually("both are pushed", async || peer.heard_of(&member.id).len() == 4).await;
    assert!(peer.heard().iter().all(|heard| !format!("{heard:?}").contains(&member.token)), "the token stays here");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_while_a_push_waits_asks_for_that_one_and_nobody_waits_unasked() {
    let (peer, gate) = (Peer::start().await, gate());
    let hub = with(&peer).start().await;
    let member = synced(&hub).await;
    peer.plays([Play::Hold(gate.clone()), Play::Hold(gate.clone())]);
    let mut answers = Vec::new();
    for _ in 0..5 {
        let answer = member.client.user_sync().sync_user(v1::SyncUserRequest::default()).await.unwrap().into_inner();
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| answer.event_id == answers[0].event_id), "{answers:?}");
    assert_eq!(answers[0].sync_status, i32::from(v1::SyncStatus::Synced), "nothing changed, and the copy is right");
    assert_eq!(status_of(&hub, &member.id).await.recent_events.len(), 2);
    gate.add_permits(2);
    settles(&hub, &member.id).await;
    assert!(peer.heard_of(&member.id).len() <= 3, "at most the one under way and one more");
    assert!(status_of(&hub, &member.id).await.recent_events.iter().all(|event| event.status == "completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_ask_for_themselves_and_services_and_administrators_for_anybody() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let (member, other) = (synced(&hub).await, synced(&hub).await);
    for client in [hub.service().await, hub.admin().await] {
        let before = peer.heard_of(&member.id).len();
        let answer = client.user_sync().sync_user(waiting(Some(&member.id))).await.unwrap().into_inner();
        assert_eq!(answer.creatorup_user_id, Some(format!("c-{}", member.id)));
        settles(&hub, &member.id).await;
        assert_eq!(peer.heard_of(&member.id).len(), before + 1);
        let nobody = waiting(Some(&uuid::Uuid::now_v7().to_string()));
        assert_eq!(refusal(client.user_sync().sync_user(nobody).await), (Code::NotFound, "NOT_FOUND".into()));
    }
    assert_eq!(fault(member.client.user_sync().sync_user(waiting(Some(&other.id))).await), "digiup_user_id");
    assert_eq!(fault(hub.service().await.user_sync().sync_user(waiting(None)).await), "digiup_user_id");
    let too_long = v1::SyncUserRequest { wait_ms: Some(10_001), ..Default::default() };
    assert_eq!(fault(member.client.user_sync().sync_user(too_long).await), "wait_ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_neither_configured_nor_listed_is_refused_before_anything_happens() {
    let (peer, stranger) = (Peer::start().await, Peer::start().await);
    // Listed, and inside all the same: the list does not lift the guard.
    let hub = with(&peer).set("CREATORUP_ALLOWED_URLS", format!("{}, http://[::1]:9", stranger.url())).start().await;
    let member = synced(&hub).await;
    let events = status_of(&hub, &member.id).await.recent_events.len();
    for url in [
        "https://api.creatorup.com",
        "http://169.254.169.254/latest/meta-data",
        "http://127.1:1",
        "http://[::1]:9",
        "file:///etc/passwd",
        "nonsense",
        "",
        &stranger.url(),
        &format!("{}/elsewhere", peer.url()),
        &peer.url().replace("http", "https"),
        &peer.url().replace("//", "//evil@"),
    ] {
        let request = v1::SyncUserRequest { creatorup_api_url: Some(url.into()), ..Default::default() };
        assert_eq!(fault(member.client.user_sync().sync_user(request).await), "creatorup_api_url", "{url}");
        let http = Http::new().post(hub.url(PATH)).bearer_auth(&member.token);
        let (code, answer) = harness::json(http.json(&json!({ "creatorup_api_url": url }))).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("creatorup_api_url")), "{url}");
    }
    settles(&hub, &member.id).await;
    assert_eq!(status_of(&hub, &member.id).await.recent_events.len(), events, "nothing was asked for");
    assert!(stranger.heard().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_address_is_pushed_to_when_it_does_not_lead_inside() {
    let (peer, moved) = (Peer::start().await, Peer::start().await);
    let named = format!("http://localhost:{}", moved.address.port());
    for (networks, is_reached) in [("", false), ("127.0.0.0/8", true)] {
        let setup = with(&peer).set("CREATORUP_ALLOWED_URLS", &*named).set("OUTBOUND_ALLOWED_NETWORKS", networks);
        let hub = setup.start().await;
        let member = synced(&hub).await;
        let request = v1::SyncUserRequest { creatorup_api_url: Some(named.clone()), ..waiting(None) };
        let answer = member.client.user_sync().sync_user(request).await;
        if !is_reached {
            // What says that it is inside is refused before anything is made of it.
            assert_eq!((fault(answer), moved.heard().len()), ("creatorup_api_url".to_owned(), 0));
            continue;
        }
        let answer = answer.unwrap().into_inner();
        let status = status_of(&hub, &member.id).await;
        let event = status.recent_events.iter().find(|event| event.id == answer.event_id).unwrap();
        assert_eq!(moved.heard_of(&member.id).len(), 1);
        assert_eq!((&*event.status, &event.error_message), ("completed", &None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_creatorup_asking_is_refused() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let answer = member.client.user_sync().sync_user(v1::SyncUserRequest::default()).await;
    assert_eq!(refusal(answer), (Code::FailedPrecondition, "INVALID_STATE".into()));
    let named =
        v1::SyncUserRequest { creatorup_api_url: Some("https://api.creatorup.com".into()), ..Default::default() };
    assert_eq!(fault(member.client.user_sync().sync_user(named).await), "creatorup_api_url");
}
