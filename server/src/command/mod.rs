//! What the command line does beyond serving. Data goes to standard output, everything else to standard error.

pub mod connection;
pub mod database;
pub mod demo;
pub mod integrations;
pub mod queue;
pub mod seed;
mod table;

use std::io::{ErrorKind, Write};

/// Calls the hub; the answer, unless it is printed as JSON, and that is all that was wanted.
macro_rules! ask {
    ($json:ident, $client:ident.$call:ident($message:expr)) => {{
        let answer = $client.$call($message).await.map_err($crate::command::connection::refused)?.into_inner();
        if $json {
            return $crate::command::print(&upbridge_server::http::to_json(&answer));
        }
        answer
    }};
}
use ask;

/// Prints a line of data. A reader that has gone is no error of ours; false says that it has.
pub fn say(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Prints data, whether somebody still reads or not.
pub fn print(text: &str) -> anyhow::Result<()> {
    say(text).map(drop)
}
