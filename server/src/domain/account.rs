//! Accounts and sessions: who a caller is, and how they become it.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::membership::choosable;
use super::token::Verified;
use super::user_sync::change::Change;
use super::{Hub, Known};
use crate::model::context::SignedIn;
use crate::model::membership::Subscription;
use crate::model::user::{Role, Session, User, UserStatus};
use crate::model::{Credential, Ctx, Email, Error, Principal, Reason, Result};
use crate::storage::{self, WriteTx};

/// Sessions a list shows at most.
const SESSIONS_SHOWN: u64 = 100;

/// A new user.
#[derive(Clone, Debug)]
pub struct Register {
    /// E-mail address.
    pub email: Email,
    /// Password, in the clear.
    pub password: String,
    /// Display name.
    pub name: String,
    /// Handle.
    pub username: Option<String>,
    /// Plan to subscribe to.
    pub plan_id: Option<i32>,
}

/// A session just opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its token.
    pub token: String,
    /// The session.
    pub session: Session,
    /// Whose it is.
    pub user: User,
    /// The subscription made with it.
    pub subscription: Option<Subscription>,
}

impl Hub {
    /// Reads the caller out of a credential.
    pub async fn authenticate(&self, credential: Option<Credential<'_>>) -> Result<Principal> {
        match credential {
            None => Ok(Principal::Anonymous),
            Some(Credential::ApiKey(key)) if self.is_service_key(key) => Ok(Principal::Service),
            Some(Credential::ApiKey(_)) => {
                Err(Error::unauthenticated(Reason::InvalidCredentials, "the API key is not valid"))
            }
            // A service may send its key as Bearer too; a token has two dots and no key of ours does.
            Some(Credential::Token(token)) if token.matches('.').count() != 2 && self.is_service_key(token) => {
                Ok(Principal::Service)
            }
            Some(Credential::Token(token)) => Ok(Principal::User(Arc::new(self.verify(token).await?))),
        }
    }

    /// The user of a token, when the token is good, its session lives and its user may sign in.
    pub async fn verify(&self, token: &str) -> Result<SignedIn> {
        let verified = self.tokens.verify(token, self.now())?;
        match self.known(verified.user_id).await? {
            Some(known) => signed_in(&known, verified),
            None => Err(Error::unauthenticated(Reason::SessionRevoked, "the session is over")),
        }
    }

    /// Whose token it is, from memory alone: for what administrators may ask while the database is gone.
    ///
    /// Errors: UNAVAILABLE when this hub has not met the user, or has changed them since.
    pub fn authenticate_known(&self, credential: Option<Credential<'_>>) -> Result<Principal> {
        let Some(Credential::Token(token)) = credential else { return Ok(Principal::Anonymous) };
        let verified = self.tokens.verify(token, self.now())?;
        let known = self.caches.users.last(&verified.user_id).flatten();
        let known = known.ok_or_else(|| Error::unavailable("the database is gone, and the user is not in memory"))?;
        Ok(Principal::User(Arc::new(signed_in(&known, verified)?)))
    }

    /// Whether somebody who signed in earlier still is: for calls that outlast a check at their begin.
    pub async fn still_signed_in(&self, signed: &SignedIn) -> Result<()> {
        let over = || Error::unauthenticated(Reason::SessionRevoked, "the session is over");
        if signed.expires_at <= self.now() {
            return Err(Error::unauthenticated(Reason::TokenExpired, "the token has expired"));
        }
        let known = self.known(signed.user.id).await?.ok_or_else(over)?;
        let is_over = known.user.status != UserStatus::Active
            || known.user.role != signed.user.role
            || known.ended_sessions.contains(&signed.session_id);
        if is_over { Err(over()) } else { Ok(()) }
    }

    /// Whether an administrator whose call goes on and on may still look.
    pub(super) async fn admit_still(&self, ctx: &Ctx) -> Result<()> {
        let signed_in = ctx.signed_in()?;
        let over = || Error::unauthenticated(Reason::SessionRevoked, "the session is over");
        let known = self.known(signed_in.user.id).await?.ok_or_else(over)?;
        let expired = signed_in.expires_at <= self.now();
        if expired || known.user.status != UserStatus::Active || known.ended_sessions.contains(&signed_in.session_id) {
            return Err(over());
        }
        match known.user.role {
            Role::Admin => Ok(()),
            _ => Err(Error::denied(Reason::PrincipalNotAllowed, "this caller may not use this method")),
        }
    }

    fn is_service_key(&self, key: &str) -> bool {
        self.service_key.as_deref().is_some_and(|ours| bool::from(ours.as_bytes().ct_eq(key.as_bytes())))
    }

    /// Registers a user, subscribes them when a plan is given, and opens a session: all of it or nothing.
    pub async fn register(&self, ctx: &Ctx, command: Register) -> Result<Opened> {
        let hash = self.passwords.hash(command.password.clone()).await?;
        let plan = match command.plan_id {
            Some(plan_id) => Some(self.named_plan(Some(plan_id), None).await?),
            None => None,
        };
        plan.as_ref().map_or(Ok(()), choosable)?;
        let now = self.now();
        let user = User {
            name: command.name,
            username: command.username,
            ..User::new(command.email.to_string(), Role::Member, now)
        };
        let subscription = plan.map(|plan| Subscription::starting(now, user.id, plan.id));
        let (session, token) = self.session(ctx, &user)?;
        let opened = Opened { token, session: session.clone(), user: user.clone(), subscription: subscription.clone() };
        self.add_user(user, hash, subscription, Some(session)).await?;
        Ok(opened)
    }

    /// Adds a user with what comes with them.
    pub(super) async fn add_user(
        &self,
        user: User,
        hash: String,
        subscription: Option<Subscription>,
        session: Option<Session>,
    ) -> Result<()> {
        let input = (user, hash, subscription, session);
        let (lines, forget) = ((self.line(), self.devops_line()), self.forgetting(input.0.id));
        self.store
            .write((input, lines, forget), |tx, ((user, hash, subscription, session), (line, devops), forget)| {
                Box::pin(async move {
                    let (email, username) = (Some(user.email.as_str()), user.username.as_deref());
                    if let Some(field) = storage::user::find_taken(tx.reader(), email, username, None).await? {
                        return Err(Error::Taken { field });
                    }
                    storage::user::insert(tx, user, hash).await?;
                    line.tell(tx, Change::of_user(user, "registered")).await?;
                    devops.user_created(tx, user);
                    if let Some(subscription) = subscription {
                        storage::subscription::insert(tx, subscription).await?;
                        line.tell(tx, Change::of_subscription(subscription, "subscribed")).await?;
                    }
                    if let Some(session) = session {
                        storage::session::insert(tx, session).await?;
                    }
                    tx.after_commit(forget.clone().into_effect());
                    Ok(())
                })
            })
            .await
    }

    /// Opens a session for the right password. Unknown, wrong and inactive answer alike, and as slowly.
    pub async fn login(&self, ctx: &Ctx, email: &str, password: String) -> Result<Opened> {
        let refused =
            || Error::unauthenticated(Reason::InvalidCredentials, "the e-mail address or the password is wrong");
        let email = Email::parse(email, "email").map_err(|_| refused())?;
        self.limits.check_login(ctx.ip, email.as_str())?;
        let found = storage::user::find_by_email(self.store.read(), email.as_str()).await?;
        let (user, hash) = found.unzip();
        let verified = hash.clone().unwrap_or_default();
        let matches = self.passwords.verify(password, hash).await?;
        let user = user.filter(|user| matches && user.status == UserStatus::Active).ok_or_else(refused)?;
        let (session, token) = self.session(ctx, &user)?;
        self.store
            .write((session.clone(), verified), |tx, (session, verified)| {
                Box::pin(async move {
                    still_verified(tx, session.user_id, verified).await?;
                    storage::session::insert(tx, session).await
                })
            })
            .await
            .map_err(|error| if error.is_fault() { error } else { refused() })?;
        Ok(Opened { token, session, user, subscription: None })
    }

    fn session(&self, ctx: &Ctx, user: &User) -> Result<(Session, String)> {
        let now = self.now();
        let session = Session {
            id: Uuid::now_v7(),
            user_id: user.id,
            created_at: now,
            expires_at: self.tokens.expiry(now),
            ip_address: ctx.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            user_agent: ctx.user_agent.to_string(),
        };
        let token = self.tokens.issue(user.id, user.role, session.id, now)?;
        Ok((session, token))
    }

    /// Ends the caller's session.
    pub async fn logout(&self, ctx: &Ctx) -> Result<()> {
        let signed_in = ctx.signed_in()?;
        self.end_session(signed_in.user.id, signed_in.session_id).await
    }

    /// The caller's live sessions, newest first.
    pub async fn list_sessions(&self, ctx: &Ctx) -> Result<Vec<Session>> {
        let user_id = ctx.signed_in()?.user.id;
        storage::session::list(self.store.read(), user_id, self.now(), SESSIONS_SHOWN).await
    }

    /// Ends a session of the caller.
    pub async fn revoke_session(&self, ctx: &Ctx, session_id: Uuid) -> Result<()> {
        let user_id = ctx.signed_in()?.user.id;
        if !storage::session::exists(self.store.read(), user_id, session_id).await? {
            return Err(Error::NotFound { what: "session" });
        }
        self.end_session(user_id, session_id).await
    }

    async fn end_session(&self, user_id: Uuid, session_id: Uuid) -> Result<()> {
        let (now, forget) = (self.now(), self.forgetting(user_id));
        self.store
            .write((user_id, session_id, now, forget), |tx, (user_id, session_id, now, forget)| {
                Box::pin(async move {
                    storage::session::revoke(tx, *user_id, *session_id, *now).await?;
                    tx.after_commit(forget.clone().into_effect());
                    Ok(())
                })
            })
            .await
    }

    /// Changes the caller's password and ends their other sessions; says how many.
    pub async fn change_password(&self, ctx: &Ctx, current: String, new: String) -> Result<u64> {
        let signed_in = ctx.signed_in()?;
        let user_id = signed_in.user.id;
        self.limits.check_login(ctx.ip, &signed_in.user.email)?;
        let hash = storage::user::password_hash(self.store.read(), user_id).await?;
        let verified = hash.clone().unwrap_or_default();
        if !self.passwords.verify(current, hash).await? {
            return Err(Error::denied(Reason::InvalidCredentials, "the current password is wrong"));
        }
        let change = crate::model::user::UserChange {
            password_hash: Some(self.hash_password(new).await?),
            ..Default::default()
        };
        let input = (user_id, signed_in.session_id, change, verified, self.now(), self.forgetting(user_id));
        self.store
            .write(input, |tx, (user_id, session_id, change, verified, now, forget)| {
                Box::pin(async move {
                    still_verified(tx, *user_id, verified).await?;
                    storage::user::update(tx, *user_id, change, *now).await?;
                    let ended = storage::session::revoke_others(tx, *user_id, Some(*session_id), *now).await?;
                    tx.after_commit(forget.clone().into_effect());
                    Ok(ended)
                })
            })
            .await
    }

    pub(super) async fn hash_password(&self, password: String) -> Result<String> {
        self.passwords.hash(password).await
    }

    pub(super) fn forgetting(&self, user_id: Uuid) -> Forget {
        Forget { caches: self.caches.clone(), user_id }
    }
}

/// Refuses when the password that was verified has been replaced, or its user made inactive, while it was hashed: a
/// session opened with a password must not outlive it.
async fn still_verified(tx: &WriteTx, user_id: Uuid, verified: &str) -> Result<()> {
    storage::user::hold(tx, &[user_id]).await?;
    let active = storage::user::find(tx.reader(), user_id).await?.is_some_and(|user| user.status == UserStatus::Active);
    let hash = storage::user::password_hash(tx.reader(), user_id).await?;
    if active && hash.as_deref() == Some(verified) {
        return Ok(());
    }
    Err(Error::denied(Reason::InvalidCredentials, "the current password is wrong"))
}

/// Forgets what is kept at hand about a user.
#[derive(Clone)]
pub(super) struct Forget {
    caches: Arc<super::Caches>,
    user_id: Uuid,
}

impl Forget {
    pub(super) fn into_effect(self) -> impl FnOnce() + Send + Sync + 'static {
        move || {
            self.caches.users.forget(&self.user_id);
            self.caches.memberships.forget(&self.user_id);
        }
    }
}

/// A good token's user, when they may sign in and the session is not over.
fn signed_in(known: &Known, verified: Verified) -> Result<SignedIn> {
    if known.user.status != UserStatus::Active || known.ended_sessions.contains(&verified.session_id) {
        return Err(Error::unauthenticated(Reason::SessionRevoked, "the session is over"));
    }
    Ok(SignedIn { user: known.user.clone(), session_id: verified.session_id, expires_at: verified.expires_at })
}
