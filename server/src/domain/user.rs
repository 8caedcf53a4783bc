//! Administration of users.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::Hub;
use super::user_sync::change::Change;
use crate::model::membership::Membership;
use crate::model::page::{Page, Paged, Place};
use crate::model::user::{Role, User, UserChange, UserFilter, UserStats, UserStatus};
use crate::model::{Ctx, Error, Result};
use crate::storage::{self, WriteTx, audit};

/// Days in which a sign-up is recent.
const RECENT_DAYS: i64 = 30;

impl Hub {
    /// A page of users, newest first.
    pub async fn list_users(&self, filter: &UserFilter, page: &Page) -> Result<Paged<User>> {
        let users = storage::user::list(self.store.read(), filter, page).await?;
        Ok(page.cut(users, |user| Place { group: String::new(), id: user.id }))
    }

    /// Counts of users.
    pub async fn user_stats(&self) -> Result<UserStats> {
        let now = self.now();
        storage::user::stats(self.store.read(), now - TimeDelta::days(RECENT_DAYS), now).await
    }

    /// One user with their membership.
    pub async fn get_user(&self, id: Uuid) -> Result<(Arc<User>, Option<Arc<Membership>>)> {
        Ok((self.user(id).await?, self.membership(id).await?))
    }

    /// Changes parts of a user; one who is made inactive or given a new password is signed out.
    pub async fn update_user(
        &self,
        ctx: &Ctx,
        id: Uuid,
        mut change: UserChange,
        password: Option<String>,
    ) -> Result<User> {
        if let Some(password) = password {
            change.password_hash = Some(self.hash_password(password).await?);
        }
        let input = (ctx.clone(), id, change, self.now(), self.line(), self.forgetting(id));
        self.store
            .write(input, |tx, (ctx, id, change, now, line, forget)| {
                Box::pin(async move {
                    let held = storage::user::find(tx.reader(), *id).await?.ok_or(Error::NotFound { what: "user" })?;
                    let keys = change.keys();
                    if keys.is_empty() {
                        return Ok(held);
                    }
                    let (email, username) = (change.email.as_deref(), change.username.as_deref());
                    if let Some(field) = storage::user::find_taken(tx.reader(), email, username, Some(*id)).await? {
                        return Err(Error::Taken { field });
                    }
                    let demoted = change.role.is_some_and(|role| role != Role::Admin);
                    let deactivated = change.status == Some(UserStatus::Inactive);
                    if demoted || deactivated {
                        keep_an_admin(tx, &held).await?;
                    }
                    storage::user::update(tx, *id, change, *now).await?;
                    if deactivated || change.password_hash.is_some() {
                        storage::session::revoke_others(tx, *id, None, *now).await?;
                    }
                    let entry = audit::Entry {
                        action: "user.updated",
                        target_kind: "user",
                        target_id: id.to_string(),
                        changes: json!({ "changed": keys, "role": change.role.map(Role::as_str), "status": change.status.map(UserStatus::as_str) }),
                    };
                    audit::insert(tx, ctx, entry, *now).await?;
                    let user = storage::user::find(tx.reader(), *id).await?.ok_or(Error::NotFound { what: "user" })?;
                    if change.concerns_creatorup() {
                        line.tell(tx, Change::of_user(&user, "updated")).await?;
                    }
                    tx.after_commit(forget.clone().into_effect());
                    Ok(user)
                })
            })
            .await
    }

    /// Makes a user inactive; doing it again changes nothing.
    pub async fn deactivate_user(&self, ctx: &Ctx, id: Uuid) -> Result<User> {
        // Not from what is kept at hand: another hub may have let the user in again a moment ago.
        let user = storage::user::find(self.store.read(), id).await?.ok_or(Error::NotFound { what: "user" })?;
        if user.status == UserStatus::Inactive {
            return Ok(user);
        }
        self.update_user(ctx, id, UserChange { status: Some(UserStatus::Inactive), ..UserChange::default() }, None)
            .await
    }

    /// Deletes a user with their sessions, subscriptions and usage.
    pub async fn delete_user(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        let input = (ctx.clone(), id, self.now(), self.line(), self.forgetting(id), self.caches.clone());
        self.store
            .write(input, |tx, (ctx, id, now, line, forget, caches)| {
                Box::pin(async move {
                    let user = storage::user::find(tx.reader(), *id).await?.ok_or(Error::NotFound { what: "user" })?;
                    keep_an_admin(tx, &user).await?;
                    storage::user::hold(tx, &[*id]).await?;
                    storage::usage::uncount(tx, *id).await?;
                    if !storage::user::delete(tx, *id).await? {
                        // Another hub was faster, and told everybody.
                        return Err(Error::NotFound { what: "user" });
                    }
                    let entry = audit::Entry {
                        action: "user.deleted",
                        target_kind: "user",
                        target_id: id.to_string(),
                        changes: json!({ "role": user.role.as_str() }),
                    };
                    audit::insert(tx, ctx, entry, *now).await?;
                    line.tell_deleted(tx, &user, *now);
                    tx.after_commit(forget.clone().into_effect());
                    let caches = caches.clone();
                    tx.after_commit(move || caches.usage.forget_all());
                    Ok(())
                })
            })
            .await
    }
}

/// A hub that nobody can administer any more could not be mended from inside.
async fn keep_an_admin(tx: &WriteTx, user: &User) -> Result<()> {
    let is_admin = user.role == Role::Admin && user.status == UserStatus::Active;
    if is_admin && !storage::user::has_other_admin(tx, user.id).await? {
        return Err(Error::State { message: "this is the last active administrator" });
    }
    Ok(())
}
