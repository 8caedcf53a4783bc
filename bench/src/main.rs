//! The load generator of Upbridge.
//!
//! A figure in calls per second says as much about the machine as about the hub, so none is printed alone: each
//! stands beside a reference measured in the same run, round by round in turn, and what counts is the ratio. The
//! reference of an rpc is a bare tonic server answering a canned message of the same size; of the usage stream,
//! a bare loop of multi-row inserts; of an HTTP endpoint, its own gRPC twin.
//!
//! The cast: [`process`] starts the servers as children, so that they share nothing with the load but the
//! machine; [`load`] keeps 64 calls in flight and takes medians; [`lanes`], [`http`] and [`ledger`] are the
//! calls; [`past`] fills a database; [`queue`] is the event queue from end to end, [`hooks`] webhooks out, whose receiver is [`sink`]; [`scenarios`] puts them together; [`report`] prints the table.
//!
//! What is guaranteed: every answer was checked, and what was recorded was read back and added up, before a
//! number is printed. What is not: that the load generator is free. It shares the cores with the server in the
//! subject and in the reference alike, which draws ratios of calls per second towards 1; the server's own CPU
//! time per call stands beside them and is not diluted.

mod analytics;
mod arguments;
mod bare;
mod hooks;
mod http;
mod hub;
mod integrations;
mod lanes;
mod ledger;
mod load;
mod machine;
mod past;
mod process;
mod queue;
mod report;
mod scenarios;
mod sink;
mod target;

use anyhow::{Context as _, Result};
use clap::Parser;

use arguments::Arguments;

/// The hub's allocator, for what is measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    // Not in the help: how this program starts itself as the reference.
    if let [_, mode, port] = std::env::args().collect::<Vec<_>>().as_slice()
        && [bare::MODE, bare::HTTP_MODE, sink::MODE].contains(&mode.as_str())
    {
        let port = port.parse()?;
        return match mode.as_str() {
            bare::MODE => bare::serve(port).await,
            bare::HTTP_MODE => bare::serve_http(port).await,
            _ => sink::serve(port).await,
        };
    }
    let arguments = Arguments::parse();
    let table = scenarios::run(&arguments).await?.to_markdown();
    print(&table);
    if let Some(path) = &arguments.out {
        std::fs::write(path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // the table is the data this program is run for; progress goes to stderr
fn print(table: &str) {
    print!("{table}");
}
