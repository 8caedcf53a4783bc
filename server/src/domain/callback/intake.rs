//! How callbacks are stored: sets of those that are taken, and of those that are refused, each in a few statements.

use std::collections::HashMap;

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::domain::hook;
use crate::model::hook::IntegrationEvent;
use crate::model::integration::NewLog;
use crate::model::webhook::Receipt;
use crate::model::{Error, Instant, Result};
use crate::storage::callback::{self as stored, Entered, Entry, WebhookEntry};
use crate::storage::{Batch, WriteTx, integration_log};

/// A callback to be stored, with everything it causes.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// What tells it from every other of its integration.
    pub key: String,
    /// The entry that it came; its id is what the provider is answered.
    pub log: NewLog,
    /// The entry of the payment or the message whose state it tells.
    pub transaction: Option<NewLog>,
    /// What webhooks are told.
    pub event: Option<IntegrationEvent>,
    /// Its entry in the log of everybody's webhooks.
    pub webhook: WebhookEntry,
}

/// The lane of callbacks: what was answered is in the ledger, in the logs, and with those who are told.
pub struct ArrivalBatch;

impl Batch for ArrivalBatch {
    type Item = Arrival;
    type Answer = Receipt;

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Arrival],
    ) -> BoxFuture<'a, Result<Vec<Result<Receipt>>>> {
        Box::pin(async move {
            let mut first: HashMap<(Uuid, &str), &Arrival> = HashMap::with_capacity(items.len());
            let mut firsts: Vec<&Arrival> = Vec::with_capacity(items.len());
            for item in items {
                first.entry((item.log.integration_id, &item.key)).or_insert_with(|| {
                    firsts.push(item);
                    item
                });
            }
            let entries: Vec<Entry<'_>> = firsts
                .iter()
                .map(|item| Entry {
                    integration_id: item.log.integration_id,
                    key: &item.key,
                    log_id: item.log.id,
                    at: item.log.at,
                })
                .collect();
            let entered = stored::enter(tx, &entries).await?;
            let new: Vec<&Arrival> = firsts
                .iter()
                .zip(&entered)
                .filter(|(_, entered)| **entered == Entered::New)
                .map(|(item, _)| *item)
                .collect();
            store(tx, &new).await?;
            let standing: HashMap<(Uuid, &str), Entered> =
                entries.iter().map(|entry| (entry.integration_id, entry.key)).zip(entered).collect();
            let answer = |item: &&Arrival| {
                let place = (item.log.integration_id, item.key.as_str());
                match (standing.get(&place), first.get(&place)) {
                    (Some(Entered::New), Some(first)) => {
                        Ok(Receipt { event_id: first.log.id, is_duplicate: first.log.id != item.log.id })
                    }
                    (Some(Entered::Known(id)), _) => Ok(Receipt { event_id: *id, is_duplicate: true }),
                    _ => Err(Error::NotFound { what: "integration" }),
                }
            };
            Ok(items.iter().map(answer).collect())
        })
    }
}

async fn store(tx: &mut WriteTx, new: &[&Arrival]) -> Result<()> {
    let logs: Vec<NewLog> =
        new.iter().flat_map(|item| [Some(item.log.clone()), item.transaction.clone()]).flatten().collect();
    integration_log::record(tx, &logs).await?;
    stored::log(tx, &new.iter().map(|item| &item.webhook).collect::<Vec<_>>()).await?;
    let events: Vec<IntegrationEvent> = new.iter().filter_map(|item| item.event.clone()).collect();
    let Some(now) = new.iter().map(|item| item.log.at).max() else { return Ok(()) };
    hook::tell(tx, &events, now).await
}

/// A callback that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Its entry in the integration's log, when there is such an integration.
    pub log: Option<NewLog>,
    /// Its entry in the log of everybody's webhooks.
    pub webhook: WebhookEntry,
}

impl Refusal {
    /// When it came.
    pub fn at(&self) -> Instant {
        self.webhook.at
    }
}

/// The lane of refusals.
pub struct RefusalBatch;

impl Batch for RefusalBatch {
    type Item = Refusal;
    type Answer = ();

    fn apply<'a>(&'a self, tx: &'a mut WriteTx, items: &'a [&'a Refusal]) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            let logs: Vec<NewLog> = items.iter().filter_map(|item| item.log.clone()).collect();
            integration_log::record(tx, &logs).await?;
            stored::log(tx, &items.iter().map(|item| &item.webhook).collect::<Vec<_>>()).await?;
            Ok(items.iter().map(|_| Ok(())).collect())
        })
    }
}
