//! The sockets of peers: plain ones, and ones that speak TLS with a certificate nobody vouches for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A connection somebody made to a peer.
pub enum Wire {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Makes the end of the connection an abrupt one: whoever reads from it is told that it was reset.
    pub fn reset_on_drop(&self) {
        let stream = match self {
            Wire::Plain(stream) => stream,
            Wire::Secure(stream) => stream.get_ref().0,
        };
        stream.set_zero_linger().expect("set");
    }

    /// Goes on in TLS.
    pub async fn secure(self, tls: &TlsAcceptor) -> io::Result<Wire> {
        match self {
            Wire::Plain(stream) => Ok(Wire::Secure(Box::new(tls.accept(stream).await?))),
            Wire::Secure(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Takes an address, which another may have had a moment ago. Whoever calls there is refused until somebody listens.
pub fn take(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.bind(address).expect("the address is free");
    socket
}

/// Listens at an address, which another may have had a moment ago.
pub fn listen(address: SocketAddr) -> TcpListener {
    take(address).listen(1024).expect("listens")
}

/// TLS with a certificate of its own making, for `localhost` and 127.0.0.1.
pub struct OwnTls {
    pub acceptor: TlsAcceptor,
    /// The certificate, which a caller would have to trust.
    pub pem: String,
}

impl OwnTls {
    pub fn new() -> OwnTls {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key.into()).expect("its own key");
        OwnTls { acceptor: TlsAcceptor::from(Arc::new(config)), pem: made.cert.pem() }
    }
}
