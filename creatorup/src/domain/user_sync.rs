//! Copies of DigiUp's users: pulled with a user's own token, and pushed by the hub.

use super::CreatorUp;
use crate::model::batch::BatchStatus;
use crate::model::user::{DELETED, Profile, User};
use crate::model::{Error, Instant, Result};
use crate::storage::{self, WriteTx};

impl CreatorUp {
    /// Pulls the profile of a token's user, and stores it.
    pub async fn pull_user(&self, token: &str) -> Result<User> {
        let profile = self.hub.profile(token).await?;
        let put = self
            .store
            .write((profile, self.now()), |tx, (profile, now)| Box::pin(storage::user::put(tx, profile, *now)));
        Ok(put.await?.0)
    }

    /// Takes what the hub pushes; answers with the copy as it is now, and whether it was changed.
    pub async fn push_user(&self, told: Profile) -> Result<(User, bool)> {
        self.store
            .write((told, self.now()), |tx, (told, now)| {
                Box::pin(async move {
                    if told.status == DELETED && storage::user::find(tx.reader(), told.digiup_user_id).await?.is_none()
                    {
                        return Err(Error::NotFound { what: "user" });
                    }
                    let (user, changed) = storage::user::put(tx, told, *now).await?;
                    if changed && told.status == DELETED {
                        call_off(tx, &user, *now).await?;
                    }
                    Ok((user, changed))
                })
            })
            .await
    }
}

/// Nobody waits for the batches of a user who is gone, and the hub is told of none: it knows the user no more and would
/// refuse every word, so what it was not told never has to be.
async fn call_off(tx: &mut WriteTx, user: &User, now: Instant) -> Result<()> {
    for batch in storage::batch::open_of(tx.reader(), user.id).await? {
        let Some(batch) = storage::batch::held(tx, batch.id).await? else { continue };
        if !batch.status.is_over() {
            let over = batch.turn(BatchStatus::Cancelled, now)?;
            if let Some(record) = super::batch::close(tx, &over, now).await? {
                storage::usage::update(tx, &record).await?;
            }
        }
    }
    storage::outbox::forget(tx, user.profile.digiup_user_id).await?;
    storage::usage::reported_all(tx, user.id, now).await
}
