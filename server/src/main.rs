//! The `upbridge` command.

mod command;
mod sign;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use upbridge_migrations::Direction;
use upbridge_server::config::Config;
use upbridge_server::domain::Hub;
use upbridge_server::model::clock::SystemClock;
use upbridge_server::{http, storage, telemetry};
use upbridge_service::serve;

use crate::command::print;

/// SQLite allocates through it as well, because the crate overrides `malloc`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The integration hub between DigiUp and CreatorUp.
///
/// Configured by the environment and `.env` files; `.env.example` lists every variable. Data goes to standard
/// output, everything else to standard error.
#[derive(Parser)]
#[command(version, arg_required_else_help = false)]
struct Cli {
    /// End when standard input does: whoever starts this one so, does not leave it behind.
    #[arg(long, hide = true)]
    leashed: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve gRPC, HTTP/JSON and the API page on one port (the default).
    Serve,
    /// Bring the schema up, undo migrations, or list them.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Make administrators and give them new passwords.
    #[command(subcommand)]
    Admin(Admin),
    Seed(command::seed::Seed),
    /// Make the monthly sums anew from the usage ledger.
    RebuildUsage,
    Demo(command::demo::Demo),
    Queue(command::queue::Queue),
    Integrations(command::integrations::Integrations),
    DbStatus(command::database::DbStatus),
    /// Print the signature of a webhook's body, and the curl line that sends it.
    Sign(sign::Sign),
    /// Serve the other side, the reference CreatorUp service, on a port of its own.
    Creatorup {
        /// What it is told to do; to serve when nothing is said.
        #[command(subcommand)]
        command: Option<creatorup::command::Command>,
    },
    /// Print the OpenAPI document of the contract.
    Openapi {
        /// Write it to a file instead.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Migrate {
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
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Admin {
    /// Make an administrator; ADMIN_PASSWORD is the password, or one is generated and printed once.
    Create {
        /// E-mail address.
        #[arg(long)]
        email: String,
    },
    /// Give a user a new password and sign them out; ADMIN_PASSWORD is it, or one is generated and printed once.
    ResetPassword {
        /// E-mail address.
        #[arg(long)]
        email: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.leashed {
        std::thread::spawn(leash);
    }
    // Several libraries use rustls; naming the provider once keeps them from guessing.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command.unwrap_or(Command::Serve))));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of reasons is for people; a backtrace of our own calls tells them nothing.
            eprintln!("upbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    if let Command::Openapi { out } = command {
        let document = http::openapi::document(&upbridge_server::API);
        return match out {
            Some(path) => std::fs::write(&path, document).with_context(|| path.display().to_string()),
            None => print(&document),
        };
    }
    if let Command::Queue(queue) = command {
        return queue.run().await;
    }
    if let Command::Integrations(integrations) = command {
        return integrations.run().await;
    }
    if let Command::Creatorup { command } = command {
        return creatorup::command::run(command.unwrap_or(creatorup::command::Command::Serve)).await;
    }
    if let Command::Demo(demo) = command {
        return demo.run().await;
    }
    if let Command::Sign(command) = command {
        return print(&sign::sign(&command, chrono::Utc::now().timestamp())?);
    }
    let config = Config::load()?;
    match command {
        Command::Serve => serve(config).await,
        Command::Migrate(migrate) => migrate_database(&config, migrate).await,
        Command::Admin(admin) => {
            with_hub(&config, async |hub| {
                let password = config.admin_password.as_ref().map(|password| password.expose());
                let made = match &admin {
                    Admin::Create { email } => hub.create_admin(email, password).await?,
                    Admin::ResetPassword { email } => hub.reset_password(email, password).await?,
                };
                eprintln!("done: {}", made.email);
                made.generated_password.map_or(Ok(()), |password| print(&password))
            })
            .await
        }
        Command::Seed(seed) => with_hub(&config, async |hub| seed.run(hub).await).await,
        Command::RebuildUsage => {
            // One transaction, as long as the ledger is.
            let config = Config { patience: std::time::Duration::MAX, ..config };
            with_hub(&config, async |hub| {
                let sums = hub.rebuild_sums().await?;
                eprintln!("{sums} monthly sums made from the ledger");
                Ok(())
            })
            .await
        }
        Command::DbStatus(status) => status.run(&config.store_options()).await,
        Command::Openapi { .. }
        | Command::Queue(_)
        | Command::Integrations(_)
        | Command::Creatorup { .. }
        | Command::Demo(_)
        | Command::Sign(_) => {
            unreachable!("answered above, without a configuration")
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let guard = telemetry::start_logging(&config.log, &["upbridge"]).context("LOG_DIR cannot be written")?;
    let listener = serve::listen(config.host, config.port)?;
    let shutdown = serve::stop_on_signal();
    let served = upbridge_server::run(config, Arc::new(SystemClock), listener, shutdown).await;
    drop(guard);
    served
}

/// Ends the process with its standard input. What was answered is on disk, so there is nothing to be done first.
fn leash() {
    drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    std::process::exit(0);
}

async fn migrate_database(config: &Config, migrate: Migrate) -> anyhow::Result<()> {
    let options = config.store_options();
    match migrate {
        Migrate::Up => {
            storage::migrate(&options, Direction::Up).await?;
            eprintln!("the schema is up to date");
        }
        Migrate::Down { yes: false, .. } => {
            anyhow::bail!("undoing migrations deletes their data; add --yes to confirm")
        }
        Migrate::Down { steps, .. } => {
            storage::migrate(&options, Direction::Down(steps)).await?;
            eprintln!("{steps} migrations undone");
        }
        Migrate::Status { json } => {
            let standings = storage::migration_status(&options).await?;
            if json {
                let list: Vec<_> = standings
                    .iter()
                    .map(|one| serde_json::json!({ "name": one.name, "applied": one.applied }))
                    .collect();
                return print(&serde_json::to_string_pretty(&list)?);
            }
            for one in standings {
                print(&format!("{} {}", if one.applied { "applied" } else { "pending" }, one.name))?;
            }
        }
    }
    Ok(())
}

/// Runs a command on the hub's domain, without serving.
async fn with_hub(config: &Config, work: impl AsyncFnOnce(&Hub) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let hub = upbridge_server::open(config, Arc::new(SystemClock), stop.clone()).await?;
    let done = work(&hub).await;
    stop.cancel();
    hub.store().close().await;
    done
}
