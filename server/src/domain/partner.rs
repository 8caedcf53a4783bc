//! Partners: those whose integrations the hub manages.

use serde_json::json;
use uuid::Uuid;

use super::Hub;
use crate::model::integration::{Partner, PartnerChange, PartnerFilter, PartnerStatus};
use crate::model::page::{Page, Paged, Place};
use crate::model::{Ctx, Error, Result};
use crate::storage::{self, audit};

impl Hub {
    /// A page of partners, newest first.
    pub async fn list_partners(&self, filter: &PartnerFilter, page: &Page) -> Result<Paged<Partner>> {
        let partners = storage::partner::list(self.store.read(), filter, page).await?;
        Ok(page.cut(partners, |partner| Place { group: String::new(), id: partner.id }))
    }

    /// One partner.
    pub async fn get_partner(&self, id: Uuid) -> Result<Partner> {
        storage::partner::find(self.store.read(), id).await?.ok_or(Error::NotFound { what: "partner" })
    }

    /// Adds a partner.
    pub async fn create_partner(&self, ctx: &Ctx, name: &str, status: PartnerStatus) -> Result<Partner> {
        let now = self.now();
        let partner =
            Partner { id: Uuid::now_v7(), name: checked_name(name)?, status, created_at: now, updated_at: now };
        self.store
            .write((ctx.clone(), partner), |tx, (ctx, partner)| {
                Box::pin(async move {
                    storage::partner::insert(tx, partner).await?;
                    let changes = json!({ "name": partner.name, "status": partner.status.as_str() });
                    audit::insert(tx, ctx, entry("partner.created", partner.id, changes), partner.created_at).await?;
                    Ok(partner.clone())
                })
            })
            .await
    }

    /// Changes parts of a partner.
    pub async fn update_partner(&self, ctx: &Ctx, id: Uuid, mut change: PartnerChange) -> Result<Partner> {
        change.name = change.name.as_deref().map(checked_name).transpose()?;
        let updated = self
            .store
            .write((ctx.clone(), id, change, self.now()), |tx, (ctx, id, change, now)| {
                Box::pin(async move {
                    let held = storage::partner::hold(tx, *id).await?.ok_or(Error::NotFound { what: "partner" })?;
                    let changed = change.of(&held);
                    if changed.is_empty() {
                        return Ok(held);
                    }
                    storage::partner::update(tx, *id, change, *now).await?;
                    let changes = json!({
                        "changed": changed,
                        "name": change.name,
                        "status": change.status.map(PartnerStatus::as_str),
                    });
                    audit::insert(tx, ctx, entry("partner.updated", *id, changes), *now).await?;
                    Ok(Partner {
                        name: change.name.clone().unwrap_or(held.name),
                        status: change.status.unwrap_or(held.status),
                        updated_at: *now,
                        ..held
                    })
                })
            })
            .await?;
        self.forget_callback_candidates();
        Ok(updated)
    }

    /// Deletes a partner who has no integrations left.
    pub async fn delete_partner(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        self.store
            .write((ctx.clone(), id, self.now()), |tx, (ctx, id, now)| {
                Box::pin(async move {
                    let held = storage::partner::hold(tx, *id).await?.ok_or(Error::NotFound { what: "partner" })?;
                    if storage::partner::has_integrations(tx, *id).await? {
                        return Err(Error::State { message: "the partner has integrations; delete them first" });
                    }
                    storage::partner::delete(tx, *id).await?;
                    let changes = json!({ "name": held.name });
                    audit::insert(tx, ctx, entry("partner.deleted", *id, changes), *now).await
                })
            })
            .await
    }
}

/// A name that says something.
pub(super) fn checked_name(name: &str) -> Result<String> {
    match name.trim() {
        "" => Err(Error::invalid("name", "must not be blank")),
        name if name.chars().any(char::is_control) => Err(Error::invalid("name", "must not hold control characters")),
        name => Ok(name.to_owned()),
    }
}

fn entry(action: &'static str, id: Uuid, changes: crate::model::Json) -> audit::Entry {
    audit::Entry { action, target_kind: "partner", target_id: id.to_string(), changes }
}
