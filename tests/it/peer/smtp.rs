//! A mail server, plain, with STARTTLS or with TLS, that lets in who knows the password, or behaves as it is told.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::wire::{OwnTls, Wire, listen};

pub const MAIL_USER: &str = "no-reply@mail.example";
pub const MAIL_PASSWORD: &str = "mail-password-hunter22";

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Never.
    Never,
    /// When it is asked for.
    Asked,
    /// With the first byte.
    AtOnce,
}

/// Where the server falls silent, with the connection open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Before it says anything.
    Connect,
    /// When it is greeted.
    Ehlo,
    /// When TLS is asked for: it agrees, and says nothing more.
    StartTls,
    /// When it is given the password.
    Auth,
}

/// How a mail server behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    pub tls: Begins,
    pub stall: Option<Stall>,
    /// What it says first; bytes, because it need not be SMTP.
    pub greeting: Vec<u8>,
    /// The mechanisms it offers once the connection is as secure as it gets; none when empty.
    pub mechanisms: &'static str,
    /// What it says to any password instead of judging it.
    pub verdict: Option<&'static str>,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners {
            tls: Begins::Never,
            stall: None,
            greeting: b"220 mail.example ESMTP\r\n".to_vec(),
            mechanisms: "PLAIN LOGIN",
            verdict: None,
        }
    }
}

/// The server; it is gone when dropped.
pub struct SmtpPeer {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl SmtpPeer {
    pub async fn start(manners: Manners) -> SmtpPeer {
        SmtpPeer::with_tls(manners, &OwnTls::new()).await
    }

    /// A server with a certificate that somebody else may have been told to trust.
    pub async fn with_tls(manners: Manners, tls: &OwnTls) -> SmtpPeer {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_addr().expect("an address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (acceptor, log) = (tls.acceptor.clone(), heard.clone());
        let serving = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(serve(Wire::Plain(stream), manners.clone(), acceptor.clone(), log.clone()));
            }
        });
        SmtpPeer { address, heard, serving }
    }

    /// Every line it was told, over all connections.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }
}

impl Drop for SmtpPeer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(wire: Wire, manners: Manners, tls: TlsAcceptor, heard: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let wire = match manners.tls {
        Begins::AtOnce => wire.secure(&tls).await?,
        _ => wire,
    };
    let mut stream = BufStream::new(wire);
    if manners.stall == Some(Stall::Connect) {
        return std::future::pending().await;
    }
    say(&mut stream, &manners.greeting).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        heard.lock().expect("no panic").push(line.clone());
        let is_secure = matches!(stream.get_ref(), Wire::Secure(_));
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" if manners.stall == Some(Stall::Ehlo) => return std::future::pending().await,
            "EHLO" => {
                let starttls = manners.tls == Begins::Asked && !is_secure;
                let auth = !manners.mechanisms.is_empty() && (manners.tls == Begins::Never || is_secure);
                let mut offers = String::new();
                if starttls {
                    offers += "250-STARTTLS\r\n";
                }
                if auth {
                    offers += &format!("250-AUTH {}\r\n", manners.mechanisms);
                }
                say(&mut stream, format!("250-mail.example\r\n{offers}250 8BITMIME\r\n").as_bytes()).await?;
            }
            "STARTTLS" => {
                say(&mut stream, b"220 2.0.0 go ahead\r\n").await?;
                if manners.stall == Some(Stall::StartTls) {
                    return std::future::pending().await;
                }
                stream = BufStream::new(stream.into_inner().secure(&tls).await?);
            }
            "AUTH" if manners.stall == Some(Stall::Auth) => return std::future::pending().await,
            "AUTH" => {
                let (mechanism, first) = rest.split_once(' ').unwrap_or((rest, ""));
                let given = match manners.mechanisms.split(' ').find(|offered| *offered == mechanism) {
                    Some("PLAIN") => first == STANDARD.encode(format!("\0{MAIL_USER}\0{MAIL_PASSWORD}")),
                    Some("LOGIN") => login(&mut stream, &heard).await?,
                    _ => {
                        say(&mut stream, b"504 5.5.4 not offered\r\n").await?;
                        continue;
                    }
                };
                let verdict = manners.verdict.unwrap_or(match given {
                    true => "235 2.7.0 welcome",
                    false => "535 5.7.8 Username and Password not accepted for mail-password-hunter22",
                });
                say(&mut stream, format!("{verdict}\r\n").as_bytes()).await?;
            }
            "QUIT" => return say(&mut stream, b"221 2.0.0 bye\r\n").await,
            _ => say(&mut stream, b"502 5.5.2 what\r\n").await?,
        }
    }
}

/// Asks for the name and the password, each by itself; says whether both are right.
async fn login(stream: &mut BufStream<Wire>, heard: &Mutex<Vec<String>>) -> io::Result<bool> {
    let mut is_right = true;
    for (question, answer) in [("Username:", MAIL_USER), ("Password:", MAIL_PASSWORD)] {
        say(stream, format!("334 {}\r\n", STANDARD.encode(question)).as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        heard.lock().expect("no panic").push(line.trim_end().to_owned());
        is_right &= line.trim_end() == STANDARD.encode(answer);
    }
    Ok(is_right)
}

async fn say(stream: &mut BufStream<Wire>, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.flush().await
}
