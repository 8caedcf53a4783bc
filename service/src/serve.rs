//! The port: the listener with its bounds, TLS, the signals that end a server, and the end in order.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use tokio_util::sync::CancellationToken;

/// A client that has not sent its request's head by then is holding the connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate and its key, as files of PEM.
pub type Tls = (PathBuf, PathBuf);

/// Takes the port, before anything else is begun: a second server on it ends here, and has touched nothing.
///
/// Errors: the port is in use, or the address is not this machine's.
pub fn listen(host: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).with_context(|| format!("HOST and PORT: {address} cannot be listened on"))
}

/// What is cancelled when this process is told to stop, by SIGTERM or Ctrl-C; the second time ends it at once. From now
/// on a file at the size limit of the process is an error of the write, as a full disk is, and not the server's end.
pub fn stop_on_signal() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        survive_file_limit();
        stop_signal().await;
        signalled.cancel();
        // A second signal means now.
        stop_signal().await;
        std::process::exit(130);
    });
    shutdown
}

fn survive_file_limit() {
    #[cfg(target_os = "linux")]
    {
        use tokio::signal::unix::{SignalKind, signal};
        const SIGXFSZ: i32 = 25;
        // Registering a handler is all: it replaces the default action for the life of the process.
        drop(signal(SignalKind::from_raw(SIGXFSZ)));
    }
}

/// Ends when this process is told to stop, for whoever stops in a way of their own.
pub async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    drop(tokio::signal::ctrl_c().await);
}

/// Serves `app` on `listener` until `closing` ends, then takes no new connection and lets calls in flight finish within
/// `drain`.
///
/// `closing` is where a server waits for its shutdown and says that it stops, before its doors close.
///
/// Errors: the certificate cannot be read, or the listener failed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<&Tls>,
    app: Router,
    closing: impl Future<Output = ()>,
    drain: Duration,
) -> anyhow::Result<()> {
    let handle = Handle::new();
    let close = async {
        closing.await;
        handle.graceful_shutdown(Some(drain));
    };
    let (served, ()) = tokio::join!(accept(listener, tls, app, handle.clone()), close);
    served
}

async fn accept(
    listener: TcpListener,
    tls: Option<&Tls>,
    app: Router,
    handle: Handle<SocketAddr>,
) -> anyhow::Result<()> {
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    listener.set_nonblocking(true)?;
    macro_rules! serve {
        ($server:expr) => {{
            let mut server = $server.handle(handle);
            let http = server.http_builder();
            http.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            http.http2()
                .timer(hyper_util::rt::TokioTimer::new())
                .keep_alive_interval(Some(Duration::from_secs(30)))
                .keep_alive_timeout(Duration::from_secs(20))
                .max_concurrent_streams(1024);
            server.serve(service).await.context("the listener failed")
        }};
    }
    match tls {
        None => serve!(axum_server::from_tcp(listener)?.acceptor(axum_server::accept::NoDelayAcceptor::new())),
        Some((certificate, key)) => {
            let tls = axum_server::tls_rustls::RustlsConfig::from_pem_file(certificate, key)
                .await
                .context("TLS_CERT_FILE and TLS_KEY_FILE cannot be read as a certificate and its key")?;
            serve!(axum_server::from_tcp_rustls(listener, tls)?)
        }
    }
}
