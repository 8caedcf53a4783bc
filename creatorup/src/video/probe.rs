//! What a video is, as ffprobe tells it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::child::{Child, Failure};
use super::tools::Tools;

/// The widest and highest picture that is taken; what is larger costs more memory than a video is worth.
const LARGEST: u64 = 8_192;
/// How much longer than wide a picture may be, and the other way round.
const LONGEST_SIDE: u64 = 10;
/// The demuxers that are let near an input. Playlists, concatenations and numbered images, which name further files,
/// are not among them.
const FORMATS: &str = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,mxf";

/// A video.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// How long it runs.
    pub duration_seconds: f64,
    /// Width in pixels.
    pub width: u64,
    /// Height in pixels.
    pub height: u64,
    /// The codec of its pictures, such as `h264`.
    pub video_codec: String,
    /// The codec of its sound, when it has any.
    pub audio_codec: Option<String>,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Which stream the pictures are.
    pub stream: u64,
}

/// The arguments that open an input and nothing it names: only files, only these containers, and the file's own name
/// whatever it looks like.
pub(super) fn open(path: &Path) -> Vec<OsString> {
    let mut name = OsString::from("file:");
    name.push(path);
    let options = ["-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-i"];
    options.iter().map(OsString::from).chain([name]).collect()
}

/// Asks ffprobe about a file.
pub async fn probe(tools: &Tools, path: &Path, limit: Duration) -> Result<Video, Failure> {
    let head = ["-v", "error", "-hide_banner", "-print_format", "json", "-show_format", "-show_streams"];
    let arguments = head.iter().map(OsString::from).chain(open(path)).collect();
    let child = Child { program: &tools.ffprobe, arguments, library_path: tools.library_path.as_ref(), limit };
    let size_bytes = tokio::fs::metadata(path).await?.len();
    let said = child.output().await?;
    read(&said, size_bytes).map_err(|what| Failure::Refused(what.to_owned()))
}

fn read(said: &[u8], size_bytes: u64) -> Result<Video, &'static str> {
    let said: Value = serde_json::from_slice(said).map_err(|_| "is no video")?;
    let streams = said["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &str| {
        streams.iter().find(|stream| {
            // The cover of a song is a stream of pictures too.
            stream["codec_type"] == kind && stream["disposition"]["attached_pic"] != 1
        })
    };
    let pictures = of("video").ok_or("has no video stream")?;
    let side = |name: &str| pictures[name].as_u64().filter(|side| (1..=LARGEST).contains(side));
    let (Some(width), Some(height)) = (side("width"), side("height")) else {
        return Err("has pictures of no size, or wider or higher than 8192 pixels");
    };
    if width > LONGEST_SIDE * height || height > LONGEST_SIDE * width {
        return Err("has pictures more than ten times as long as they are wide");
    }
    let seconds = |from: &Value| from["duration"].as_str()?.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let codec = |stream: &Value| stream["codec_name"].as_str().unwrap_or("unknown").to_owned();
    Ok(Video {
        duration_seconds: seconds(&said["format"]).or_else(|| seconds(pictures)).unwrap_or_default().max(0.0),
        width,
        height,
        video_codec: codec(pictures),
        audio_codec: of("audio").map(codec),
        size_bytes,
        stream: pictures["index"].as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(streams: &str) -> Result<Video, &'static str> {
        read(format!(r#"{{"streams": [{streams}], "format": {{"duration": "2.5"}}}}"#).as_bytes(), 7)
    }

    const COVER: &str =
        r#"{"index": 0, "codec_type": "video", "width": 9, "height": 9, "disposition": {"attached_pic": 1}}"#;

    #[test]
    fn a_video_is_its_pictures_and_its_sound() {
        let found = answer(&format!(
            r#"{COVER}, {{"index": 1, "codec_type": "audio", "codec_name": "aac"}},
               {{"index": 2, "codec_type": "video", "codec_name": "vp9", "width": 320, "height": 240}}"#
        ));
        let video = Video {
            duration_seconds: 2.5,
            width: 320,
            height: 240,
            video_codec: "vp9".into(),
            audio_codec: Some("aac".into()),
            size_bytes: 7,
            stream: 2,
        };
        assert_eq!(found, Ok(video));
    }

    #[test]
    fn what_has_no_pictures_of_a_sane_size_is_refused() {
        assert_eq!(answer(COVER), Err("has no video stream"));
        assert!(read(b"no json", 7).is_err() && answer("").is_err());
        for (width, height) in [(0, 1), (9_000, 9_000), (8_000, 10), (10, 8_000)] {
            let stream = format!(r#"{{"codec_type": "video", "width": {width}, "height": {height}}}"#);
            assert!(answer(&stream).is_err(), "{width}x{height}");
        }
    }
}
