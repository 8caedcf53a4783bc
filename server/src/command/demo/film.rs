//! Tiny videos, made out of nothing by ffmpeg.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use creatorup::video::tools::{Finder, Places, Tools};
use upbridge_service::config::inherited;

/// What CreatorUp is told of where ffmpeg is, and this process's own films are made with.
pub const TOOLS: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "FFMPEG_PATH"];

/// The videos there will be: a name, and the picture it shows.
const FILMS: [(&str, &str); 3] = [("harbour.mp4", "testsrc"), ("market.mp4", "testsrc2"), ("garden.mp4", "smptebars")];

/// ffmpeg, or what to install.
pub async fn tools() -> Result<Tools, String> {
    let found = inherited(&TOOLS);
    let take = |name: &str| found.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let places = Places {
        given: take("FFMPEG_PATH").map(PathBuf::from),
        path: take("PATH").unwrap_or_default(),
        library_path: take("LD_LIBRARY_PATH"),
    };
    Finder::new(places).tools().await
}

/// Makes the videos in a directory; answers with their names. Each has a second of picture and sound.
pub async fn make(tools: &Tools, directory: &Path) -> anyhow::Result<Vec<String>> {
    tokio::fs::create_dir_all(directory).await?;
    for (name, picture) in FILMS {
        let picture = format!("{picture}=duration=1:size=320x180:rate=24");
        let mut command = tokio::process::Command::new(&tools.ffmpeg);
        command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", &picture]);
        command.args(["-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-c:v", "libx264", "-preset", "ultrafast"]);
        command.args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", "-f", "mp4"]).arg(directory.join(name));
        if let Some(path) = &tools.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let made = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("ffmpeg cannot be run")?;
        if !made.status.success() {
            bail!("ffmpeg could not make {name}: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
    }
    Ok(FILMS.iter().map(|(name, _)| (*name).to_owned()).collect())
}
