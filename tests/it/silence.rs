//! A network that swallows what is sent to PostgreSQL and says nothing: connections stand, and nobody answers on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use upbridge_client::{Client, v1};

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestDatabase, TestHub, eventually, within};

/// PostgreSQL's `Sync` alone: the driver asks whether a connection that is given back is well.
const ARE_YOU_WELL: &[u8] = &[b'S', 0, 0, 0, 4];

/// What stands between a hub and its server.
struct Network {
    address: SocketAddr,
    /// Connections that were made before this many silences are swallowed.
    silences: Arc<AtomicU64>,
    /// Whether connections are cut when the driver asks whether they are well.
    loses_returning: Arc<AtomicBool>,
    /// How many were cut so.
    lost: Arc<AtomicU64>,
}

impl Network {
    async fn to(server: String) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, silences) = (listener.local_addr().expect("an address"), Arc::new(AtomicU64::new(0)));
        let loses_returning = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicU64::new(0));
        let (told, loses, counted) = (silences.clone(), loses_returning.clone(), lost.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&server).await.expect("the server");
                let (born, (near, near_out), (far, far_out)) =
                    (told.load(Ordering::SeqCst), near.into_split(), far.into_split());
                let (told_there, told_back) = (told.clone(), told.clone());
                let (loses, counted) = (loses.clone(), counted.clone());
                let goes = move |bytes: &[u8]| {
                    let is_lost = loses.load(Ordering::SeqCst) && bytes == ARE_YOU_WELL;
                    counted.fetch_add(u64::from(is_lost), Ordering::SeqCst);
                    told_there.load(Ordering::SeqCst) == born && !is_lost
                };
                tokio::spawn(carry(near, far_out, goes));
                tokio::spawn(carry(far, near_out, move |_| told_back.load(Ordering::SeqCst) == born));
            }
        });
        Network { address, silences, loses_returning, lost }
    }

    /// From now on nothing arrives over the connections there are; new ones are as they should be.
    fn swallow(&self) {
        self.silences.fetch_add(1, Ordering::SeqCst);
    }
}

/// Carries what `goes`; after something that did not, nothing more.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, goes: impl Fn(&[u8]) -> bool) {
    let (mut bytes, mut is_cut) = (vec![0; 64 * 1024], false);
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        is_cut = is_cut || !goes(&bytes[..read]);
        if !is_cut && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// A hub with a network between it and its database; none where the database is a file.
async fn behind_a_network() -> Option<(TestHub, Network)> {
    let database = TestDatabase::new().await;
    if !database.is_postgres() {
        return None;
    }
    let (user, place) = database.url.trim_start_matches("postgres://").split_once('@').expect("a user");
    let (server, name) = place.split_once('/').expect("a name");
    let network = Network::to(server.to_owned()).await;
    let url = format!("postgres://{user}@{}/{name}", network.address);
    let setup = Setup::default()
        .set("DATABASE_URL", url)
        .set("DATABASE_POOL_SIZE", "2")
        .set("REQUEST_TIMEOUT_SECONDS", "15")
        .set("QUEUE_POLL_INTERVAL", "20")
        // Longer than a connection is waited for.
        .adjust(|config| config.patience = Duration::from_secs(6));
    Some((setup.start_on(database).await, network))
}

/// Calls as the administrator.
async fn admin(hub: &TestHub) -> Client {
    let (nobody, mut admin) = (hub.client().await, None);
    // On a slow machine a password may take longer than a call may.
    eventually("the administrator signs in", async || {
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let signed_in = nobody.auth().login(login).await.ok();
        admin = signed_in.map(|signed_in| nobody.with_bearer(signed_in.into_inner().token));
        admin.is_some()
    })
    .await;
    admin.expect("signed in")
}

async fn reads(admin: &Client) -> bool {
    admin.queue().list_jobs(v1::ListJobsRequest::default()).await.is_ok()
}

async fn writes(admin: &Client) -> bool {
    let probe = v1::EnqueueProbeRequest { count: Some(1), ..Default::default() };
    admin.queue().enqueue_probe(probe).await.is_ok()
}

async fn done(hub: &TestHub) -> i64 {
    hub.database.count("SELECT COUNT(*) FROM finished_jobs WHERE state = 'done'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_survived_without_a_restart() {
    let Some((hub, network)) = behind_a_network().await else { return };
    let admin = admin(&hub).await;
    // More often than either pool has places.
    for _ in 0..3 {
        let before = done(&hub).await;
        let under_way = (0..8).map(|_| writes(&admin));
        let swallow = async { network.swallow() };
        tokio::join!(futures::future::join_all(under_way), swallow);
        eventually("a write is answered", async || writes(&admin).await).await;
        eventually("reads are answered", async || {
            futures::future::join_all((0..4).map(|_| reads(&admin))).await.into_iter().all(|is_ok| is_ok)
        })
        .await;
        within(Duration::from_secs(90), "jobs are worked", async || done(&hub).await > before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_all_lost_on_their_way_back_are_made_anew() {
    let Some((hub, network)) = behind_a_network().await else { return };
    let admin = admin(&hub).await;
    assert!(reads(&admin).await && writes(&admin).await);
    network.loses_returning.store(true, Ordering::SeqCst);
    // As many as both pools have places. Those who ask may be answered all the same, over new ones.
    within(Duration::from_secs(120), "connections are lost", async || {
        tokio::join!(reads(&admin), writes(&admin));
        network.lost.load(Ordering::SeqCst) >= 4
    })
    .await;
    network.loses_returning.store(false, Ordering::SeqCst);
    let before = done(&hub).await;
    let long = Duration::from_secs(120);
    within(long, "writes are answered", async || writes(&admin).await && writes(&admin).await).await;
    within(long, "reads are answered", async || reads(&admin).await && reads(&admin).await).await;
    within(long, "jobs are worked", async || done(&hub).await > before).await;
}
