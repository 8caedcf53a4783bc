//! Integrations: how partners' accounts at providers are configured.
//!
//! Credentials come in, are sealed, and leave only for the provider they are of: no answer, log or audit entry has more
//! of them than their masks. What is shown is kept beside what is sealed, so nothing is opened to show it. Whatever is
//! changed leaves an entry in the log of the integration and one in the audit, with the names of what changed.

mod encryption;

use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::json;
use uuid::Uuid;

use super::Hub;
use super::partner::checked_name;
use crate::model::integration::address::{Addresses, secrets_stay};
use crate::model::integration::catalogue::CallbackProof;
use crate::model::integration::{
    Action, Credentials, Integration, IntegrationChange, IntegrationFilter, LogStatus, NewIntegration, NewLog,
    callback_digest, check,
};
use crate::model::page::{Page, Paged, Place};
use crate::model::seal::Sealer;
use crate::model::{Ctx, Error, Instant, Json, Result};
use crate::storage::{self, WriteTx, audit, integration::CREDENTIALS};
pub use encryption::Rotated;

/// Characters of a secret path.
const TOKEN_LENGTH: usize = 43;
/// Rows of an integration's history that one transaction removes of each table.
const HISTORY_BATCH: u64 = 2_000;

impl Hub {
    /// A page of a partner's integrations, newest first.
    pub async fn list_integrations(
        &self,
        partner_id: Uuid,
        filter: &IntegrationFilter,
        page: &Page,
    ) -> Result<Paged<Integration>> {
        self.get_partner(partner_id).await?;
        let integrations = storage::integration::list(self.store.read(), partner_id, filter, page).await?;
        Ok(page.cut(integrations, |one| Place { group: String::new(), id: one.id }))
    }

    /// One integration.
    pub async fn get_integration(&self, id: Uuid) -> Result<Integration> {
        storage::integration::find(self.store.read(), id).await?.ok_or(MISSING)
    }

    /// An integration with what it proves itself with, opened. For the hub's own calls; no door shows any of it.
    pub(crate) async fn integration_with_credentials(&self, id: Uuid) -> Result<(Integration, Credentials)> {
        let found = storage::integration::find_sealed(self.store.read(), id).await?;
        let (integration, sealed) = found.ok_or(MISSING)?;
        let credentials = open(&self.sealer, id, &sealed)?;
        Ok((integration, credentials))
    }

    /// Adds an integration; answers with the secret path of its callbacks, where it has one, this once.
    pub async fn create_integration(&self, ctx: &Ctx, new: NewIntegration) -> Result<(Integration, Option<String>)> {
        let (provider, spec) = (new.provider, new.provider.spec());
        if new.category != spec.category {
            let what = format!("is of category {}", spec.category.as_str());
            return Err(Error::invalid("provider", what));
        }
        let name = checked_name(&new.name)?;
        let merged = check::merge(provider, &Credentials::default(), &new.credentials, self.addresses.outward())?;
        let base_url = self.addresses.base_url(provider, new.base_url.as_deref())?;
        let token = (spec.proof == CallbackProof::Path).then(new_token);
        let credentials = Credentials::new(merged.credentials.values().clone(), token.clone());
        let (id, now) = (Uuid::now_v7(), self.now());
        let integration = Integration {
            id,
            partner_id: new.partner_id,
            provider,
            name,
            environment: new.environment,
            masked: check::shown(provider, &credentials),
            base_url,
            callback_digest: token.as_deref().map(callback_digest),
            is_active: new.is_active,
            last_test: None,
            key_id: self.sealer.key_id().to_owned(),
            created_by: ctx.user_id(),
            created_at: now,
            updated_at: now,
        };
        let sealed = self.sealer.seal(CREDENTIALS, id, &credentials.to_bytes());
        let mut changed = vec!["name", "environment", "isActive"];
        changed.extend(integration.base_url.is_some().then_some("baseUrl"));
        let changed = names(&changed, &merged.changed);
        let input = (ctx.clone(), integration, sealed, changed);
        let made = self
            .store
            .write(input, |tx, (ctx, integration, sealed, changed)| {
                Box::pin(async move {
                    let partner = storage::partner::hold(tx, integration.partner_id).await?;
                    partner.ok_or(Error::NotFound { what: "partner" })?;
                    storage::integration::insert(tx, integration, sealed).await?;
                    let done = Done { action: "integration.created", message: "The integration was added" };
                    remember(tx, ctx, integration, done, changed, integration.created_at).await?;
                    Ok(integration.clone())
                })
            })
            .await?;
        self.forget_callback_candidates();
        Ok((made, token))
    }

    /// Changes parts of an integration.
    pub async fn update_integration(&self, ctx: &Ctx, id: Uuid, mut change: IntegrationChange) -> Result<Integration> {
        change.name = change.name.as_deref().map(checked_name).transpose()?;
        let input = (ctx.clone(), id, change, self.now(), self.sealer.clone(), self.addresses.clone());
        let updated = self
            .store
            .write(input, |tx, (ctx, id, change, now, sealer, addresses)| {
                Box::pin(async move {
                    let (held, sealed) = storage::integration::hold_sealed(tx, *id).await?.ok_or(MISSING)?;
                    let Some(update) = decide(&held, &sealed, change, sealer, addresses, *now)? else {
                        return Ok(held);
                    };
                    storage::integration::update(tx, &update.integration, update.sealed.as_deref()).await?;
                    let done = Done { action: "integration.updated", message: "The integration was changed" };
                    remember(tx, ctx, &update.integration, done, &update.changed, *now).await?;
                    Ok(update.integration)
                })
            })
            .await?;
        self.forget_callback_candidates();
        Ok(updated)
    }

    /// Deletes an integration with its history.
    ///
    /// The history goes first and piece by piece: removed at once, a long one would keep everybody else from writing.
    /// What is interrupted leaves an integration with less of a history, which can be deleted again.
    pub async fn delete_integration(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        self.get_integration(id).await?;
        let clear = || self.store.write(id, |tx, id| Box::pin(storage::integration::clear(tx, *id, HISTORY_BATCH)));
        while clear().await? {}
        self.store
            .write((ctx.clone(), id, self.now()), |tx, (ctx, id, now)| {
                Box::pin(async move {
                    let (held, _) = storage::integration::hold_sealed(tx, *id).await?.ok_or(MISSING)?;
                    storage::integration::delete(tx, *id).await?;
                    let changes = json!({
                        "partner_id": held.partner_id,
                        "provider": held.provider.as_str(),
                        "name": held.name,
                    });
                    audit::insert(tx, ctx, entry("integration.deleted", *id, changes), *now).await
                })
            })
            .await?;
        self.forget_callback_candidates();
        Ok(())
    }

    /// Makes a new secret path for the callbacks of an integration; the one before is good no more.
    pub async fn rotate_callback_token(&self, ctx: &Ctx, id: Uuid) -> Result<(Integration, String)> {
        let token = new_token();
        let input = (ctx.clone(), id, token.clone(), self.now(), self.sealer.clone());
        let changed = self
            .store
            .write(input, |tx, (ctx, id, token, now, sealer)| {
                Box::pin(async move {
                    let (held, sealed) = storage::integration::hold_sealed(tx, *id).await?.ok_or(MISSING)?;
                    if held.provider.spec().proof != CallbackProof::Path {
                        let message = "the provider proves its callbacks itself, so they have no secret path";
                        return Err(Error::State { message });
                    }
                    let credentials = open(sealer, *id, &sealed)?;
                    let credentials = Credentials::new(credentials.values().clone(), Some(token.clone()));
                    let sealed = sealer.seal(CREDENTIALS, *id, &credentials.to_bytes());
                    let integration = Integration {
                        callback_digest: Some(callback_digest(token)),
                        key_id: sealer.key_id().to_owned(),
                        updated_at: *now,
                        ..held
                    };
                    storage::integration::update(tx, &integration, Some(&sealed)).await?;
                    let message = "The callbacks have a new secret path";
                    let done = Done { action: "integration.callback_token_rotated", message };
                    remember(tx, ctx, &integration, done, &names(&["callbackToken"], &[]), *now).await?;
                    Ok(integration)
                })
            })
            .await?;
        Ok((changed, token))
    }
}

const MISSING: Error = Error::NotFound { what: "integration" };

/// An integration as it is to be.
struct Update {
    integration: Integration,
    /// Its credentials, when they are others.
    sealed: Option<String>,
    changed: Vec<String>,
}

/// What becomes of an integration by a change; nothing when it is as the change wants it.
fn decide(
    held: &Integration,
    sealed: &str,
    change: &IntegrationChange,
    sealer: &Sealer,
    addresses: &Addresses,
    now: Instant,
) -> Result<Option<Update>> {
    let provider = held.provider;
    if change.provider.is_some_and(|wanted| wanted != provider) {
        return Err(Error::invalid("provider", "cannot be changed; add another integration"));
    }
    if change.category.is_some_and(|wanted| wanted != provider.spec().category) {
        return Err(Error::invalid("category", "cannot be changed; add another integration"));
    }
    let mut integration = Integration { updated_at: now, ..held.clone() };
    let mut changed = Vec::new();
    if let Some(name) = change.name.as_ref().filter(|name| **name != held.name) {
        integration.name.clone_from(name);
        changed.push("name");
    }
    if let Some(environment) = change.environment.filter(|wanted| *wanted != held.environment) {
        integration.environment = environment;
        changed.push("environment");
    }
    if let Some(given) = &change.base_url {
        integration.base_url = addresses.base_url(provider, Some(given))?;
        changed.extend((integration.base_url != held.base_url).then_some("baseUrl"));
    }
    if let Some(is_active) = change.is_active.filter(|wanted| *wanted != held.is_active) {
        integration.is_active = is_active;
        changed.push("isActive");
    }
    let (mut resealed, mut credentials_changed) = (None, Vec::new());
    if let Some(given) = &change.credentials {
        // What cannot be opened any more is mended by giving all of it anew.
        let before = open(sealer, held.id, sealed).unwrap_or_default();
        let merged = check::merge(provider, &before, given, addresses.outward())?;
        if !merged.changed.is_empty() {
            integration.masked = check::shown(provider, &merged.credentials);
            integration.key_id = sealer.key_id().to_owned();
            resealed = Some(sealer.seal(CREDENTIALS, held.id, &merged.credentials.to_bytes()));
            credentials_changed = merged.changed;
        }
    }
    secrets_stay(held, &integration, change.credentials.as_ref())?;
    let changed = names(&changed, &credentials_changed);
    Ok((!changed.is_empty()).then_some(Update { integration, sealed: resealed, changed }))
}

/// Opens what an integration is sealed with, and says in the log when it does not open.
pub(super) fn open(sealer: &Sealer, id: Uuid, sealed: &str) -> Result<Credentials> {
    unseal(sealer, id, sealed).map_err(|why| {
        complain(id, &why);
        let message = "the integration's credentials cannot be decrypted; give them anew, or configure the key they are \
                       encrypted with";
        Error::State { message }
    })
}

/// Opens what an integration is sealed with; says why not to whoever asks, and to no log.
pub(super) fn unseal(sealer: &Sealer, id: Uuid, sealed: &str) -> Result<Credentials, String> {
    let opened = sealer.open(CREDENTIALS, id, sealed).map_err(|why| why.to_string())?;
    Credentials::parse(&opened).map_err(|_| "they were sealed in a form that is not known".to_owned())
}

/// Tells the operator of an integration that does not open.
pub(super) fn complain(id: Uuid, why: &str) {
    tracing::error!(integration_id = %id, why, "the credentials of an integration cannot be decrypted");
}

/// What was done.
struct Done {
    action: &'static str,
    message: &'static str,
}

/// Writes down in the log and in the audit what was changed, by name.
async fn remember(
    tx: &mut WriteTx,
    ctx: &Ctx,
    integration: &Integration,
    done: Done,
    changed: &[String],
    now: Instant,
) -> Result<()> {
    let log = NewLog {
        request: Some(json!({ "changed": changed })),
        ..NewLog::new(integration.id, Action::ConfigChange, LogStatus::Success, done.message, now).by(ctx)
    };
    storage::integration_log::record(tx, &[log]).await?;
    let changes = json!({
        "changed": changed,
        "partner_id": integration.partner_id,
        "provider": integration.provider.as_str(),
        "name": integration.name,
        "environment": integration.environment.as_str(),
        "is_active": integration.is_active,
    });
    audit::insert(tx, ctx, entry(done.action, integration.id, changes), now).await
}

fn entry(action: &'static str, id: Uuid, changes: Json) -> audit::Entry {
    audit::Entry { action, target_kind: "integration", target_id: id.to_string(), changes }
}

/// The names of what changed, as callers know them.
fn names(changed: &[&'static str], credentials: &[&'static str]) -> Vec<String> {
    let credentials = credentials.iter().map(|name| format!("credentials.{name}"));
    changed.iter().map(|name| (*name).to_owned()).chain(credentials).collect()
}

fn new_token() -> String {
    rand::rng().sample_iter(Alphanumeric).take(TOKEN_LENGTH).map(char::from).collect()
}
