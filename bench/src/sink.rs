//! The receiver that webhooks are told to: a process of its own that answers as fast as it can, or never, and remembers
//! when each order came.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The first argument that makes this program the receiver; the second is its port.
pub const MODE: &str = "sink";
/// Where whatever is sent is answered.
pub const WELL: &str = "/well";
/// Where nothing is ever answered.
pub const DEAD: &str = "/dead";

/// Orders with the microseconds of the Unix time at which they came.
type Came = Arc<Mutex<Vec<(u64, u64)>>>;

/// Microseconds of the Unix time.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Serves until killed.
pub async fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let came = Came::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let came = came.clone();
        // Whoever calls may hang up when it likes.
        tokio::spawn(async move { drop(answer(stream, came).await) });
    }
}

async fn answer(mut stream: TcpStream, came: Came) -> Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let text = std::str::from_utf8(&bytes[..head])?;
        let (is_taking, is_dead) = (text.starts_with("GET"), text.contains(DEAD));
        let mut length = text.lines().filter_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.next().map_or(Ok(0), str::parse)?;
        while bytes.len() < head + length {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "half a body");
        }
        if is_dead {
            return std::future::pending().await;
        }
        if is_taking {
            let taken = std::mem::take(&mut *came.lock().unwrap_or_else(PoisonError::into_inner));
            let body: String = taken.iter().map(|(order, at)| format!("{order} {at}\n")).collect();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
            return Ok(());
        }
        let body = &bytes[head..head + length];
        let name = b"\"order\":";
        if let Some(at) = body.windows(name.len()).position(|some| some == name) {
            let digits = body[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let order = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
            came.lock().unwrap_or_else(PoisonError::into_inner).push((order, micros()));
        }
        bytes.drain(..head + length);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

/// What came since the last call.
pub async fn take(port: u16) -> Result<Vec<(u64, u64)>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"GET /taken HTTP/1.1\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (_, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let read = |line: &str| {
        let (order, at) = line.split_once(' ').context("no time")?;
        Ok((order.parse()?, at.parse()?))
    };
    body.lines().map(read).collect()
}
