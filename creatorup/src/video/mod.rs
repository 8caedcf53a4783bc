//! Videos: the only room that starts ffmpeg and touches media files.
//!
//! The cast: [`MediaRoot`] is the one directory there is; [`tools::Finder`] knows where ffmpeg and ffprobe are; a
//! [`child`] is one run of one of them with a bound on everything; [`probe`] asks what a file is; [`render`] makes a
//! rendition and a thumbnail of it. [`Studio`] is all of it for the rest of the house.
//!
//! Guaranteed:
//! - No input outside the media root is opened, whatever its name looks like or a link says, and no file, stream or
//!   address that an input names.
//! - No shell, no inherited environment, no standard input.
//! - A run ends: by itself, by its time limit, or with the future that waits for it.
//! - A file without `.part` at its end is whole.
//!
//! Not guaranteed: that somebody who may write into the media root cannot exchange a file between the look at it and
//! its opening. Whoever may write there is trusted with what ffmpeg reads.

pub mod child;
pub mod probe;
pub mod render;
pub mod root;
pub mod tools;

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::model::media::MediaPath;
use child::Failure;
use render::{Order, Rendered};
use root::MediaRoot;
use tools::{Finder, Places};

/// Where videos are processed.
pub struct Studio {
    root: MediaRoot,
    finder: Finder,
    limit: Duration,
}

/// Why an input was not rendered.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It is the input's fault, and would be again. For people.
    #[error("{0}")]
    Input(String),
    /// It is not the input's fault, and may be better later. For people.
    #[error("{0}")]
    Passing(String),
}

impl Studio {
    /// Opens the media root. Each input may take `limit`.
    pub fn open(root: &Path, places: Places, limit: Duration) -> std::io::Result<Studio> {
        Ok(Studio { root: MediaRoot::open(root)?, finder: Finder::new(places), limit })
    }

    /// What ffmpeg calls its version, or what is missing, for people.
    pub async fn version(&self) -> Result<String, String> {
        self.finder.tools().await.map(|tools| tools.version)
    }

    /// Whether there is a file of that name; the error says why not.
    pub async fn look(&self, input: &MediaPath) -> Result<(), &'static str> {
        self.root.find(input).await.map(drop)
    }

    /// Prepares the directory of a batch: what an earlier run left half done is removed.
    pub async fn prepare(&self, batch_id: Uuid) -> Result<(), Trouble> {
        let prepared = async { render::sweep(&self.root.renditions(batch_id).await?.0).await };
        prepared.await.map_err(|error| Trouble::Passing(format!("the media root cannot be written: {error}")))
    }

    /// Renders the input at place `index` of a batch. `run` tells runs of the same batch apart; `told` hears how much
    /// is done, from 0 to 1.
    pub async fn render(
        &self,
        batch_id: Uuid,
        index: usize,
        input: &MediaPath,
        run: i64,
        told: impl FnMut(f64) + Send,
    ) -> Result<Rendered, Trouble> {
        let tools = self.finder.tools().await.map_err(Trouble::Passing)?;
        let path = self.root.find(input).await.map_err(|what| Trouble::Input(what.to_owned()))?;
        let unwritable = |error| Trouble::Passing(format!("the media root cannot be written: {error}"));
        let (directory, name) = self.root.renditions(batch_id).await.map_err(unwritable)?;
        let order = Order {
            input: &path,
            directory: &directory,
            name: &name,
            stem: format!("{:03}", index + 1),
            run,
            limit: self.limit,
        };
        render::render(&tools, &order, told).await.map_err(|failure| match failure {
            Failure::Io(error) => Trouble::Passing(self.root.hide(&error.to_string())),
            killed @ Failure::Killed(_) => Trouble::Passing(format!("ffmpeg {killed}")),
            late @ Failure::TimedOut(_) => Trouble::Input(late.to_string()),
            Failure::Refused(said) => Trouble::Input(self.root.hide(&said)),
        })
    }
}
