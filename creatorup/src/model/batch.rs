//! A batch of videos, and the states it goes through.
//!
//! ```text
//! pending ──► processing ──► completed
//!    │            ├────────► failed
//!    │            └────────► cancelled
//!    ├─────────────────────► failed       the hub refused it after all
//!    └─────────────────────► cancelled
//! ```
//!
//! There is no way back and no way past a state; whoever wants one is refused.

use serde_json::{Map, json};
use upbridge_service::model::words::words;
use uuid::Uuid;

use super::media::MediaPath;
use super::{Error, Instant, Json, Result};

words! {
    /// Where a batch stands.
    BatchStatus {
        /// Created, and not yet processed.
        Pending = "pending",
        /// Waits for its turn, or is being processed.
        Processing = "processing",
        /// Every input was rendered.
        Completed = "completed",
        /// Something could not be rendered, or the hub refused it.
        Failed = "failed",
        /// Its owner called it off.
        Cancelled = "cancelled",
    }
}

impl BatchStatus {
    /// Whether nothing comes after it.
    pub fn is_over(self) -> bool {
        matches!(self, BatchStatus::Completed | BatchStatus::Failed | BatchStatus::Cancelled)
    }

    /// Whether a batch that stands here may come to stand there.
    pub fn may_become(self, next: BatchStatus) -> bool {
        use BatchStatus::{Cancelled, Completed, Failed, Pending, Processing};
        matches!(
            (self, next),
            (Pending, Processing | Failed | Cancelled) | (Processing, Completed | Failed | Cancelled)
        )
    }
}

/// A batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// UUID, version 7; also the key under which the hub counts it.
    pub id: Uuid,
    /// Whose it is, by the id here.
    pub user_id: Uuid,
    /// Whose it is, by the id at DigiUp.
    pub digiup_user_id: Uuid,
    /// Name.
    pub name: String,
    /// Kind of batch, such as `video`.
    pub batch_type: String,
    /// The feature used.
    pub usage_type: String,
    /// Where it stands.
    pub status: BatchStatus,
    /// How much of it is done, 0 to 100.
    pub progress: i32,
    /// The videos.
    pub inputs: Vec<MediaPath>,
    /// What the caller gave.
    pub metadata: Option<Json>,
    /// What became of the inputs that were tried, in their order: what was rendered, or an `error`.
    pub videos: Vec<Json>,
    /// Why it failed.
    pub error: Option<String>,
    /// The key of the request that created it.
    pub key: Option<String>,
    /// The job that processes it.
    pub job_id: Option<Uuid>,
    /// When it was created.
    pub created_at: Instant,
    /// When processing began.
    pub started_at: Option<Instant>,
    /// When it was over.
    pub finished_at: Option<Instant>,
}

impl Batch {
    /// Makes it stand somewhere else, or refuses.
    pub fn turn(&self, next: BatchStatus, now: Instant) -> Result<Batch> {
        if !self.status.may_become(next) {
            return Err(Error::State { message: refusal(self.status, next) });
        }
        let mut batch = Batch { status: next, ..self.clone() };
        match next {
            BatchStatus::Processing => batch.started_at = Some(now),
            BatchStatus::Completed => batch.progress = 100,
            _ => {}
        }
        batch.finished_at = next.is_over().then_some(now);
        Ok(batch)
    }

    /// Fails, saying why, or refuses.
    pub fn fail(&self, error: &str, now: Instant) -> Result<Batch> {
        let batch = self.turn(BatchStatus::Failed, now)?;
        Ok(Batch { error: Some(error.to_owned()), ..batch })
    }

    /// Units it counts for: what is planned, and once it is over what was done. The hub's ledger knows no zero, and a
    /// batch was counted when it was created, so it is never less than 1.
    pub fn amount(&self) -> i32 {
        let units = if self.status.is_over() { self.rendered() } else { self.inputs.len() };
        i32::try_from(units).unwrap_or(i32::MAX).max(1)
    }

    /// How many inputs were rendered.
    pub fn rendered(&self) -> usize {
        self.videos.iter().filter(|video| video.get("error").is_none()).count()
    }

    /// What is wrong with it once every input was tried, for people; `None` when all of them were rendered.
    pub fn trouble(&self) -> Option<String> {
        let mut failed =
            self.videos.iter().filter_map(|video| Some((video.get("input")?.as_str()?, video.get("error")?.as_str()?)));
        let (input, error) = failed.next()?;
        Some(match failed.count() {
            0 => format!("{input}: {error}"),
            more => format!("{input}: {error} (and {more} more)"),
        })
    }

    /// When it was completed; what failed or was called off never is.
    pub fn completed_at(&self) -> Option<Instant> {
        self.finished_at.filter(|_| self.status == BatchStatus::Completed)
    }

    /// What the caller gave, and beside it what was done.
    pub fn told(&self) -> Option<Json> {
        let mut told = match &self.metadata {
            Some(Json::Object(given)) => given.clone(),
            _ => Map::new(),
        };
        if self.started_at.is_some() {
            told.insert("videos".to_owned(), Json::Array(self.videos.clone()));
            told.insert("video_count".to_owned(), json!(self.rendered()));
        }
        if let (Some(started), Some(finished)) = (self.started_at, self.finished_at) {
            told.insert("processing_time".to_owned(), json!(in_words(finished - started)));
        }
        if self.status.is_over() {
            told.insert("status".to_owned(), json!(self.status.as_str()));
        }
        (!told.is_empty()).then_some(Json::Object(told))
    }
}

/// A time as the hub's callers write it: `2 minutes`, `1.5 seconds`.
fn in_words(time: chrono::TimeDelta) -> String {
    let seconds = time.num_milliseconds().max(0) as f64 / 1_000.0;
    let (number, unit) = if seconds < 120.0 { (seconds, "seconds") } else { (seconds / 60.0, "minutes") };
    format!("{} {unit}", (number * 10.0).round() / 10.0)
}

fn refusal(from: BatchStatus, to: BatchStatus) -> &'static str {
    use BatchStatus::{Cancelled, Completed, Failed, Pending, Processing};
    match (from, to) {
        (Completed, _) => "the batch is completed",
        (Failed, _) => "the batch failed; create another",
        (Cancelled, _) => "the batch was cancelled; create another",
        (Processing, _) => "the batch is being processed",
        (Pending, _) => "the batch is not being processed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone, Utc};

    fn noon() -> Instant {
        Utc.with_ymd_and_hms(2026, 3, 15, 12, 0, 0).unwrap()
    }

    fn batch() -> Batch {
        Batch {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            digiup_user_id: Uuid::nil(),
            name: "wedding".into(),
            batch_type: "video".into(),
            usage_type: "local_rendering".into(),
            status: BatchStatus::Pending,
            progress: 0,
            inputs: ["a.mp4", "b.mp4"].map(|name| MediaPath::parse(name).unwrap()).into(),
            metadata: Some(json!({"camera": 5})),
            videos: Vec::new(),
            error: None,
            key: None,
            job_id: None,
            created_at: noon(),
            started_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn only_the_ways_that_are_drawn_are_open() {
        use BatchStatus::*;
        let open = [
            (Pending, Processing),
            (Pending, Failed),
            (Pending, Cancelled),
            (Processing, Completed),
            (Processing, Failed),
            (Processing, Cancelled),
        ];
        for from in BatchStatus::ALL {
            for to in BatchStatus::ALL {
                let moved = Batch { status: *from, ..batch() }.turn(*to, noon());
                assert_eq!(moved.is_ok(), open.contains(&(*from, *to)), "{from:?} to {to:?}");
                assert!(moved.is_ok() || matches!(moved, Err(Error::State { .. })));
            }
            assert_eq!(from.is_over(), !open.iter().any(|(open, _)| open == from), "{from:?}");
        }
    }

    #[test]
    fn a_batch_remembers_when_it_began_and_ended_and_why_it_failed() {
        let begun = batch().turn(BatchStatus::Processing, noon()).unwrap();
        assert_eq!((begun.started_at, begun.finished_at, begun.completed_at()), (Some(noon()), None, None));
        let later = noon() + TimeDelta::seconds(90);
        let done = begun.turn(BatchStatus::Completed, later).unwrap();
        assert_eq!((done.progress, done.finished_at, done.completed_at()), (100, Some(later), Some(later)));
        let failed = begun.fail("a.mp4: is no video", later).unwrap();
        assert_eq!((failed.error.as_deref(), failed.completed_at()), (Some("a.mp4: is no video"), None));
    }

    #[test]
    fn it_counts_what_is_planned_and_then_what_was_done_and_never_nothing() {
        assert_eq!(batch().amount(), 2);
        assert_eq!(Batch { inputs: Vec::new(), ..batch() }.amount(), 1);
        let begun = batch().turn(BatchStatus::Processing, noon()).unwrap();
        let three = Batch { videos: vec![json!({}); 3], ..begun.clone() };
        assert_eq!(three.amount(), 2, "until it is over");
        assert_eq!(three.turn(BatchStatus::Completed, noon()).unwrap().amount(), 3);
        assert_eq!(begun.fail("no", noon()).unwrap().amount(), 1);
    }

    #[test]
    fn an_input_that_failed_is_named_and_does_not_count() {
        let begun = batch().turn(BatchStatus::Processing, noon()).unwrap();
        let one = Batch { videos: vec![json!({"input": "a.mp4"}), json!({"input": "b.mp4", "error": "no"})], ..begun };
        assert_eq!((one.rendered(), one.trouble().as_deref()), (1, Some("b.mp4: no")));
        let both =
            Batch { videos: vec![json!({"input": "a", "error": "x"}), json!({"input": "b", "error": "y"})], ..one };
        assert_eq!((both.rendered(), both.trouble().as_deref()), (0, Some("a: x (and 1 more)")));
        assert_eq!(batch().trouble(), None);
    }

    #[test]
    fn what_is_told_keeps_what_was_given() {
        assert_eq!(batch().told(), Some(json!({"camera": 5})));
        assert_eq!(Batch { metadata: None, ..batch() }.told(), None);
        let begun = batch().turn(BatchStatus::Processing, noon()).unwrap();
        let done = Batch { videos: vec![json!({"input": "a.mp4"})], ..begun };
        let done = done.turn(BatchStatus::Completed, noon() + TimeDelta::seconds(120)).unwrap();
        let told = json!({
            "camera": 5, "videos": [{"input": "a.mp4"}], "video_count": 1, "processing_time": "2 minutes",
            "status": "completed",
        });
        assert_eq!(done.told(), Some(told));
        assert_eq!(in_words(TimeDelta::milliseconds(1_549)), "1.5 seconds");
    }
}
