//! What an administrator does with deliveries: looks at them, makes one up, sends them again.

use serde_json::json;
use uuid::Uuid;

use super::job_now;
use super::manage::{NO_HOOK, entry};
use crate::domain::Hub;
use crate::model::hook::{DeliveryFilter, DeliveryStatus, HookDelivery, HookTry, IntegrationEvent, Replay, event_of};
use crate::model::page::{Page, Paged, Place};
use crate::model::{Ctx, Error, Result};
use crate::storage::hook_delivery::NewDelivery;
use crate::storage::{self, WriteTx};

impl Hub {
    /// Sends a webhook an event that did not happen.
    pub async fn send_test_event(&self, ctx: &Ctx, id: Uuid, event: Option<&str>) -> Result<HookDelivery> {
        let hook = storage::hook::find(self.store.read(), id).await?.ok_or(NO_HOOK)?;
        let provider = self.integration_of_hooks(hook.integration_id).await?.provider;
        let name = match event {
            Some(event) => event_of(provider, event),
            None => provider.spec().events.first().copied(),
        };
        let name = name.ok_or_else(|| Error::invalid("event", "must be an event that the integration reports"))?;
        let now = self.now();
        let data = json!({ "integrationId": hook.integration_id, "provider": provider.as_str(), "test": true });
        let event = IntegrationEvent { integration_id: hook.integration_id, name, data, at: now };
        let delivery = NewDelivery {
            id: Uuid::now_v7(),
            webhook_id: id,
            integration_id: hook.integration_id,
            event: name.to_owned(),
            payload: event.text(),
            status: DeliveryStatus::Pending,
            is_test: true,
            created_at: now,
            due_at: now,
        };
        let send = self.store.write((ctx.clone(), delivery, now), |tx, (ctx, delivery, now)| {
            Box::pin(async move {
                storage::hook::find(tx.reader(), delivery.webhook_id).await?.ok_or(NO_HOOK)?;
                storage::hook_delivery::insert(tx, std::slice::from_ref(delivery)).await?;
                tx.enqueue(job_now(delivery.webhook_id, *now));
                let (target, changes) =
                    (("webhook", delivery.webhook_id.to_string()), json!({ "event": delivery.event }));
                entry(tx, ctx, "webhook.tested", target, changes, *now).await?;
                found(tx, delivery.id).await
            })
        });
        send.await
    }

    /// A page of a webhook's deliveries, newest first.
    pub async fn list_hook_deliveries(
        &self,
        id: Uuid,
        filter: &DeliveryFilter,
        page: &Page,
    ) -> Result<Paged<HookDelivery>> {
        storage::hook::find(self.store.read(), id).await?.ok_or(NO_HOOK)?;
        let (deliveries, reached) = storage::hook_delivery::list(self.store.read(), id, filter, page).await?;
        let place = |id| Place { group: String::new(), id };
        Ok(page.cut_searched(deliveries, |delivery| place(delivery.id), reached.map(place)))
    }

    /// One delivery, and its tries.
    pub async fn get_hook_delivery(&self, id: Uuid) -> Result<(HookDelivery, Vec<HookTry>)> {
        let store = &self.store;
        let delivery = storage::hook_delivery::find(store.read(), id).await?;
        let delivery = delivery.ok_or(Error::NotFound { what: "delivery" })?;
        let tries = storage::hook_delivery::tries(store.read(), store.dialect(), id).await?;
        Ok((delivery, tries))
    }

    /// Sends one delivery again.
    pub async fn resend_hook_delivery(&self, ctx: &Ctx, id: Uuid) -> Result<HookDelivery> {
        let input = (ctx.clone(), id, self.now());
        let resend = self.store.write(input, |tx, (ctx, id, now)| {
            Box::pin(async move {
                let delivery = found(tx, *id).await?;
                active(tx, delivery.webhook_id).await?;
                if !storage::hook_delivery::resend(tx, *id, *now).await? {
                    return Err(Error::State { message: "the delivery is on its way" });
                }
                tx.enqueue(job_now(delivery.webhook_id, *now));
                let target = ("webhook_delivery", id.to_string());
                entry(tx, ctx, "webhook_delivery.resent", target, json!({ "event": delivery.event }), *now).await?;
                found(tx, *id).await
            })
        });
        resend.await
    }

    /// Sends again what a webhook missed; says how many, and whether there are more.
    pub async fn replay_hook_deliveries(&self, ctx: &Ctx, id: Uuid, replay: Replay) -> Result<(u64, bool)> {
        let mut ids = storage::hook_delivery::missed(self.store.read(), self.store.dialect(), id, &replay).await?;
        let more = ids.len() as u64 > replay.most;
        ids.truncate(replay.most as usize);
        let input = (ctx.clone(), id, replay, ids, self.now());
        let replay = self.store.write(input, move |tx, (ctx, id, replay, ids, now)| {
            Box::pin(async move {
                active(tx, *id).await?;
                let replayed = storage::hook_delivery::replay(tx, ids, *now).await?;
                if replayed > 0 {
                    tx.enqueue(job_now(*id, *now));
                }
                let changes = json!({ "status": replay.status.map(DeliveryStatus::as_str), "event": replay.event, "replayed": replayed });
                entry(tx, ctx, "webhook.replayed", ("webhook", id.to_string()), changes, *now).await?;
                Ok((replayed, more))
            })
        });
        replay.await
    }
}

async fn found(tx: &WriteTx, id: Uuid) -> Result<HookDelivery> {
    let delivery = storage::hook_delivery::find(tx.reader(), id).await?;
    delivery.ok_or(Error::NotFound { what: "delivery" })
}

async fn active(tx: &WriteTx, id: Uuid) -> Result<()> {
    let hook = storage::hook::find(tx.reader(), id).await?.ok_or(NO_HOOK)?;
    if hook.is_active { Ok(()) } else { Err(Error::State { message: "the webhook is disabled; make it active first" }) }
}
