//! The media root: the one directory that inputs are read from and renditions are written to.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::model::media::MediaPath;

/// Below the root, where what is made is put: a directory for each batch.
const RENDITIONS: &str = "renditions";

/// The media root, with every symbolic link in its own path followed.
#[derive(Clone, Debug)]
pub struct MediaRoot(PathBuf);

impl MediaRoot {
    /// Makes the directory when it is missing.
    pub fn open(path: &Path) -> io::Result<MediaRoot> {
        std::fs::create_dir_all(path)?;
        path.canonicalize().map(MediaRoot)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of that name. The error says why there is none, and nothing about what lies outside.
    pub async fn find(&self, name: &MediaPath) -> Result<PathBuf, &'static str> {
        const MISSING: &str = "is no file below the media root";
        let path = tokio::fs::canonicalize(self.0.join(name.as_str())).await.map_err(|_| MISSING)?;
        // A link that leads out is treated as if it led nowhere.
        if !path.starts_with(&self.0) {
            return Err(MISSING);
        }
        // A pipe or a device would be read for ever.
        let is_file = tokio::fs::metadata(&path).await.is_ok_and(|found| found.is_file());
        is_file.then_some(path).ok_or(MISSING)
    }

    /// Where a batch's renditions are put, made when it is missing, and its name below the root.
    pub async fn renditions(&self, batch_id: Uuid) -> io::Result<(PathBuf, String)> {
        let name = format!("{RENDITIONS}/{batch_id}");
        let directory = self.0.join(&name);
        tokio::fs::create_dir_all(&directory).await?;
        // Somebody may have put a link in its place.
        let found = tokio::fs::canonicalize(&directory).await?;
        if found != directory {
            return Err(io::Error::other(format!("{RENDITIONS} leads out of the media root")));
        }
        Ok((directory, name))
    }

    /// The text without the path of the root, which is nobody's business.
    pub fn hide(&self, text: &str) -> String {
        let root = self.0.to_string_lossy();
        let text =
            text.replace(&format!("file:{root}/"), "").replace(&format!("{root}/"), "").replace(root.as_ref(), "");
        // ffmpeg says where in memory its parts are: `[hls @ 0x55578dd01280]`.
        let mut parts = text.split(" @ 0x");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |told, part| told + part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn find(root: &MediaRoot, name: &str) -> Option<PathBuf> {
        root.find(&MediaPath::parse(name).unwrap()).await.ok()
    }

    #[tokio::test]
    async fn a_file_below_the_root_is_found_and_what_a_link_leads_to_outside_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("media"), directory.path().join("outside.mp4"));
        let root = MediaRoot::open(&inside).unwrap();
        std::fs::create_dir(inside.join("ana")).unwrap();
        std::fs::write(inside.join("ana/a.mp4"), "x").unwrap();
        std::fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("out.mp4")).unwrap();
        std::os::unix::fs::symlink(directory.path(), inside.join("up")).unwrap();
        std::os::unix::fs::symlink(inside.join("ana/a.mp4"), inside.join("in.mp4")).unwrap();
        let file = inside.canonicalize().unwrap().join("ana/a.mp4");
        assert_eq!(find(&root, "ana/a.mp4").await, Some(file.clone()));
        assert_eq!(find(&root, "in.mp4").await, Some(file));
        for bad in ["out.mp4", "up/outside.mp4", "ana", "missing.mp4"] {
            assert_eq!(find(&root, bad).await, None, "{bad}");
        }
    }

    #[tokio::test]
    async fn renditions_are_not_written_through_a_link() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = MediaRoot::open(inside.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join(RENDITIONS)).unwrap();
        assert!(root.renditions(Uuid::now_v7()).await.is_err());
    }

    #[test]
    fn the_path_of_the_root_is_taken_out_of_messages() {
        let directory = tempfile::tempdir().unwrap();
        let root = MediaRoot::open(directory.path()).unwrap();
        let text = format!("file:{}/a.mp4: Invalid data", root.path().display());
        assert_eq!(root.hide(&text), "a.mp4: Invalid data");
        assert_eq!(root.hide("[hls @ 0x55578dd01280] bad [x @ 0x1] @ noon"), "[hls] bad [x] @ noon");
    }
}
