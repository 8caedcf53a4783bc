//! Whose a token is. The hub says so; while it is away, what it said before is believed for a while.

use chrono::TimeDelta;
use sha2::{Digest, Sha256};

use super::CreatorUp;
use crate::model::decision::{Caller, Verified};
use crate::model::user::{DELETED, User};
use crate::model::{Error, Reason, Result};
use crate::storage;
use crate::storage::token::Known;

/// A token that was noted as good so recently is not noted again.
const NOTED: TimeDelta = TimeDelta::seconds(60);

impl CreatorUp {
    /// Verifies a token at the hub and stores the user.
    pub async fn verify_token(&self, token: &str) -> Result<(Verified, User)> {
        let digest = digest(token);
        match self.hub.verify(token).await {
            Ok(verified) => {
                let user = self.note(&digest, &verified).await?;
                Ok((verified, user))
            }
            Err(refused) => {
                if matches!(refused, Error::Unauthenticated { .. }) {
                    self.forget(digest).await?;
                }
                Err(refused)
            }
        }
    }

    /// Whose token it is. While the hub is away, a token it found good not long ago is still believed.
    pub async fn identify(&self, token: &str) -> Result<Caller> {
        match self.verify_token(token).await {
            Ok((_, user)) => Ok(caller(&user)),
            Err(away @ Error::Away { .. }) => self.recall(token).await?.ok_or(away),
            Err(refused) => Err(refused),
        }
    }

    /// Who that was, as far as it is still believed.
    async fn recall(&self, token: &str) -> Result<Option<Caller>> {
        let Some(known) = storage::token::find(self.store.read(), &digest(token)).await? else { return Ok(None) };
        let grace = TimeDelta::from_std(self.rules.token_grace).unwrap_or(TimeDelta::MAX);
        let now = self.now();
        if now >= known.expires_at || now - known.verified_at > grace {
            return Ok(None);
        }
        let user = storage::user::find_by_id(self.store.read(), known.user_id).await?;
        // What the hub pushed since counts too.
        match user.filter(|user| user.profile.status == "active") {
            Some(user) => Ok(Some(caller(&user))),
            None => Err(Error::unauthenticated(Reason::SessionRevoked, "the user is gone or inactive")),
        }
    }

    /// Stores the user and the token's digest, when either is news.
    async fn note(&self, digest: &str, verified: &Verified) -> Result<User> {
        let now = self.now();
        // A token whose end is not known is not remembered longer than this.
        let expires_at = verified.expires_at.unwrap_or(now + NOTED);
        let known = storage::token::find(self.store.read(), digest).await?;
        let copy = storage::user::find(self.store.read(), verified.profile.digiup_user_id).await?;
        if let (Some(known), Some(copy)) = (known, copy)
            && known.user_id == copy.id
            && now - known.verified_at < NOTED
            && copy.profile.as_of >= verified.profile.as_of
            && copy.profile.status != DELETED
        {
            return Ok(copy);
        }
        let input = (digest.to_owned(), verified.profile.clone(), expires_at, now);
        self.store
            .write(input, |tx, (digest, profile, expires_at, now)| {
                Box::pin(async move {
                    let (user, _) = storage::user::put(tx, profile, *now).await?;
                    let known = Known { user_id: user.id, expires_at: *expires_at, verified_at: *now };
                    storage::token::remember(tx, digest, known).await?;
                    Ok(user)
                })
            })
            .await
    }

    async fn forget(&self, digest: String) -> Result<()> {
        // Guessing tokens must cost no write.
        if storage::token::find(self.store.read(), &digest).await?.is_none() {
            return Ok(());
        }
        self.store.write(digest, |tx, digest| Box::pin(storage::token::forget(tx, digest))).await
    }
}

fn caller(user: &User) -> Caller {
    Caller { user_id: user.id, digiup_user_id: user.profile.digiup_user_id }
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}
