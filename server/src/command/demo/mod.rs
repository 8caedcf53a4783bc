//! `upbridge demo`: the hub and a CreatorUp, started on an empty machine and seen at work.
//!
//! The cast: [`servers`] starts both as processes of this very program and sees to it that they end with it; [`people`]
//! are those who use them; [`peer`] is the hand that calls CreatorUp as its users do; [`film`] makes tiny videos;
//! [`act`] is the story, a step after the other; [`stage`] tells it; [`figures`] are the numbers at its end.
//!
//! Nothing of it touches the data of a hub that is there already: directory, databases, ports and secrets are its own.

mod act;
mod figures;
mod film;
mod peer;
mod people;
mod servers;
mod stage;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use super::print;
use figures::Figures;
use servers::Servers;
use stage::Stage;

const EXAMPLES: &str = "\
Examples:
  upbridge demo                    # the whole story, in under a minute
  upbridge demo --keep             # and then go on by yourself: prints addresses, tokens and grpcurl lines
  upbridge demo --json | jq .usage # the figures for programs; the story goes to standard error

It needs nothing but this program. With ffmpeg (Debian: apt-get install ffmpeg) real videos are made and rendered;
without it the demo says which steps are left out. It ends with code 0 when both sides agree on what was used.";

/// How long anything in the story may take before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the hub and CreatorUp at work, on databases in a temporary directory and free ports, and with no setup.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// Print the figures as one JSON object; the story goes to standard error.
    #[arg(long)]
    json: bool,
    /// Leave the servers running and the directory in place, and print how to use them and how to end them.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Tells the story. Whatever ends it ends the servers as well, unless they are to be kept.
    pub async fn run(self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut stage = Stage::new(self.json);
        let mut servers = Servers::prepare(self.keep)?;
        stage
            .title(&format!("Upbridge demo: a hub, a CreatorUp and their users, in {}", servers.directory().display()));
        let played = tokio::select! {
            played = act::play(&mut servers, &mut stage) => played,
            () = upbridge_service::serve::stop_signal() => Err(anyhow::anyhow!("interrupted; the servers were ended")),
            () = hung_up() => Err(anyhow::anyhow!("the terminal was closed; the servers were ended")),
        };
        let (figures, people) = match played {
            Ok(played) => played,
            Err(error) => {
                stage.clear();
                servers.explain();
                return Err(error);
            }
        };
        let took = begun.elapsed();
        let kept = self.keep.then(|| servers.keep(&people)).transpose()?;
        if self.json {
            print(&serde_json::to_string_pretty(&figures.json(took, kept.as_ref().map(|kept| kept.json())))?)?;
        } else {
            print(&figures.table(took, stage.paint()))?;
            if let Some(kept) = &kept {
                print(&kept.text())?;
            }
        }
        verdict(&figures)
    }
}

/// Ends when the terminal is closed: nobody is there to whom the story could go on being told.
async fn hung_up() {
    #[cfg(unix)]
    if let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        hangup.recv().await;
        return;
    }
    std::future::pending().await
}

fn verdict(figures: &Figures) -> anyhow::Result<()> {
    if !figures.agree() {
        bail!("the two sides do not agree");
    }
    Ok(())
}

/// Asks until there is an answer.
async fn until<T>(
    what: impl std::fmt::Display,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let mut tick = tokio::time::interval(Duration::from_millis(25));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let begun = Instant::now();
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if begun.elapsed() > PATIENCE {
            bail!("in {} seconds this did not happen: {what}", PATIENCE.as_secs());
        }
    }
}
