//! A CreatorUp that does as it is told: an HTTP server on a real socket, which answers by a script, or badly, or not at
//! all, and remembers what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::peer::{keep, listen};

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Play {
    /// As a CreatorUp does that is well.
    Confirm,
    /// Confirms when the test lets it.
    Hold(Arc<Semaphore>),
    /// With a status, headers (each ends in `\r\n`) and a body.
    Say(u16, &'static str, String),
    /// With half of the body it promises.
    Half,
    /// With a body that never ends.
    Drip,
    /// With nothing: the connection stays open.
    Hang,
    /// With nothing: the connection is closed.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Default)]
struct Memory {
    script: VecDeque<Play>,
    heard: Vec<Heard>,
}

/// The peer; it is gone when dropped.
pub struct Peer {
    pub address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    serving: JoinHandle<()>,
}

impl Peer {
    pub async fn start() -> Peer {
        Peer::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// A peer at an address that another has left.
    pub async fn at(address: SocketAddr) -> Peer {
        let listener = listen(address);
        let address = listener.local_addr().expect("an address");
        let memory = Arc::new(Mutex::new(Memory::default()));
        let serving = tokio::spawn(serve(listener, memory.clone()));
        Peer { address, memory, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next requests like this, one after the other; those after them are confirmed.
    pub fn plays(&self, script: impl IntoIterator<Item = Play>) {
        self.memory.lock().expect("no panic").script.extend(script);
    }

    /// Everything it was told. Whether it is there, which hubs ask by themselves, is in [`Peer::probed`].
    pub fn heard(&self) -> Vec<Heard> {
        self.all().into_iter().filter(|heard| heard.method != "GET").collect()
    }

    /// Every time it was asked whether it is there.
    pub fn probed(&self) -> Vec<Heard> {
        self.all().into_iter().filter(|heard| heard.method == "GET").collect()
    }

    fn all(&self) -> Vec<Heard> {
        self.memory.lock().expect("no panic").heard.clone()
    }

    /// What it was asked about a user, oldest first.
    pub fn heard_of(&self, user_id: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.body["digiup_user_id"] == user_id).collect()
    }

    /// Goes away: connections are refused, and those that are open are closed.
    pub async fn leave(mut self) -> SocketAddr {
        self.serving.abort();
        // Until the listener is dropped the address is taken.
        drop((&mut self.serving).await);
        keep(self.address);
        self.address
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, memory: Arc<Mutex<Memory>>) {
    // Dropped with this task, and with them the connections.
    let mut calls = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        calls.spawn(answer(stream, memory.clone()));
    }
}

async fn answer(stream: TcpStream, memory: Arc<Mutex<Memory>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let heard = read(&mut stream).await?;
    let play = {
        let mut memory = memory.lock().expect("no panic");
        let script = if heard.method == "GET" { None } else { memory.script.pop_front() };
        memory.heard.push(heard.clone());
        script.unwrap_or(Play::Confirm)
    };
    let confirmed = json!({ "success": true, "data": {
        "creatorup_user_id": format!("c-{}", heard.body["digiup_user_id"].as_str().unwrap_or_default()),
        "region": "ap", "seats": 5,
    }});
    let (status, headers, body) = match play {
        Play::Confirm => (200, "", confirmed.to_string()),
        Play::Hold(gate) => {
            gate.acquire().await.expect("open").forget();
            (200, "", confirmed.to_string())
        }
        Play::Say(status, headers, body) => (status, headers, body),
        Play::Half => {
            let half = confirmed.to_string().len() / 2;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * half);
            return stream.write_all(format!("{head}{}", &confirmed.to_string()[..half]).as_bytes()).await;
        }
        Play::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await?;
            return std::future::pending().await;
        }
        Play::Hang => return std::future::pending().await,
        Play::Close => return Ok(()),
    };
    let head =
        format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Heard> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Heard { method, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
}
