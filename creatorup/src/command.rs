//! The command line: of the `creatorup` program, and of whatever program serves CreatorUp under a name of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use upbridge_migrations::Direction;
use upbridge_service::model::clock::SystemClock;
use upbridge_service::{http, serve, storage, telemetry};

use crate::config::Config;

/// The reference CreatorUp service: batches of videos for users of DigiUp.
///
/// Configured by the environment and `.env` files; docs/creatorup.md lists every variable. Data goes to standard output,
/// everything else to standard error.
#[derive(Parser)]
#[command(name = "creatorup", version, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What CreatorUp can be told to do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve gRPC, HTTP/JSON and the API page on one port, and work the queue (the default).
    Serve,
    /// Bring the schema up, undo migrations, or list them.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Print the OpenAPI document of the contract.
    Openapi {
        /// Write it to a file instead.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// What can be done to the schema.
#[derive(Subcommand)]
pub enum Migrate {
    /// Apply whatever is pending; `serve` does it too.
    Up,
    /// Undo the newest migrations, with the data they hold.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1)]
        steps: u32,
        /// Confirms that the data of these migrations is lost.
        #[arg(long)]
        yes: bool,
    },
    /// List every migration and whether it is applied.
    Status,
}

/// The whole program: reads its arguments, and runs to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Several libraries use rustls; naming the provider once keeps them from guessing.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command.unwrap_or(Command::Serve))));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("creatorup: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what it is told, on the runtime of its caller.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Openapi { out } => {
            let document = http::openapi::document(&crate::API);
            match out {
                Some(path) => std::fs::write(&path, &document).with_context(|| path.display().to_string()),
                None => print(document.trim_end()),
            }
        }
        Command::Serve => serve(Config::load()?).await,
        Command::Migrate(migrate) => migrate_database(&Config::load()?, migrate).await,
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let guard =
        telemetry::start_logging(&config.log, &["creatorup", "upbridge"]).context("LOG_DIR cannot be written")?;
    let listener = serve::listen(config.host, config.port)?;
    let shutdown = serve::stop_on_signal();
    let served = crate::run(config, Arc::new(SystemClock), listener, shutdown).await;
    drop(guard);
    served
}

async fn migrate_database(config: &Config, migrate: Migrate) -> anyhow::Result<()> {
    let (options, migrations) = (config.store_options(), crate::setup().migrations);
    match migrate {
        Migrate::Up => {
            storage::migrate(&options, migrations, Direction::Up).await.map_err(crate::explained)?;
            eprintln!("the schema is up to date");
        }
        Migrate::Down { yes: false, .. } => {
            anyhow::bail!("undoing migrations deletes their data; add --yes to confirm")
        }
        Migrate::Down { steps, .. } => {
            storage::migrate(&options, migrations, Direction::Down(steps)).await.map_err(crate::explained)?;
            eprintln!("{steps} migrations undone");
        }
        Migrate::Status => {
            for one in storage::migration_status(&options, migrations).await.map_err(crate::explained)? {
                print(&format!("{} {}", if one.applied { "applied" } else { "pending" }, one.name))?;
            }
        }
    }
    Ok(())
}

/// Data, on standard output; a reader who leaves early is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
