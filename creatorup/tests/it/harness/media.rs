//! Videos for tests, made by ffmpeg itself.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether ffmpeg is there; when it is not, says which test does not run and why. Nobody sees that, because what a
/// passing test prints is not shown: `TEST_REQUIRE` names programs, separated by commas, that must be there.
pub fn ffmpeg(test: &str) -> bool {
    let there = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok_and(|status| status.success());
    if !there {
        let required = std::env::var("TEST_REQUIRE").unwrap_or_default();
        let is_required = required.split(',').any(|name| name.trim() == "ffmpeg");
        assert!(!is_required, "TEST_REQUIRE names ffmpeg, but {test} needs it and it is not on PATH");
        eprintln!("skipped: {test}: ffmpeg is not installed (Debian package `ffmpeg`)");
    }
    there
}

fn make(path: &Path, picture: &str, options: &[&str]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", picture]).args(options);
    command.arg(format!("file:{}", path.display()));
    assert!(command.status().expect("ffmpeg runs").success());
}

/// A second of a tiny video with sound.
pub fn video(path: &Path) {
    make(
        path,
        "testsrc=duration=1:size=160x120:rate=10",
        &[
            "-f",
            "lavfi",
            "-i",
            "sine=duration=1",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
            "-f",
            "mp4",
        ],
    );
}

/// A video that takes minutes to render and a moment to make.
pub fn long_video(path: &Path) {
    make(path, "color=duration=1800:size=16x16:rate=25", &["-c:v", "mpeg4", "-q:v", "31", "-f", "mp4"]);
}
