//! What CreatorUp asks about a user, and how the user's copy there stands.
//!
//! [`change`] is how a change comes to be pushed, [`push`] the push itself, [`sweep`] what finds those who were missed.
//! A copy is `pending` while CreatorUp has not confirmed the newest change, `synced` when it has, `error` when a push
//! was given up; from there the next push that succeeds makes it `synced` again. `creatorup_synced_at` and
//! `creatorup_user_id` are never anything but what CreatorUp confirmed last.

pub mod asked;
pub(super) mod change;
mod push;
pub(super) mod sweep;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use uuid::Uuid;

use super::membership::Entitlements;
use super::{Caches, Hub};
use crate::model::context::SignedIn;
use crate::model::event::Event;
use crate::model::membership::{Access, Membership};
use crate::model::user::User;
use crate::model::{Ctx, Error, Instant, Principal, Reason, Result};
use crate::storage::{self, Batch, WriteTx};

/// `last_creatorup_access` is kept to the minute: a write for each question would cost more than the answer.
const ACCESS_RESOLUTION_SECONDS: i64 = 60;
/// Events a status shows at most.
const EVENTS_SHOWN: u64 = 20;

/// How a user's copy at CreatorUp stands.
pub struct SyncStanding {
    /// The user.
    pub user: Arc<User>,
    /// Their newest events, newest first.
    pub events: Vec<Event>,
}

impl Hub {
    /// The user of a token given in the header, in the body, or in both; two that differ are an error.
    pub async fn verify_token(
        &self,
        ctx: &Ctx,
        header: Option<&str>,
        body: Option<&str>,
    ) -> Result<(Arc<SignedIn>, Entitlements)> {
        let signed_in = match (&ctx.principal, body) {
            (Principal::User(signed_in), None) => signed_in.clone(),
            (Principal::User(signed_in), Some(body)) if header.is_none_or(|header| header == body) => signed_in.clone(),
            (Principal::User(_), Some(_)) => {
                return Err(Error::invalid("token", "differs from the token in the Authorization header"));
            }
            (_, Some(body)) => {
                match self.verify(body).await {
                    Ok(signed_in) => {
                        let signed_in = Arc::new(signed_in);
                        self.limits.check(&Principal::User(signed_in.clone()), ctx.ip)?;
                        signed_in
                    }
                    Err(refused) => {
                        // Guessing tokens counts like any call without one.
                        self.limits.check(&ctx.principal, ctx.ip)?;
                        return Err(refused);
                    }
                }
            }
            (_, None) => {
                return Err(Error::unauthenticated(
                    Reason::MissingCredentials,
                    "send the token as Bearer or in the body",
                ));
            }
        };
        let entitlements = self.entitlements(signed_in.user.id).await?;
        self.note_access(signed_in.user.id).await;
        Ok((signed_in, entitlements))
    }

    /// A user with their membership.
    pub async fn get_profile(&self, ctx: &Ctx, subject: Option<Uuid>) -> Result<(Arc<User>, Option<Arc<Membership>>)> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        Ok((self.user(user_id).await?, self.membership(user_id).await?))
    }

    /// Whether a user may use CreatorUp, and each feature of their plan.
    pub async fn check_access(&self, ctx: &Ctx, subject: Option<Uuid>) -> Result<(Entitlements, Vec<Access>)> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        let entitlements = self.entitlements(user_id).await?;
        self.note_access(user_id).await;
        let features = entitlements.features();
        Ok((entitlements, features))
    }

    /// How a user's copy at CreatorUp stands.
    pub async fn get_sync_status(&self, ctx: &Ctx, subject: Option<Uuid>) -> Result<SyncStanding> {
        let user_id = ctx.subject(subject, "digiup_user_id")?;
        let user = self.user(user_id).await?;
        let events = storage::sync_event::recent(self.store.read(), user_id, EVENTS_SHOWN).await?;
        Ok(SyncStanding { user, events })
    }

    /// Notes that CreatorUp asked about a user. Nobody waits for it and nothing fails with it.
    pub(super) async fn note_access(&self, user_id: Uuid) {
        let Ok(Some(known)) = self.known(user_id).await else { return };
        let now = self.now();
        let stored = known.user.last_creatorup_access.map_or(0, |at| at.timestamp());
        let posted = known.accessed_at.load(Ordering::Relaxed);
        if now.timestamp() - stored.max(posted) < ACCESS_RESOLUTION_SECONDS {
            return;
        }
        // Of those who find it old at the same time, one posts.
        if known.accessed_at.compare_exchange(posted, now.timestamp(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.accesses.post((user_id, now));
        }
    }
}

/// The lane of accesses to be noted.
pub struct AccessBatch {
    pub(super) caches: Arc<Caches>,
}

impl Batch for AccessBatch {
    type Item = (Uuid, Instant);
    type Answer = ();

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a (Uuid, Instant)],
    ) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            let mut ids: Vec<Uuid> = items.iter().map(|(id, _)| *id).collect();
            ids.sort();
            ids.dedup();
            let now = items.iter().map(|(_, at)| *at).max().unwrap_or_default();
            storage::user::touch(tx, &ids, now).await?;
            let caches = self.caches.clone();
            tx.after_commit(move || ids.iter().for_each(|id| caches.users.forget(id)));
            Ok(items.iter().map(|_| Ok(())).collect())
        })
    }
}
