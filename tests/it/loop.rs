//! The loop between two real servers: `upbridge` and `creatorup`, each with a database of its own, and a wire between
//! them that a test can cut.
//!
//! [`pair`] starts, kills and restarts them, [`relay`] is the wire. The flows of the products' documents are in
//! [`flows`], days on which something is away in [`bad_days`] and [`kills`], what the documents print in [`printed`],
//! real videos in [`video`], and the demo, which is the same loop for people, in [`demo`].

mod bad_days;
mod demo;
mod flows;
mod kills;
mod pair;
mod printed;
mod relay;
mod video;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::within;

/// Asks until the answer is yes. After an outage the next try waits in proportion to it, and videos take their time on
/// a machine that does something else as well.
async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(120), what, holds).await;
}

/// Makes a second of a tiny video with sound.
fn film(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i"]);
    command.args([
        "testsrc=duration=1:size=160x120:rate=10",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=1",
        "-c:v",
        "libx264",
    ]);
    command.args(["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", "-f", "mp4"]).arg(path);
    assert!(command.status().unwrap().success());
}
