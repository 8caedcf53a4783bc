//! One input becomes a rendition and a thumbnail.
//!
//! Both are written to a temporary name, flushed to disk, and renamed: a name without `.part` is a whole file. A second
//! run of the same input, after a crash, writes under a temporary name of its own and replaces what is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::child::{Child, Failure};
use super::probe::{self, Video};
use super::tools::Tools;

/// Height of a rendition.
const HEIGHT: u64 = 720;

/// What to render, and where to.
pub struct Order<'a> {
    /// The input.
    pub input: &'a Path,
    /// The directory that is written to.
    pub directory: &'a Path,
    /// Its name below the media root.
    pub name: &'a str,
    /// What the files begin with.
    pub stem: String,
    /// Tells runs of the same order apart.
    pub run: i64,
    /// How long all of it may take.
    pub limit: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// What the input was.
    pub source: Video,
    /// The rendition, below the media root.
    pub rendition: String,
    /// What it is.
    pub video: Video,
    /// The thumbnail, below the media root.
    pub thumbnail: String,
    /// Its size in bytes.
    pub thumbnail_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Rendered {
    /// As it is kept in a batch's metadata, beside the input's name.
    pub fn json(&self, input: &str) -> Value {
        let millis = |seconds: f64| (seconds * 1_000.0).round() / 1_000.0;
        json!({
            "input": input,
            "duration_seconds": millis(self.source.duration_seconds),
            "width": self.source.width,
            "height": self.source.height,
            "size_bytes": self.source.size_bytes,
            "video_codec": self.source.video_codec,
            "audio_codec": self.source.audio_codec,
            "rendition": {
                "path": self.rendition,
                "duration_seconds": millis(self.video.duration_seconds),
                "width": self.video.width,
                "height": self.video.height,
                "size_bytes": self.video.size_bytes,
                "video_codec": self.video.video_codec,
                "audio_codec": self.video.audio_codec,
            },
            "thumbnail": { "path": self.thumbnail, "size_bytes": self.thumbnail_bytes },
            "processing_seconds": millis(self.took.as_secs_f64()),
        })
    }
}

/// Renders, and tells how much is done, from 0 to 1, as it goes on.
pub async fn render(tools: &Tools, order: &Order<'_>, told: impl FnMut(f64) + Send) -> Result<Rendered, Failure> {
    let begun = Instant::now();
    let left = || order.limit.saturating_sub(begun.elapsed());
    let late = |failure| match failure {
        // What is left of the time is nobody's business; how much there was is.
        Failure::TimedOut(_) => Failure::TimedOut(order.limit),
        other => other,
    };
    let source = probe::probe(tools, order.input, left()).await.map_err(late)?;
    let rendition = Part::new(order, "720p.mp4");
    transcode(tools, order.input, &source, &rendition.part, left(), told).await.map_err(late)?;
    let video = probe::probe(tools, &rendition.part, left()).await.map_err(late)?;
    let thumbnail = Part::new(order, "thumbnail.jpg");
    picture(tools, &rendition.part, &thumbnail.part, left()).await.map_err(late)?;
    let thumbnail_bytes = thumbnail.finish().await?;
    rendition.finish().await?;
    Ok(Rendered {
        source,
        rendition: format!("{}/{}", order.name, rendition.name),
        video,
        thumbnail: format!("{}/{}", order.name, thumbnail.name),
        thumbnail_bytes,
        took: begun.elapsed(),
    })
}

async fn transcode(
    tools: &Tools,
    input: &Path,
    source: &Video,
    output: &Path,
    limit: Duration,
    mut told: impl FnMut(f64) + Send,
) -> Result<(), Failure> {
    let mut arguments = head(limit);
    arguments.extend(probe::open(input));
    let pictures = format!("0:{}", source.stream);
    let size = format!("scale=-2:{HEIGHT},setsar=1");
    let options = [
        "-map",
        &pictures,
        "-map",
        "0:a:0?",
        "-sn",
        "-dn",
        "-map_metadata",
        "-1",
        "-vf",
        &size,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        "23",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        "-b:a",
        "128k",
        "-ac",
        "2",
        "-movflags",
        "+faststart",
        "-progress",
        "pipe:1",
        "-nostats",
        "-f",
        "mp4",
    ];
    arguments.extend(options.iter().map(OsString::from));
    arguments.push(file(output));
    let child = Child { program: &tools.ffmpeg, arguments, library_path: tools.library_path.as_ref(), limit };
    child
        .lines(|line| {
            let micros = line.strip_prefix("out_time_us=").and_then(|micros| micros.parse::<f64>().ok());
            if let Some(micros) = micros.filter(|_| source.duration_seconds > 0.0) {
                told((micros / 1e6 / source.duration_seconds).clamp(0.0, 1.0));
            }
        })
        .await
}

/// A picture of the rendition, which is known to be good, that looks like the others around it.
async fn picture(tools: &Tools, rendition: &Path, output: &Path, limit: Duration) -> Result<(), Failure> {
    let mut arguments = head(limit);
    arguments.extend(probe::open(rendition));
    let options = [
        "-map",
        "0:v:0",
        "-vf",
        "thumbnail=50,scale=-2:360,format=yuvj420p",
        "-frames:v",
        "1",
        "-c:v",
        "mjpeg",
        "-q:v",
        "4",
        "-f",
        "mjpeg",
    ];
    arguments.extend(options.iter().map(OsString::from));
    arguments.push(file(output));
    let child = Child { program: &tools.ffmpeg, arguments, library_path: tools.library_path.as_ref(), limit };
    child.output().await.map(drop)
}

/// The limit is told as well, as processor time on all cores: should CreatorUp be killed, nobody else would end it.
fn head(limit: Duration) -> Vec<OsString> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let seconds = (limit.as_secs().max(1) * cores).to_string();
    let arguments = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-timelimit", &seconds];
    arguments.iter().map(OsString::from).collect()
}

fn file(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// A file that is being made. It is removed when it is dropped before it is finished.
struct Part {
    name: String,
    part: PathBuf,
    whole: PathBuf,
}

impl Part {
    fn new(order: &Order<'_>, ending: &str) -> Part {
        let name = format!("{}-{ending}", order.stem);
        let part = order.directory.join(format!("{name}.{}.part", order.run));
        let whole = order.directory.join(&name);
        Part { name, part, whole }
    }

    /// Gives it its name, once its content is on disk; answers with its size.
    async fn finish(&self) -> std::io::Result<u64> {
        let file = tokio::fs::File::open(&self.part).await?;
        file.sync_all().await?;
        let size = file.metadata().await?.len();
        tokio::fs::rename(&self.part, &self.whole).await?;
        Ok(size)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After it was finished there is nothing under this name.
        drop(std::fs::remove_file(&self.part));
    }
}

/// Removes what runs that were killed have left in a directory.
pub async fn sweep(directory: &Path) -> std::io::Result<()> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.path().extension().is_some_and(|extension| extension == "part") {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}
