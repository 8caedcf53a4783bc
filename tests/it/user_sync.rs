//! Users and CreatorUp: every change is pushed, whatever happens on the way.

mod asked;
mod bad_days;
mod certificate;
mod outage;
mod push;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use upbridge_client::v1;

use crate::harness::{Member, Peer, Setup, TestHub, eventually, within};

/// A hub with this CreatorUp, which looks at its queue often and tries soon again. What CreatorUp takes its time for is
/// waited for: a test that looks around while a push is held must not be overtaken by its repetition.
fn with(peer: &Peer) -> Setup {
    Setup::default()
        .set("CREATORUP_API_URL", peer.url())
        .set("QUEUE_POLL_INTERVAL", "20")
        .set("QUEUE_BACKOFF_BASE", "20")
        .set("SYNC_INTERVAL", "100")
        .set("SYNC_TIMEOUT", "60000")
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
    within(Duration::from_secs(60), &format!("the copy becomes {status:?}"), async || {
        hub.clock.advance(TimeDelta::milliseconds(10));
        stands(hub, user_id, status).await
    })
    .await;
}

/// A new user whom CreatorUp has confirmed, on a hub that is done with what it begins with: so whatever the peer is to
/// play next is for the next push that the test asks for.
async fn synced(hub: &TestHub) -> Member {
    let member = hub.member().await;
    becomes(hub, &member.id, v1::SyncStatus::Synced).await;
    let swept = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sweep' AND state = 'done'";
    eventually("the first sweep is over", async || hub.database.count(swept).await > 0).await;
    nobody_waits(hub).await;
    member
}

/// No push of anybody waits or runs; the administrator, too, is pushed as the hub begins.
async fn nobody_waits(hub: &TestHub) {
    let pushes = "SELECT COUNT(*) FROM jobs WHERE kind = 'user_sync'";
    eventually("no push waits", async || hub.database.count(pushes).await == 0).await;
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
