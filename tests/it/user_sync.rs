//! Users and CreatorUp: every change is pushed, whatever happens on the way.

mod asked;
mod bad_days;
mod certificate;
mod outage;
mod push;
mod sweep;

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use upbridge_client::v1;

use crate::harness::{Member, Peer, Setup, TestHub, eventually};

/// A hub with this CreatorUp, which looks at its queue often and makes nobody wait long.
fn with(peer: &Peer) -> Setup {
    Setup::default()
        .set("CREATORUP_API_URL", peer.url())
        .set("QUEUE_POLL_INTERVAL", "20")
        .set("QUEUE_BACKOFF_BASE", "1")
        .set("SYNC_INTERVAL", "100")
        .set("SYNC_TIMEOUT", "2000")
}

/// A gate that the peer waits at until the test lets so many through.
fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

async fn status_of(hub: &TestHub, user_id: &str) -> v1::GetSyncStatusResponse {
    let request = v1::GetSyncStatusRequest { digiup_user_id: Some(user_id.into()) };
    hub.service().await.user_sync().get_sync_status(request).await.expect("a status").into_inner()
}

async fn stands(hub: &TestHub, user_id: &str, status: v1::SyncStatus) -> bool {
    status_of(hub, user_id).await.sync_status == i32::from(status)
}

/// Waits until a user's copy stands like this, while time passes: what is to be tried again is.
async fn becomes(hub: &TestHub, user_id: &str, status: v1::SyncStatus) {
    eventually(&format!("the copy becomes {status:?}"), async || {
        hub.clock.advance(TimeDelta::milliseconds(10));
        stands(hub, user_id, status).await
    })
    .await;
}

/// A new user whom CreatorUp has confirmed.
async fn synced(hub: &TestHub) -> Member {
    let member = hub.member().await;
    becomes(hub, &member.id, v1::SyncStatus::Synced).await;
    member
}

/// Changes the name of a user.
async fn rename(admin: &upbridge_client::Client, user_id: &str, name: &str) {
    let request = v1::UpdateUserRequest { user_id: user_id.into(), name: Some(name.into()), ..Default::default() };
    admin.users().update_user(request).await.expect("renamed");
}

/// No push of this user waits or runs.
async fn settles(hub: &TestHub, user_id: &str) {
    eventually("no push of the user waits", async || {
        let jobs = format!("SELECT COUNT(*) FROM jobs WHERE queue_key = '{user_id}'");
        hub.database.count(&jobs).await == 0
    })
    .await;
}
