//! A CreatorUp over HTTPS whose certificate nobody the hub trusts has signed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use upbridge_client::v1;

use crate::harness::{HubProcess, TestDatabase, eventually, register};

/// How often somebody came, and how often they trusted what they saw.
#[derive(Default)]
struct Visits {
    came: AtomicUsize,
    trusted: AtomicUsize,
}

/// Speaks TLS with a certificate of its own making, for as long as the tests run.
fn serve(visits: &Arc<Visits>) -> SocketAddr {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let visits = visits.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            visits.came.fetch_add(1, Ordering::SeqCst);
            visits.trusted.fetch_add(usize::from(shake_hands(stream, config.clone())), Ordering::SeqCst);
        }
    });
    address
}

fn shake_hands(mut stream: TcpStream, config: Arc<rustls::ServerConfig>) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut session = rustls::ServerConnection::new(config).unwrap();
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_told_nothing_and_the_push_is_tried_again() {
    let visits = Arc::new(Visits::default());
    let address = serve(&visits);
    let database = TestDatabase::new().await;
    let url = format!("https://{address}");
    let mut command = HubProcess::command(&database);
    command.envs([("CREATORUP_API_URL", &*url), ("QUEUE_BACKOFF_BASE", "1"), ("QUEUE_POLL_INTERVAL", "20")]);
    let hub = HubProcess::run(command.env("SYNC_INTERVAL", "86400000"));
    // The sweep that a hub begins with would take up a push again that was given up before it.
    let swept = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'user_sweep' AND state = 'done'";
    eventually("the first sweep is over", async || database.count(swept).await > 0).await;
    let member = register(&hub.client().await, None).await;
    let service = hub.service().await;
    let status = async || {
        let request = v1::GetSyncStatusRequest { digiup_user_id: Some(member.id.clone()) };
        service.user_sync().get_sync_status(request).await.unwrap().into_inner()
    };
    eventually("the push is given up", async || status().await.sync_status == i32::from(v1::SyncStatus::Error)).await;
    let failed = status().await;
    let event = &failed.recent_events[0];
    assert_eq!((&*event.status, event.retry_count), ("failed", 3), "{event:?}");
    assert_eq!(event.error_message.as_deref(), Some("tls: the connection could not be secured"));
    assert_eq!((failed.creatorup_user_id, failed.creatorup_synced_at), (None, None));
    assert!(visits.came.load(Ordering::SeqCst) >= 4, "it was tried four times");
    assert_eq!(visits.trusted.load(Ordering::SeqCst), 0, "nothing was said to it");
    let job = format!("key=\"{}\"", member.id);
    let count = |words: &str| {
        let said = hub.said();
        let of_the_push = said.lines().filter(|line| line.contains(&job) && line.contains("tls: "));
        of_the_push.filter(|line| line.contains(words)).count()
    };
    // What is committed is logged a moment later.
    eventually("its end is logged", async || count("a job was given up") == 1).await;
    assert_eq!(count("it is tried again"), 3, "{}", hub.said());
}
