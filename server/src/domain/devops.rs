//! What the DevOps module is told: that somebody is new, that a payment succeeded, that an alert opened or cleared.
//!
//! A notice is a job, made in the transaction of what it tells: so it exists if and only if that is committed, nobody
//! waits for the module, and one that is away is told when it is back. It is signed as the webhooks of integrations are;
//! its id and its body are the same on every try, also after a dead letter was driven again.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::Hub;
use crate::model::alert::Alert;
use crate::model::hook::secret::{Secret, sign};
use crate::model::hook::{HookSender, IntegrationEvent, text_of};
use crate::model::job::{Job, JobKind, NewJob, Outcome};
use crate::model::user::User;
use crate::model::{Instant, Json};
use crate::storage::WriteTx;

/// Whose turn notices take: one at a time.
const KEY: &str = "devops";
/// Tries after the first: for about an hour and a half, because nothing tells it later.
const RETRIES: i32 = 20;
/// Of the events of integrations, what the module is told.
const PAID: &str = "payment.success";

/// The DevOps module.
#[derive(Clone)]
pub struct DevopsModule {
    /// `DEVOPS_MODULE_URL`
    pub url: String,
    /// `DEVOPS_WEBHOOK_SECRET`
    pub secret: Secret,
    /// Makes the calls.
    pub sender: Arc<dyn HookSender>,
}

/// The line to it, for those who write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevopsLine {
    /// Whether there is anybody at its other end. Without, no job is made.
    pub is_connected: bool,
}

impl DevopsLine {
    /// Tells of a user who was added.
    pub fn user_created(self, tx: &mut WriteTx, user: &User) {
        let data = json!({
            "userId": user.id,
            "email": user.email,
            "name": user.name,
            "role": user.role.as_str(),
            "status": user.status.as_str(),
            "createdAt": user.created_at,
        });
        self.tell(tx, "user.created", user.created_at, &data);
    }

    /// Tells of the payments among events of integrations.
    pub fn paid(self, tx: &mut WriteTx, events: &[IntegrationEvent]) {
        for event in events.iter().filter(|event| event.name == PAID) {
            self.tell(tx, event.name, event.at, &event.data);
        }
    }

    /// Tells that an alert opened, or cleared.
    pub fn alert(self, tx: &mut WriteTx, alert: &Alert) {
        let Alert { id, code, severity, source, message, details, opened_at, cleared_at, .. } = alert;
        let data = json!({
            "alertId": id,
            "code": code,
            "severity": severity,
            "source": source,
            "message": message,
            "details": details,
            "openedAt": opened_at,
            "clearedAt": cleared_at,
        });
        match cleared_at {
            None => self.tell(tx, "alert.opened", *opened_at, &data),
            Some(cleared_at) => self.tell(tx, "alert.cleared", *cleared_at, &data),
        }
    }

    fn tell(self, tx: &mut WriteTx, name: &str, at: Instant, data: &Json) {
        if self.is_connected {
            // Not the job's own id: a dead letter that is driven again has another.
            let payload = json!({ "id": Uuid::now_v7(), "body": text_of(name, at, data) });
            let job = NewJob::new(JobKind::DevopsNotice, KEY, payload, at);
            tx.enqueue(NewJob { max_retries: Some(RETRIES), ..job });
        }
    }
}

impl Hub {
    pub(super) fn devops_line(&self) -> DevopsLine {
        DevopsLine { is_connected: self.devops.is_some() }
    }

    /// Makes one try to tell the module.
    pub(super) async fn tell_devops(&self, job: &Job) -> Outcome {
        let Some(module) = &self.devops else {
            return Outcome::dead("there is no DEVOPS_MODULE_URL any more");
        };
        let text = |name| job.payload.get(name).and_then(Json::as_str);
        let (Some(id), Some(body)) = (text("id").and_then(|id| Uuid::parse_str(id).ok()), text("body")) else {
            return Outcome::dead("the job holds no notice");
        };
        let secrets = std::slice::from_ref(&module.secret);
        let post = sign(secrets, &module.url, id, self.now().timestamp(), body.to_owned());
        match module.sender.send(post).await.failure {
            None => Outcome::Done(None),
            Some(failure) if failure.is_permanent => Outcome::dead(failure),
            Some(failure) => Outcome::Retry { error: failure.to_string(), after: failure.retry_after },
        }
    }
}
