//! A peer over HTTP/1.1, plain or with TLS.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::wire::{OwnTls, Wire, listen, take};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When its last byte was here.
    pub at: Instant,
    /// Which connection it came over, counted from 0.
    pub connection: usize,
}

impl Asked {
    /// The first header of a name in lower case; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With a status, headers and a body, whose length is told.
    Say { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// With nothing: the connection stays open.
    Hang,
    /// With a status and half of the body it promises; the connection stays open.
    Half,
    /// With a body that never ends, of which a byte comes each time so long has passed.
    Drip(Duration),
    /// With a body of so many bytes, whose length is told.
    Flood(u64),
    /// With nothing: the connection is closed.
    Close,
    /// With half of the body it promises, then the connection is reset.
    Reset,
    /// Like another, when the test lets it: each answer takes a permit for good.
    Held(Arc<Semaphore>, Box<Reply>),
}

impl Reply {
    /// A status with an empty body.
    pub fn status(status: u16) -> Reply {
        Reply::Say { status, headers: vec![], body: vec![] }
    }

    /// A status with a JSON body, as it is written here.
    pub fn json(status: u16, body: &str) -> Reply {
        Reply::status(status).with_header("content-type", "application/json").with_body(body)
    }

    /// A status with a page for people.
    pub fn html(status: u16, body: &str) -> Reply {
        Reply::status(status).with_header("content-type", "text/html; charset=utf-8").with_body(body)
    }

    /// Sends the caller elsewhere.
    pub fn redirect(status: u16, location: &str) -> Reply {
        Reply::status(status).with_header("location", location)
    }

    /// A success whose body is so many zeros once it is unpacked, and a thousandth of that before.
    pub fn gzip_bomb(bytes: u64) -> Reply {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let piece = [0; 64 * 1024];
        (0..bytes / piece.len() as u64).for_each(|_| packed.write_all(&piece).expect("memory"));
        let body = packed.finish().expect("memory");
        Reply::status(200).with_header("content-encoding", "gzip").with_body(body)
    }

    pub fn with_header(self, name: &'static str, value: impl Into<String>) -> Reply {
        match self {
            Reply::Say { status, mut headers, body } => {
                headers.push((name, value.into()));
                Reply::Say { status, headers, body }
            }
            other => other,
        }
    }

    pub fn with_body(self, body: impl Into<Vec<u8>>) -> Reply {
        match self {
            Reply::Say { status, headers, .. } => Reply::Say { status, headers, body: body.into() },
            other => other,
        }
    }

    /// The same, when the test lets it.
    pub fn held(self, gate: &Arc<Semaphore>) -> Reply {
        Reply::Held(gate.clone(), Box::new(self))
    }
}

type Answerer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

struct Memory {
    script: std::collections::VecDeque<Reply>,
    otherwise: Answerer,
    asked: Vec<Asked>,
}

struct Shared {
    memory: Mutex<Memory>,
    connections: AtomicUsize,
    tls: Option<TlsAcceptor>,
}

/// The peer; it is gone when dropped, and its connections with it.
pub struct HttpPeer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl HttpPeer {
    /// A peer that answers everything with 200 and nothing, until it is told otherwise.
    pub async fn start() -> HttpPeer {
        HttpPeer::at(SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    /// The same over TLS, with a certificate nobody vouches for.
    pub async fn start_tls() -> HttpPeer {
        HttpPeer::at(SocketAddr::from(([127, 0, 0, 1], 0)), Some(OwnTls::new().acceptor)).await
    }

    /// A peer at an address of its own, or one another had.
    pub async fn at(address: SocketAddr, tls: Option<TlsAcceptor>) -> HttpPeer {
        let listener = listen(address);
        let address = listener.local_addr().expect("an address");
        let otherwise: Answerer = Arc::new(|_| Reply::status(200));
        let memory = Mutex::new(Memory { script: Default::default(), otherwise, asked: Vec::new() });
        let shared = Arc::new(Shared { memory, connections: AtomicUsize::new(0), tls });
        let serving = tokio::spawn({
            let shared = shared.clone();
            async move {
                // Dropped with this task, and with them the connections.
                let mut calls = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).expect("set");
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                    calls.spawn(serve(Wire::Plain(stream), shared.clone(), number));
                    while calls.try_join_next().is_some() {}
                }
            }
        });
        HttpPeer { address, shared, serving }
    }

    /// Where it is, by its address.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.shared.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Answers the next requests like this, one after the other.
    pub fn plays(&self, script: impl IntoIterator<Item = Reply>) {
        self.memory(|memory| memory.script.extend(script));
    }

    /// Answers whatever the script does not like this.
    pub fn always(&self, reply: Reply) {
        self.answers(move |_| reply.clone());
    }

    /// Answers whatever the script does not as a function says.
    pub fn answers(&self, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        self.memory(|memory| memory.otherwise = Arc::new(answer));
    }

    /// Everything it was asked, in the order the requests were whole.
    pub fn asked(&self) -> Vec<Asked> {
        self.memory(|memory| memory.asked.clone())
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.memory(|memory| memory.asked.len())
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Goes away: connections are refused, and those that are open are closed. The address is nobody else's for as long
    /// as what this answers with lives.
    pub async fn leave(mut self) -> TcpSocket {
        self.serving.abort();
        // Until the listener is dropped the address is taken.
        drop((&mut self.serving).await);
        take(self.address)
    }

    fn memory<T>(&self, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(&mut self.shared.memory.lock().expect("no panic"))
    }
}

impl Drop for HttpPeer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers the requests of one connection, one after the other.
async fn serve(wire: Wire, shared: Arc<Shared>, number: usize) -> io::Result<()> {
    let wire = match &shared.tls {
        Some(tls) => wire.secure(tls).await?,
        None => wire,
    };
    let mut stream = BufStream::new(wire);
    while let Some(asked) = read(&mut stream, number).await? {
        let reply = {
            let mut memory = shared.memory.lock().expect("no panic");
            memory.asked.push(asked.clone());
            let scripted = memory.script.pop_front();
            scripted.ok_or_else(|| memory.otherwise.clone())
        };
        answer(&mut stream, reply.unwrap_or_else(|otherwise| otherwise(&asked))).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn answer(stream: &mut BufStream<Wire>, mut reply: Reply) -> io::Result<()> {
    while let Reply::Held(gate, then) = reply {
        gate.acquire().await.expect("open").forget();
        reply = *then;
    }
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"half\": tr";
    match reply {
        Reply::Say { status, headers, body } => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        }
        Reply::Hang => std::future::pending().await,
        Reply::Half => {
            stream.write_all(HALF).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Reply::Drip(every) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
            let mut tick = tokio::time::interval(every);
            loop {
                stream.write_all(b" ").await?;
                stream.flush().await?;
                tick.tick().await;
            }
        }
        Reply::Flood(bytes) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let piece = [b'x'; 64 * 1024];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(piece.len() as u64);
                stream.write_all(&piece[..now as usize]).await?;
                left -= now;
            }
            Ok(())
        }
        Reply::Close => Err(io::ErrorKind::ConnectionAborted.into()),
        Reply::Reset => {
            stream.write_all(HALF).await?;
            stream.flush().await?;
            stream.get_ref().reset_on_drop();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Reply::Held(..) => unreachable!("held replies were waited for"),
    }
}

/// The next request; `None` when the caller is done.
async fn read(stream: &mut BufStream<Wire>, connection: usize) -> io::Result<Option<Asked>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first().map_or("", String::as_str).split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers: Vec<(String, String)> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Asked { method, path, headers, body, at: Instant::now(), connection }))
}
