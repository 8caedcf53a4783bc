//! What an administrator does with webhooks.

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::job_now;
use crate::domain::Hub;
use crate::model::hook::breaker::Breaker;
use crate::model::hook::secret::Secret;
use crate::model::hook::{Backlog, Hook, HookChange, MOST_HOOKS, event_of};
use crate::model::integration::{Action, Integration, LogStatus, NewLog};
use crate::model::{Ctx, Error, Instant, Json, Principal, Result};
use crate::storage::hook::{PREVIOUS_SECRET, Rotation, SECRET};
use crate::storage::{self, WriteTx, audit};

/// Deliveries one transaction removes.
const REMOVED: u64 = 5_000;
/// Tries, and seconds before the second, when nobody says.
const ATTEMPTS: i32 = 3;
const DELAY: i32 = 60;

pub(super) const NO_HOOK: Error = Error::NotFound { what: "webhook" };

/// A webhook to be added.
#[derive(Clone)]
pub struct NewHook {
    /// Where it is sent.
    pub url: String,
    /// Signs it; made when absent.
    pub secret: Option<String>,
    /// The events it is told.
    pub events: Vec<String>,
    /// True when absent.
    pub is_active: Option<bool>,
    /// How often a delivery is tried in all.
    pub retry_attempts: Option<i32>,
    /// Seconds before the second try.
    pub retry_delay: Option<i32>,
    /// Deliveries a second.
    pub rate_limit: Option<i32>,
}

impl std::fmt::Debug for NewHook {
    /// Neither its secret nor its address, which may hold one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewHook").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Hub {
    /// An integration's webhooks, newest first.
    pub async fn list_hooks(&self, integration_id: Uuid) -> Result<Vec<Hook>> {
        self.integration_of_hooks(integration_id).await?;
        let mut hooks = storage::hook::list(self.store.read(), integration_id).await?;
        self.show_pending(&mut hooks).await?;
        Ok(hooks)
    }

    pub(super) async fn integration_of_hooks(&self, id: Uuid) -> Result<Integration> {
        let found = storage::integration::find(self.store.read(), id).await?;
        found.ok_or(Error::NotFound { what: "integration" })
    }

    /// One whose newest delivery is on its way is shown as pending: it need not be written for that.
    async fn show_pending(&self, hooks: &mut [Hook]) -> Result<()> {
        let ids: Vec<Uuid> = hooks.iter().map(|hook| hook.id).collect();
        let pending = storage::hook_delivery::pending_of(self.store.read(), self.store.dialect(), &ids).await?;
        for hook in hooks.iter_mut().filter(|hook| pending.contains(&hook.id)) {
            hook.last_status = Some(LogStatus::Pending);
        }
        Ok(())
    }

    /// A webhook, and what waits for it.
    pub async fn get_hook(&self, id: Uuid) -> Result<(Hook, Backlog)> {
        let hook = storage::hook::find(self.store.read(), id).await?.ok_or(NO_HOOK)?;
        let mut hooks = [hook];
        self.show_pending(&mut hooks).await?;
        let backlog = storage::hook_delivery::backlog(self.store.read(), self.store.dialect(), id).await?;
        let [hook] = hooks;
        Ok((hook, backlog))
    }

    /// Adds a webhook; answers with its secret too, which nobody is shown again.
    pub async fn create_hook(&self, ctx: &Ctx, integration_id: Uuid, new: NewHook) -> Result<(Hook, String)> {
        let integration = self.integration_of_hooks(integration_id).await?;
        let url = self.judged(&new.url)?;
        let events = known_events(&integration, new.events, "events")?;
        let secret = read_secret(new.secret.as_deref())?;
        let (id, now) = (Uuid::now_v7(), self.now());
        let hook = Hook {
            id,
            integration_id,
            url,
            secret_masked: secret.masked(),
            events,
            is_active: new.is_active.unwrap_or(true),
            retry_attempts: new.retry_attempts.unwrap_or(ATTEMPTS),
            retry_delay: new.retry_delay.unwrap_or(DELAY),
            rate_limit: new.rate_limit,
            last_triggered_at: None,
            last_status: None,
            failure_count: 0,
            disabled_at: None,
            disabled_reason: None,
            previous_secret_expires_at: None,
            breaker: Breaker::default(),
            generation: 0,
            created_by: actor(ctx),
            created_at: now,
            updated_at: now,
        };
        let sealed = self.sealer.seal(SECRET, id, secret.expose().as_bytes());
        let key_id = self.sealer.key_id().to_owned();
        let input = (ctx.clone(), hook.clone(), sealed, key_id);
        let create = self.store.write(input, |tx, (ctx, hook, sealed, key_id)| {
            Box::pin(async move {
                // Held, so that it is not deleted meanwhile and nobody else adds the hundredth.
                if !storage::hook::hold_integration(tx, hook.integration_id).await? {
                    return Err(Error::NotFound { what: "integration" });
                }
                if storage::hook::count(tx.reader(), hook.integration_id).await? >= MOST_HOOKS {
                    return Err(Error::State { message: "the integration has 100 webhooks already" });
                }
                storage::hook::insert(tx, hook, sealed, key_id).await?;
                let changed = ["webhookUrl", "webhookSecret", "events", "isActive", "retryAttempts", "retryDelay"];
                note(tx, ctx, hook, ("webhook.created", "was added"), &changed, hook.created_at).await
            })
        });
        create.await?;
        Ok((hook, secret.expose().to_owned()))
    }

    /// Changes the given parts of a webhook. `masked` is the secret as it was shown, sent back: no other changes it here.
    pub async fn update_hook(
        &self,
        ctx: &Ctx,
        id: Uuid,
        mut change: HookChange,
        masked: Option<String>,
    ) -> Result<Hook> {
        let hook = storage::hook::find(self.store.read(), id).await?.ok_or(NO_HOOK)?;
        if masked.is_some_and(|masked| masked != hook.secret_masked) {
            return Err(Error::invalid("webhook_secret", "must be as it was shown; RotateWebhookSecret gives another"));
        }
        if let Some(url) = change.url {
            change.url = Some(self.judged(&url)?);
        }
        if let Some(events) = change.events {
            let integration = self.integration_of_hooks(hook.integration_id).await?;
            change.events = Some(known_events(&integration, events, "events")?);
        }
        let input = (ctx.clone(), id, change, self.now());
        let update = self.store.write(input, |tx, (ctx, id, change, now)| {
            Box::pin(async move {
                storage::hook::standings(tx, &[*id].into()).await?;
                let mut hook = storage::hook::find(tx.reader(), *id).await?.ok_or(NO_HOOK)?;
                let keys = change.keys(&hook);
                if keys.is_empty() {
                    return Ok(hook);
                }
                apply(&mut hook, change, *now);
                storage::hook::update(tx, &hook).await?;
                note(tx, ctx, &hook, ("webhook.updated", "was changed"), &keys, *now).await?;
                // What waits goes out, or is held.
                tx.enqueue(job_now(*id, *now));
                Ok(hook)
            })
        });
        let mut hooks = [update.await?];
        self.hooks.has_changed();
        self.show_pending(&mut hooks).await?;
        let [hook] = hooks;
        Ok(hook)
    }

    /// Deletes a webhook. Its deliveries go first, so many at a time; nothing more is sent from the start.
    pub async fn delete_hook(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        storage::hook::find(self.store.read(), id).await?.ok_or(NO_HOOK)?;
        loop {
            let removed = self.store.write(id, |tx, id| {
                Box::pin(async move {
                    storage::hook::standings(tx, &[*id].into()).await?;
                    let mut hook = storage::hook::find(tx.reader(), *id).await?.ok_or(NO_HOOK)?;
                    if hook.is_active || !hook.events.is_empty() {
                        (hook.is_active, hook.events) = (false, Vec::new());
                        storage::hook::update(tx, &hook).await?;
                    }
                    storage::hook_delivery::remove(tx, *id, REMOVED).await
                })
            });
            let removed = removed.await?;
            self.hooks.has_changed();
            if removed < REMOVED {
                break;
            }
        }
        let input = (ctx.clone(), id, self.now());
        let delete = self.store.write(input, |tx, (ctx, id, now)| {
            Box::pin(async move {
                let hook = storage::hook::find(tx.reader(), *id).await?.ok_or(NO_HOOK)?;
                if !storage::hook::delete(tx, *id).await? {
                    // Another hub was faster, and noted it.
                    return Err(NO_HOOK);
                }
                note(tx, ctx, &hook, ("webhook.deleted", "was deleted"), &[], *now).await
            })
        });
        delete.await?;
        self.hooks.has_changed();
        Ok(())
    }

    /// Gives a webhook a new secret; answers with it, and until when the one before signs too.
    pub async fn rotate_hook_secret(
        &self,
        ctx: &Ctx,
        id: Uuid,
        secret: Option<&str>,
        overlap_hours: i32,
    ) -> Result<(String, Option<Instant>)> {
        let secret = read_secret(secret)?;
        let now = self.now();
        let until = (overlap_hours > 0).then(|| now + TimeDelta::hours(i64::from(overlap_hours)));
        let sealed = self.sealer.seal(SECRET, id, secret.expose().as_bytes());
        let rotation =
            Rotation { sealed, key_id: self.sealer.key_id().to_owned(), masked: secret.masked(), previous: None };
        let input = (ctx.clone(), id, rotation, until, self.sealer.clone(), now);
        let rotate = self.store.write(input, |tx, (ctx, id, rotation, until, sealer, now)| {
            Box::pin(async move {
                storage::hook::standings(tx, &[*id].into()).await?;
                let (hook, held) = storage::hook::find_sealed(tx.reader(), *id).await?.ok_or(NO_HOOK)?;
                let mut rotation = rotation.clone();
                if until.is_some() && hook.previous_secret_expires_at.is_some_and(|until| until > *now) {
                    // Of three secrets two sign, and a receiver may know only the oldest.
                    return Err(Error::State {
                        message: "the previous secret is good still; wait for its end, or rotate with overlap_hours 0",
                    });
                }
                if let Some(until) = until {
                    // One that cannot be opened signs nothing any more; it is no reason to refuse another.
                    let opened = sealer.open(SECRET, *id, &held.current).ok();
                    rotation.previous = opened.map(|secret| (sealer.seal(PREVIOUS_SECRET, *id, &secret), *until));
                }
                storage::hook::rotate(tx, *id, &rotation, *now).await?;
                note(tx, ctx, &hook, ("webhook.secret_rotated", "was given a new secret"), &["webhookSecret"], *now)
                    .await?;
                Ok(rotation.previous.map(|(_, until)| until))
            })
        });
        let until = rotate.await?;
        self.hooks.has_changed();
        Ok((secret.expose().to_owned(), until))
    }

    /// Where a webhook is sent, in the spelling it is kept in. Judged again, by the same guard, whenever it is sent.
    fn judged(&self, url: &str) -> Result<String> {
        let judged = self.hooks.rules.sender.judge(url);
        judged.map_err(|why| Error::invalid("webhook_url", why.to_string()))
    }
}

fn apply(hook: &mut Hook, change: &HookChange, now: Instant) {
    let HookChange { url, events, is_active, retry_attempts, retry_delay, rate_limit } = change.clone();
    if let Some(is_active) = is_active.filter(|is_active| *is_active != hook.is_active) {
        hook.is_active = is_active;
        // It begins anew, and whoever switched it off is no longer the hub.
        (hook.disabled_at, hook.disabled_reason) = (None, None);
        if is_active {
            begin_anew(hook);
        }
    }
    if url.as_ref().is_some_and(|url| *url != hook.url) {
        begin_anew(hook);
    }
    hook.url = url.unwrap_or_else(|| std::mem::take(&mut hook.url));
    hook.events = events.unwrap_or_else(|| std::mem::take(&mut hook.events));
    hook.retry_attempts = retry_attempts.unwrap_or(hook.retry_attempts);
    hook.retry_delay = retry_delay.unwrap_or(hook.retry_delay);
    hook.rate_limit = rate_limit.unwrap_or(hook.rate_limit);
    hook.updated_at = now;
}

/// Nothing that was answered before counts against it.
fn begin_anew(hook: &mut Hook) {
    (hook.failure_count, hook.breaker) = (0, Breaker::default());
    hook.generation = hook.generation.wrapping_add(1);
}

/// Events without repetition, each one that the integration reports.
fn known_events(integration: &Integration, names: Vec<String>, field: &'static str) -> Result<Vec<String>> {
    let mut known: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if event_of(integration.provider, &name).is_none() {
            let reports = integration.provider.spec().events.join(", ");
            return Err(Error::invalid(field, format!("must be of {reports}")));
        }
        if !known.contains(&name) {
            known.push(name);
        }
    }
    Ok(known)
}

fn read_secret(text: Option<&str>) -> Result<Secret> {
    text.map_or_else(
        || Ok(Secret::make()),
        |text| Secret::parse(text).map_err(|what| Error::invalid("webhook_secret", what)),
    )
}

fn actor(ctx: &Ctx) -> Option<Uuid> {
    match &ctx.principal {
        Principal::User(signed_in) => Some(signed_in.user.id),
        _ => None,
    }
}

/// Writes a change of a webhook into the log of its integration and into the audit log: which parts, and no secret.
async fn note(
    tx: &mut WriteTx,
    ctx: &Ctx,
    hook: &Hook,
    (action, what): (&'static str, &str),
    changed: &[&str],
    now: Instant,
) -> Result<()> {
    let log = NewLog {
        request: Some(json!({ "webhookId": hook.id, "changed": changed })),
        ip: ctx.ip.map(|ip| ip.to_string()),
        user_agent: (!ctx.user_agent.is_empty()).then(|| ctx.user_agent.to_string()),
        user_id: actor(ctx),
        ..NewLog::new(hook.integration_id, Action::ConfigChange, LogStatus::Success, format!("A webhook {what}"), now)
    };
    storage::integration_log::record(tx, &[log]).await?;
    let changes = json!({ "integration_id": hook.integration_id, "changed": changed, "is_active": hook.is_active });
    entry(tx, ctx, action, ("webhook", hook.id.to_string()), changes, now).await
}

/// Writes something an administrator did into the audit log.
pub(super) async fn entry(
    tx: &mut WriteTx,
    ctx: &Ctx,
    action: &'static str,
    (target_kind, target_id): (&'static str, String),
    changes: Json,
    now: Instant,
) -> Result<()> {
    audit::insert(tx, ctx, audit::Entry { action, target_kind, target_id, changes }, now).await
}
