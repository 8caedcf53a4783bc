//! The connection to a mail server, of which no more is read than a conversation has: the client reads lines, and a
//! line need not end.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes that are read of a server, its certificates included.
const MOST_BYTES: usize = 256 * 1024;

/// Connects to the first of these addresses that takes a connection.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<Box<dyn AsyncTokioStream>> {
    let stream = TcpStream::connect(addresses).await?;
    Ok(Box::new(Capped { address: stream.peer_addr()?, stream, left: MOST_BYTES }))
}

/// Goes on in TLS with whoever has a good certificate for the host.
pub async fn secure(stream: Box<dyn AsyncTokioStream>, host: &str) -> io::Result<Box<dyn AsyncTokioStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(BuilderVerifierExt::with_platform_verifier).map_err(io::Error::other)?;
    let config = config.with_no_client_auth();
    let address = stream.peer_addr()?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Box::new(Secured { stream, address }))
}

/// A connection of which so much may still be read.
#[derive(Debug)]
struct Capped {
    stream: TcpStream,
    address: SocketAddr,
    left: usize,
}

impl AsyncRead for Capped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let capped = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut capped.stream).poll_read(cx, buffer);
        match capped.left.checked_sub(buffer.filled().len() - before) {
            Some(left) => capped.left = left,
            None => return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
        }
        polled
    }
}

/// A connection in TLS.
#[derive(Debug)]
struct Secured {
    stream: TlsStream<Box<dyn AsyncTokioStream>>,
    address: SocketAddr,
}

impl AsyncRead for Secured {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

macro_rules! passes_on {
    ($($kind:ty),+) => {$(
        impl AsyncWrite for $kind {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().stream).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
            }
        }

        impl AsyncTokioStream for $kind {
            fn peer_addr(&self) -> io::Result<SocketAddr> {
                Ok(self.address)
            }
        }
    )+};
}
passes_on!(Capped, Secured);
