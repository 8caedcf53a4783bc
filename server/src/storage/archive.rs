//! Where rows go before they are removed: a gzip file a table and day, an object a line.
//!
//! Each batch is a gzip member of its own, appended and on the disk before its rows are removed; members after each
//! other are a gzip file like any other. Rows of a batch that is archived and whose removal fails are archived once
//! more with the next: an archive may hold a row twice, and misses none.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::dialect::create_private_directory;
use crate::model::retention::Table;
use crate::model::{Error, Instant, Json, Result};

/// Appends rows to the archive of a table, and waits until they are on the disk.
pub async fn append(directory: &Path, table: Table, rows: Vec<Json>, now: Instant) -> Result<()> {
    let path = directory.join(format!("{}-{}.jsonl.gz", table.as_str(), now.format("%Y-%m-%d")));
    let directory = directory.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&directory, &path, &rows)).await;
    let written = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    written.map_err(|error| Error::unavailable(format!("the archive cannot be written: {error}")))
}

fn write(directory: &Path, path: &PathBuf, rows: &[Json]) -> std::io::Result<()> {
    create_private_directory(directory)?;
    let mut member = GzEncoder::new(Vec::new(), Compression::default());
    for row in rows {
        serde_json::to_writer(&mut member, row)?;
        member.write_all(b"\n")?;
    }
    let member = member.finish()?;
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let length = file.metadata()?.len();
    let written = file.write_all(&member).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a member would make the rest of the file unreadable.
        file.set_len(length)?;
        return written;
    }
    // A new file is on the disk when its name is, too.
    File::open(directory)?.sync_all()
}
