//! A network that swallows what is sent to PostgreSQL and says nothing: connections stand, and nobody answers on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use upbridge_client::v1;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestDatabase, eventually};

/// What stands between a hub and its server.
struct Network {
    address: SocketAddr,
    /// Connections that were made before this many silences are swallowed.
    silences: Arc<AtomicU64>,
}

impl Network {
    async fn to(server: String) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, silences) = (listener.local_addr().expect("an address"), Arc::new(AtomicU64::new(0)));
        let told = silences.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&server).await.expect("the server");
                let (born, (near, near_out), (far, far_out)) =
                    (told.load(Ordering::SeqCst), near.into_split(), far.into_split());
                tokio::spawn(carry(near, far_out, told.clone(), born));
                tokio::spawn(carry(far, near_out, told.clone(), born));
            }
        });
        Network { address, silences }
    }

    /// From now on nothing arrives over the connections there are; new ones are as they should be.
    fn swallow(&self) {
        self.silences.fetch_add(1, Ordering::SeqCst);
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, told: Arc<AtomicU64>, born: u64) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if told.load(Ordering::SeqCst) == born && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_survived_without_a_restart() {
    let database = TestDatabase::new().await;
    if !database.is_postgres() {
        return; // A file is not behind a network.
    }
    let (user, place) = database.url.trim_start_matches("postgres://").split_once('@').expect("a user");
    let (server, name) = place.split_once('/').expect("a name");
    let network = Network::to(server.to_owned()).await;
    let url = format!("postgres://{user}@{}/{name}", network.address);
    let setup = Setup::default()
        .set("DATABASE_URL", url)
        .set("DATABASE_POOL_SIZE", "4")
        .set("REQUEST_TIMEOUT_SECONDS", "3")
        .set("QUEUE_POLL_INTERVAL", "20")
        // Long enough for a new connection and a whole transaction on a slow machine, or no write would ever be made.
        .adjust(|config| config.patience = Duration::from_secs(2));
    let hub = setup.start_on(database).await;
    let (nobody, mut admin) = (hub.client().await, None);
    // On a slow machine a password may take longer than a call may.
    eventually("the administrator signs in", async || {
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let signed_in = nobody.auth().login(login).await.ok();
        admin = signed_in.map(|signed_in| nobody.with_bearer(signed_in.into_inner().token));
        admin.is_some()
    })
    .await;
    let admin = admin.expect("signed in");
    let done = async || hub.database.count("SELECT COUNT(*) FROM finished_jobs WHERE state = 'done'").await;
    // More often than either pool has places.
    for _ in 0..5 {
        let probe = |count| v1::EnqueueProbeRequest { count: Some(count), ..Default::default() };
        let before = done().await;
        let under_way = (0..8).map(|_| async { drop(admin.queue().enqueue_probe(probe(1)).await) });
        let swallow = async { network.swallow() };
        tokio::join!(futures::future::join_all(under_way), swallow);
        eventually("a write is answered", async || admin.queue().enqueue_probe(probe(1)).await.is_ok()).await;
        eventually("reads are answered", async || {
            let asked = (0..4).map(|_| async { admin.queue().list_jobs(v1::ListJobsRequest::default()).await.is_ok() });
            futures::future::join_all(asked).await.into_iter().all(|is_ok| is_ok)
        })
        .await;
        crate::harness::within(Duration::from_secs(90), "jobs are worked", async || done().await > before).await;
    }
}
