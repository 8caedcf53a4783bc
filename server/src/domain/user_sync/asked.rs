//! Pushes that somebody asks for, and whether CreatorUp is there.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::change::{ask, push};
use crate::domain::Hub;
use crate::model::event::EventStatus;
use crate::model::job::NewJob;
use crate::model::user::User;
use crate::model::{Ctx, Error, Result};
use crate::storage;

/// How often one who waits for a push looks whether it is settled.
const LOOK: Duration = Duration::from_millis(25);

/// Whether CreatorUp can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatorUpHealth {
    /// How long its answer took; absent when there was none within `SYNC_TIMEOUT`.
    pub latency: Option<Duration>,
    /// Why there was none, for people.
    pub problem: Option<String>,
}

impl CreatorUpHealth {
    /// Whether it answered.
    pub fn is_reachable(&self) -> bool {
        self.latency.is_some()
    }
}

impl Hub {
    /// Asks for a push of a user: the caller's own; anybody's for administrators and services. Answers with the event
    /// whose fate is the push's, after `wait` at most; a call while a push is asked for already asks for that one.
    pub async fn sync_user(
        &self,
        ctx: &Ctx,
        subject: Option<Uuid>,
        url: Option<&str>,
        wait: Duration,
    ) -> Result<(Arc<User>, Uuid)> {
        let user_id = match subject {
            Some(named) if ctx.is_admin() => named,
            named => ctx.subject(named, "digiup_user_id")?,
        };
        let job = self.asked_push(user_id, url)?;
        let event_id = self
            .store
            .write((user_id, job, self.now()), |tx, (user_id, job, now)| {
                Box::pin(async move {
                    storage::user::hold(tx, &[*user_id]).await?;
                    let user = storage::user::find(tx.reader(), *user_id).await?;
                    let user = user.ok_or(Error::NotFound { what: "user" })?;
                    ask(tx, &user, job.clone(), *now).await
                })
            })
            .await?;
        // The event tells whether it was in vain; a caller who waits no longer asks for the status.
        drop(tokio::time::timeout(wait, self.settled(event_id)).await);
        // Not from what is kept at hand, which is forgotten a moment after the event is seen to be settled.
        let user = storage::user::find(self.store.read(), user_id).await?;
        Ok((Arc::new(user.ok_or(Error::NotFound { what: "user" })?), event_id))
    }

    /// The push that a caller asks for, to an address that may be pushed to.
    fn asked_push(&self, user_id: Uuid, url: Option<&str>) -> Result<NewJob> {
        let refused =
            || Error::invalid("creatorup_api_url", "must be the configured address of CreatorUp or one on its list");
        let Some(creatorup) = &self.creatorup else {
            return Err(match url {
                Some(_) => refused(),
                None => Error::State { message: "no CreatorUp is configured" },
            });
        };
        let target = creatorup.target(url).ok_or_else(refused)?;
        let job = push(user_id, self.now());
        if target.is_configured {
            return Ok(job);
        }
        let key = format!("{user_id}@{}", target.url);
        Ok(NewJob { payload: json!({ "creatorup_api_url": target.url }).into(), ..job }.unique(key))
    }

    async fn settled(&self, event_id: Uuid) -> Result<()> {
        let mut look = tokio::time::interval(LOOK);
        while storage::sync_event::status(self.store.read(), event_id).await? == Some(EventStatus::Pending) {
            look.tick().await;
        }
        Ok(())
    }

    /// Whether CreatorUp answers, and after how long; `None` when none is configured.
    pub async fn creatorup_health(&self) -> Option<CreatorUpHealth> {
        Some(match self.creatorup.as_ref()?.probe().await {
            Ok(latency) => CreatorUpHealth { latency: Some(latency), problem: None },
            Err(failure) => CreatorUpHealth { latency: None, problem: Some(failure.to_string()) },
        })
    }

    /// The line that changes are told over.
    pub(in crate::domain) fn line(&self) -> super::change::Line {
        super::change::Line { is_connected: self.creatorup.is_some() }
    }
}
