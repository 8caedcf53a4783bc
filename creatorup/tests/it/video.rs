//! Videos, with the real ffmpeg.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tonic::Code;
use upbridge_client::v1::AccessReason;
use upbridge_proto::creatorup::v1::{
    Batch, BatchStatus, CancelBatchRequest, CreateBatchRequest, ProcessVideoRequest, ProcessVideoResponse,
};

use crate::harness::{Setup, TestCreatorUp, ffmpeg, long_video, video};

async fn create(creatorup: &TestCreatorUp, token: &str, inputs: &[&str]) -> Batch {
    let asked = CreateBatchRequest {
        name: "wedding".into(),
        inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
        ..CreateBatchRequest::default()
    };
    creatorup.api(token).await.batches().create_batch(asked).await.unwrap().into_inner().batch.unwrap()
}

async fn process(creatorup: &TestCreatorUp, token: &str, batch: &Batch) -> Result<ProcessVideoResponse, tonic::Status> {
    let asked = ProcessVideoRequest { batch_id: batch.id.clone() };
    creatorup.api(token).await.batches().process_video(asked).await.map(tonic::Response::into_inner)
}

/// A batch's metadata as JSON.
async fn metadata(creatorup: &TestCreatorUp, token: &str, batch: &Batch) -> Value {
    creatorup.as_user(token, &format!("/api/v1/batch/{}", batch.id), None).await.1["data"]["batch"]["metadata"].clone()
}

/// What ffprobe says of a file: codec, width and height of its pictures.
fn probed(path: &Path) -> String {
    let asked = ["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=codec_name,width,height", "-of"];
    let said = Command::new("ffprobe").args(asked).arg("csv=p=0").arg(path).output().expect("ffprobe runs");
    assert!(said.status.success(), "{path:?} cannot be played");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_goes_in_and_a_playable_rendition_comes_out_and_the_hub_hears_of_the_real_work() {
    if !ffmpeg("a rendition") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    // Names that a shell, an option parser, a protocol or a pattern of images would misread.
    let names = ["-i.mp4", "concat:a|b.mp4", "http:x/%d $(id).mp4"];
    for name in names {
        video(&creatorup.media().join(name));
    }
    let batch = create(&creatorup, &token, &names).await;
    assert_eq!(creatorup.hub().entry(&batch.id).unwrap().amount, 3);
    let begun = process(&creatorup, &token, &batch).await.unwrap().batch.unwrap();
    assert_eq!(begun.status(), BatchStatus::Processing);
    let again = process(&creatorup, &token, &batch).await.unwrap().batch.unwrap();
    assert_eq!(again.id, batch.id, "asking twice begins once");
    let done = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!((done.status(), done.progress, done.error.as_deref()), (BatchStatus::Completed, 100, None));
    let told = metadata(&creatorup, &token, &batch).await;
    let videos = told["videos"].as_array().unwrap();
    assert_eq!((videos.len(), &told["video_count"]), (3, &json!(3)));
    for (made, name) in videos.iter().zip(names) {
        assert_eq!(
            (&made["input"], &made["video_codec"], &made["audio_codec"]),
            (&json!(name), &json!("h264"), &json!("aac"))
        );
        assert_eq!((&made["width"], made["duration_seconds"].as_f64()), (&json!(160), Some(1.0)));
        let rendition = creatorup.media().join(made["rendition"]["path"].as_str().unwrap());
        assert_eq!(probed(&rendition), "h264,960,720");
        assert_eq!(json!(std::fs::metadata(&rendition).unwrap().len()), made["rendition"]["size_bytes"]);
        let thumbnail = creatorup.media().join(made["thumbnail"]["path"].as_str().unwrap());
        assert_eq!(probed(&thumbnail), "mjpeg,480,360");
    }
    let directory = creatorup.media().join(format!("renditions/{}", batch.id));
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 6, "nothing half done is left");
    // The hub.
    creatorup.hub().until("the hub hears", |hub| hub.entry(&batch.id).is_some_and(|entry| entry.completed)).await;
    let entry = creatorup.hub().entry(&batch.id).unwrap();
    assert_eq!((entry.user_id, entry.amount, &entry.month), (member.id, 3, &done.month_year));
    assert_eq!(entry.metadata.unwrap()["video_count"], 3);
    creatorup.batch_once(&token, &batch.id, |batch| batch.usage_reported).await;
    assert_eq!(creatorup.hub().webhooks().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_are_no_videos_fail_the_batch_and_what_was_rendered_counts() {
    if !ffmpeg("poison inputs") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let media = creatorup.media();
    video(&media.join("good.mp4"));
    let outside = creatorup.database().directory.path().join("secret.txt");
    std::fs::write(&outside, "secret").unwrap();
    let poison = [
        ("text.mp4", "this is no video".to_owned()),
        ("empty.mp4", String::new()),
        ("playlist.mp4", format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{}\n", outside.display())),
        ("list.ffconcat", format!("ffconcat version 1.0\nfile '{}'\n", media.join("good.mp4").display())),
    ];
    for (name, content) in &poison {
        std::fs::write(media.join(name), content).unwrap();
    }
    let batch =
        create(&creatorup, &token, &["text.mp4", "empty.mp4", "good.mp4", "playlist.mp4", "list.ffconcat"]).await;
    process(&creatorup, &token, &batch).await.unwrap();
    let failed = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!((failed.status(), failed.usage_amount), (BatchStatus::Failed, 1));
    assert!(failed.error().starts_with("text.mp4: ") && failed.error().ends_with("(and 3 more)"), "{}", failed.error());
    let told = metadata(&creatorup, &token, &batch).await;
    assert!(
        !told.to_string().contains(media.to_str().unwrap()),
        "where the media root is, is nobody's business: {told}"
    );
    let tried: Vec<bool> = told["videos"].as_array().unwrap().iter().map(|video| video["error"].is_null()).collect();
    assert_eq!(tried, [false, false, true, false, false]);
    creatorup.hub().until("the hub hears", |hub| hub.entry(&batch.id).is_some_and(|entry| entry.amount == 1)).await;
    assert!(!creatorup.hub().entry(&batch.id).unwrap().completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_input_leads_out_of_the_media_root() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let (media, outside) = (creatorup.media(), creatorup.database().directory.path().join("outside.mp4"));
    std::fs::write(&outside, "x").unwrap();
    symlink(&outside, media.join("link.mp4")).unwrap();
    symlink("/", media.join("root")).unwrap();
    std::fs::create_dir(media.join("directory")).unwrap();
    let absolute = outside.display().to_string();
    let escapes = [
        absolute.as_str(),
        "../outside.mp4",
        "directory/../../outside.mp4",
        "link.mp4",
        "root/etc/passwd",
        "/etc/passwd",
        "directory",
        "missing.mp4",
        "",
        "file:/etc/passwd",
        "a\u{0}b",
    ];
    for input in escapes {
        let asked =
            CreateBatchRequest { name: "x".into(), inputs: vec![input.into()], ..CreateBatchRequest::default() };
        let refused = creatorup.api(&token).await.batches().create_batch(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{input:?}");
        assert_eq!(upbridge_client::field_violations(&refused)[0].0, "inputs[0]", "{input:?}");
    }
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM batches").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_became_a_way_out_meanwhile_is_not_opened() {
    if !ffmpeg("an input that is exchanged") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let (inside, outside) =
        (creatorup.media().join("a.mp4"), creatorup.database().directory.path().join("outside.mp4"));
    video(&outside);
    video(&inside);
    let batch = create(&creatorup, &token, &["a.mp4"]).await;
    std::fs::remove_file(&inside).unwrap();
    symlink(&outside, &inside).unwrap();
    process(&creatorup, &token, &batch).await.unwrap();
    let failed = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!(failed.error(), "a.mp4: is no file below the media root");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_ffmpeg_and_leaves_nothing_half_done() {
    if !ffmpeg("cancellation") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    long_video(&creatorup.media().join("long.mp4"));
    let batch = create(&creatorup, &token, &["long.mp4"]).await;
    process(&creatorup, &token, &batch).await.unwrap();
    creatorup.batch_once(&token, &batch.id, |batch| batch.progress > 0).await;
    assert!(!creatorup.process.children().is_empty(), "ffmpeg runs");
    let cancel = CancelBatchRequest { batch_id: batch.id.clone() };
    let cancelled =
        creatorup.api(&token).await.batches().cancel_batch(cancel).await.unwrap().into_inner().batch.unwrap();
    assert_eq!(cancelled.status(), BatchStatus::Cancelled);
    let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
    let directory = creatorup.media().join(format!("renditions/{}", batch.id));
    let gone = async {
        while !creatorup.process.children().is_empty() || std::fs::read_dir(&directory).unwrap().count() > 0 {
            look.tick().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, gone).await.expect("it is stopped, and its file removed");
    creatorup.hub().until("the hub hears", |hub| hub.webhooks().len() == 1).await;
    assert_eq!(creatorup.batch_over(&token, &batch.id).await.status(), BatchStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_takes_too_long_fails() {
    if !ffmpeg("the time limit") {
        return;
    }
    let creatorup = Setup::new().await.set("VIDEO_TIME_LIMIT_SECONDS", "1").start().await;
    let (_, token) = creatorup.hub().member();
    long_video(&creatorup.media().join("long.mp4"));
    let batch = create(&creatorup, &token, &["long.mp4"]).await;
    process(&creatorup, &token, &batch).await.unwrap();
    let failed = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!((failed.status(), failed.error()), (BatchStatus::Failed, "long.mp4: not done within 1 s"));
    assert!(creatorup.process.children().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_where_it_was_after_creatorup_was_killed() {
    if !ffmpeg("a crash") {
        return;
    }
    let mut creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let names: Vec<String> = (0..6).map(|place| format!("{place}.mp4")).collect();
    names.iter().for_each(|name| video(&creatorup.media().join(name)));
    let batch = create(&creatorup, &token, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    process(&creatorup, &token, &batch).await.unwrap();
    creatorup.batch_once(&token, &batch.id, |batch| batch.progress > 16).await;
    let first = creatorup.media().join(format!("renditions/{}/001-720p.mp4", batch.id));
    let made = std::fs::metadata(&first).unwrap().modified().unwrap();
    creatorup.kill_and_start().await;
    let done = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!((done.status(), done.usage_amount), (BatchStatus::Completed, 6));
    assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), made, "what was done is not done again");
    creatorup.hub().until("the hub hears", |hub| hub.entry(&batch.id).is_some_and(|entry| entry.completed)).await;
    assert_eq!(creatorup.hub().entry(&batch.id).unwrap().amount, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_hands_the_batch_back_and_the_next_start_takes_it_up() {
    if !ffmpeg("a stop") {
        return;
    }
    let creatorup = Setup::new().await.set("DRAIN_TIMEOUT_SECONDS", "1").start().await;
    let (_, token) = creatorup.hub().member();
    long_video(&creatorup.media().join("long.mp4"));
    let batch = create(&creatorup, &token, &["long.mp4"]).await;
    process(&creatorup, &token, &batch).await.unwrap();
    creatorup.batch_once(&token, &batch.id, |batch| batch.progress > 0).await;
    let creatorup = creatorup.stop_and_start().await;
    let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
    let taken_up = async {
        while creatorup.process.children().is_empty() {
            look.tick().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, taken_up).await.expect("ffmpeg runs again");
    let rescued = "SELECT COUNT(*) FROM jobs WHERE kind = 'video' AND attempts = 0 AND rescues = 0";
    assert_eq!(creatorup.database().count(rescued).await, 1, "no try was spent");
    let cancel = CancelBatchRequest { batch_id: batch.id.clone() };
    creatorup.api(&token).await.batches().cancel_batch(cancel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_reaches_a_hub_that_was_away() {
    if !ffmpeg("completion while the hub is away") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    video(&creatorup.media().join("a.mp4"));
    let batch = create(&creatorup, &token, &["a.mp4"]).await;
    creatorup.hub().close().await;
    // The hub has counted it, so it may be processed.
    process(&creatorup, &token, &batch).await.unwrap();
    let done = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!((done.status(), done.usage_reported), (BatchStatus::Completed, false));
    creatorup.hub().reopen().await;
    creatorup.hub().until("the hub hears", |hub| hub.entry(&batch.id).is_some_and(|entry| entry.completed)).await;
    creatorup.batch_once(&token, &batch.id, |batch| batch.usage_reported).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_processed_that_the_hub_has_not_counted_or_does_not_allow() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    std::fs::write(creatorup.media().join("a.mp4"), "x").unwrap();
    assert_eq!(creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await.0, 200);
    // It is this call that hears what the hub says, and not the job that has the batch counted.
    let pause = "INSERT INTO paused_kinds (kind, paused_at) VALUES ('usage_report', CURRENT_TIMESTAMP) RETURNING 1";
    creatorup.database().count(pause).await;
    creatorup.hub().close().await;
    let uncounted = create(&creatorup, &token, &["a.mp4"]).await;
    let away = process(&creatorup, &token, &uncounted).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
    creatorup.hub().reopen().await;
    creatorup.hub().change(&token, |member| member.reason = AccessReason::SubscriptionExpired);
    let denied = process(&creatorup, &token, &uncounted).await.unwrap_err();
    assert_eq!(
        (denied.code(), upbridge_client::reason(&denied).as_deref()),
        (Code::PermissionDenied, Some("MEMBERSHIP_REQUIRED"))
    );
    let (_, stranger) = creatorup.hub().member();
    assert_eq!(process(&creatorup, &stranger, &uncounted).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ffmpeg_it_serves_and_says_what_to_install() {
    let setup = Setup::new().await.set("FFMPEG_PATH", "/nowhere/ffmpeg");
    let creatorup = setup.start().await;
    let (_, token) = creatorup.hub().member();
    std::fs::write(creatorup.media().join("a.mp4"), "x").unwrap();
    let batch = create(&creatorup, &token, &["a.mp4"]).await;
    let refused = process(&creatorup, &token, &batch).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("Debian package `ffmpeg`"), "{refused}");
    let (status, health) = creatorup.http("/api/v1/health", None, None).await;
    let data = &health["data"];
    assert_eq!((status, &data["status"], &data["ffmpeg"]["works"]), (200, &json!("degraded"), &json!(false)));
    assert!(data["ffmpeg"]["detail"].as_str().unwrap().contains("`ffmpeg`"), "{health}");
    assert!(creatorup.process.said().contains("no video can be processed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_is_tried_again_and_is_not_the_inputs_fault() {
    if !ffmpeg("a run that is killed") {
        return;
    }
    let setup = Setup::new().await;
    let programs = setup.database.directory.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    // As when memory is short: its first rendering is killed.
    let script = format!(
        "#!/bin/sh\nPATH='{}'\ncase \"$*\" in *-version*|*-encoders*) ;; *) mkdir '{}' 2>/dev/null && kill -KILL $$ ;; esac\n\
         exec ffmpeg \"$@\"\n",
        std::env::var("PATH").unwrap(),
        programs.join("killed").display()
    );
    std::fs::write(programs.join("ffmpeg"), script).unwrap();
    std::fs::set_permissions(programs.join("ffmpeg"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = programs.join("ffmpeg").display().to_string();
    let creatorup = setup.set("FFMPEG_PATH", path).start().await;
    let (_, token) = creatorup.hub().member();
    video(&creatorup.media().join("a.mp4"));
    let batch = create(&creatorup, &token, &["a.mp4"]).await;
    process(&creatorup, &token, &batch).await.unwrap();
    let over = creatorup.batch_over(&token, &batch.id).await;
    assert_eq!(over.status(), BatchStatus::Completed, "{over:?}");
    assert!(programs.join("killed").exists(), "it was killed once");
}
