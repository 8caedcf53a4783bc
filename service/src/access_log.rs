//! `access.log`: a line for every request of either face.
//!
//! A line is written for every call, so it must cost next to nothing: requests append to a buffer in memory and one
//! thread writes it to the file several times a second. The file is opened for appending, so logrotate's
//! `copytruncate` works. When the server ends, what is left is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::telemetry::Format;

/// A line is in the file after this long at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes that wait at most, should the disk not keep up; lines beyond are dropped rather than the server's memory.
const BUFFER_LIMIT: usize = 8 << 20;

/// What a line tells.
pub struct Line<'a> {
    /// When the request came.
    pub at: DateTime<Utc>,
    /// The request's id.
    pub request_id: &'a str,
    /// `grpc` or `http`.
    pub face: &'static str,
    /// HTTP method.
    pub verb: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// HTTP status.
    pub status: u16,
    /// The rpc; empty when no method was reached.
    pub rpc: &'a str,
    /// The gRPC code's name; empty when no method was reached.
    pub code: &'static str,
    /// Time to the answer's head.
    pub duration: Duration,
    /// The peer's address; absent when unknown.
    pub ip: Option<std::net::IpAddr>,
    /// The signed-in user's id, `service`, or nothing.
    pub caller: &'a str,
}

/// The writer of the file; dropping it writes what is left.
pub struct AccessLog {
    shared: Arc<Shared>,
    format: Format,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    buffer: Mutex<Buffer>,
    wake: Condvar,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    ended: bool,
}

impl AccessLog {
    /// Opens `access.log` in `directory`.
    pub fn open(directory: &Path, format: Format) -> io::Result<AccessLog> {
        std::fs::create_dir_all(directory)?;
        let file = OpenOptions::new().create(true).append(true).open(directory.join("access.log"))?;
        let shared = Arc::new(Shared { buffer: Mutex::default(), wake: Condvar::new() });
        let writing = shared.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&writing, file))?;
        Ok(AccessLog { shared, format, thread: Some(thread) })
    }

    /// Adds a line.
    pub fn write(&self, line: &Line<'_>) {
        let mut buffer = self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.bytes.len() < BUFFER_LIMIT {
            append(&mut buffer.bytes, self.format, line);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn write(shared: &Shared, mut file: File) {
    let mut taken = Vec::new();
    loop {
        let buffer = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = shared.wake.wait_timeout_while(buffer, FLUSH_INTERVAL, |buffer| !buffer.ended);
        let (mut buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.bytes, &mut taken);
        let ended = buffer.ended;
        drop(buffer);
        if !taken.is_empty() {
            if let Err(error) = file.write_all(&taken) {
                tracing::warn!(%error, "access.log cannot be written");
            }
            taken.clear();
            // A burst must not keep its memory for good.
            taken.shrink_to(1 << 16);
        }
        if ended {
            return;
        }
    }
}

fn append(bytes: &mut Vec<u8>, format: Format, line: &Line<'_>) {
    let at = line.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let micros = line.duration.as_micros() as u64;
    let written = match format {
        Format::Text => write_text(bytes, &at, micros, line),
        Format::Json => write_json(bytes, &at, micros, line),
    };
    // Writing to memory does not fail.
    debug_assert!(written.is_ok());
}

fn write_text(bytes: &mut Vec<u8>, at: &str, micros: u64, line: &Line<'_>) -> io::Result<()> {
    let Line { request_id, face, verb, status, .. } = line;
    write!(bytes, "{at} request_id={request_id} face={face} verb={verb} path=")?;
    // A path is what a caller sends; it must not be able to forge a line.
    line.path
        .chars()
        .filter(|letter| !letter.is_control() && *letter != ' ')
        .try_for_each(|letter| write!(bytes, "{letter}"))?;
    write!(bytes, " status={status} rpc={} code={} duration_us={micros} ip=", line.rpc, line.code)?;
    if let Some(ip) = line.ip {
        write!(bytes, "{ip}")?;
    }
    writeln!(bytes, " caller={}", line.caller)
}

fn write_json(bytes: &mut Vec<u8>, at: &str, micros: u64, line: &Line<'_>) -> io::Result<()> {
    let object = serde_json::json!({
        "timestamp": at,
        "request_id": line.request_id,
        "face": line.face,
        "verb": line.verb,
        "path": line.path,
        "status": line.status,
        "rpc": line.rpc,
        "code": line.code,
        "duration_us": micros,
        "ip": line.ip,
        "caller": line.caller,
    });
    serde_json::to_writer(&mut *bytes, &object)?;
    bytes.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_forge_a_line() {
        let line = Line {
            at: DateTime::UNIX_EPOCH,
            request_id: "r",
            face: "http",
            verb: "GET",
            path: "/a\nb status=200",
            status: 404,
            rpc: "",
            code: "",
            duration: Duration::from_micros(7),
            ip: None,
            caller: "",
        };
        for format in [Format::Text, Format::Json] {
            let mut bytes = Vec::new();
            append(&mut bytes, format, &line);
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            if format == Format::Text {
                assert_eq!(text.matches(" status=").count(), 1, "{text}");
            }
        }
    }
}
