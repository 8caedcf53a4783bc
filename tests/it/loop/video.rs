//! A real video goes in, a playable one comes out, and the hub's administrator sees that it was used.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use upbridge_client::v1;

use super::pair::Pair;
use super::{eventually, film};
use crate::harness::have;

/// What ffprobe reads in a file, all of which it decodes.
fn probed(path: &Path) -> Value {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json"]).arg(path);
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_video_is_rendered_and_its_usage_is_in_the_hubs_analytics_within_a_second() {
    if !have("ffmpeg") || !have("ffprobe") {
        return;
    }
    let pair = Pair::start().await;
    let member = pair.member(Some(2)).await;
    pair.enter(&member).await;
    film(&pair.media().join("holiday/beach.mp4"));
    let admin = pair.admin().await;
    let applied = async || {
        let seen = admin.analytics().get_sync_analytics(v1::GetSyncAnalyticsRequest::default()).await;
        let seen = seen.expect("analytics").into_inner();
        let usage = seen.usage.unwrap_or_default();
        (seen.webhooks.unwrap_or_default().processed, usage.total_records, usage.total_amount)
    };
    let mut quickest = Duration::MAX;
    for round in 1..=3 {
        let created = pair.create(&member, &format!("beach-{round}"), &["holiday/beach.mp4"]).await;
        let id = created["batch"]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/batch/{id}");
        pair.data(&member.token, "/api/v1/video/process", Some(&json!({ "batch_id": id }))).await;
        let batch = pair.over(&member, &id).await;
        assert_eq!(batch["status"], "completed", "{batch}");
        let completed = Instant::now();
        eventually("its usage is in the analytics", async || applied().await == (round, round, round)).await;
        quickest = quickest.min(completed.elapsed());
        eprintln!("in the hub's analytics {:?} after completion was seen", completed.elapsed());

        let video = &pair.data(&member.token, &path, None).await["batch"]["metadata"]["videos"][0];
        assert_eq!((&video["input"], &video["video_codec"]), (&json!("holiday/beach.mp4"), &json!("h264")));
        let rendition = pair.media().join(video["rendition"]["path"].as_str().unwrap());
        let found = probed(&rendition);
        let stream = |kind: &str| {
            let streams = found["streams"].as_array().unwrap().iter();
            streams.filter(|stream| stream["codec_type"] == *kind).collect::<Vec<_>>()
        };
        let (pictures, sound) = (stream("video"), stream("audio"));
        assert_eq!((pictures.len(), sound.len()), (1, 1), "{found}");
        assert_eq!((&pictures[0]["codec_name"], &pictures[0]["height"]), (&json!("h264"), &json!(720)));
        assert_eq!((&pictures[0]["width"], &pictures[0]["nb_read_frames"]), (&json!(960), &json!("10")));
        assert_eq!(sound[0]["codec_name"], "aac");
        let size = std::fs::metadata(&rendition).unwrap().len();
        assert_eq!(video["rendition"]["size_bytes"].as_u64(), Some(size));
        let picture = probed(&pair.media().join(video["thumbnail"]["path"].as_str().unwrap()));
        assert_eq!(picture["streams"][0]["codec_name"], "mjpeg");
    }
    // A machine that does something else as well may be late now and then, and not each time.
    assert!(quickest < Duration::from_secs(1), "the quickest of three took {quickest:?}");
    assert_eq!(pair.agree(&member).await, (3, 3));
}
