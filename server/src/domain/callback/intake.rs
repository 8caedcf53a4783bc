//! How callbacks are stored: sets of those that are taken, and of those that are refused, each in a few statements.

use std::collections::{HashMap, HashSet};

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::devops::DevopsLine;
use crate::domain::hook;
use crate::model::callback::Claim;
use crate::model::failure::FailureClass;
use crate::model::hook::IntegrationEvent;
use crate::model::integration::NewLog;
use crate::model::webhook::Receipt;
use crate::model::{Error, Instant, Result};
use crate::storage::callback::{self as stored, Entered, Entry, WebhookEntry};
use crate::storage::{Batch, WriteTx, integration_log};

/// Why nobody is told of what could be made of something that has come.
const OUTDONE: &str = "it is signed like a success that came before; ask the provider what the payment is";
/// What telling weighs beside what is stored anyway.
const TOLD_WEIGHT: usize = 25;

/// A callback to be stored, with everything it causes.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// What tells it from every other of its integration.
    pub key: String,
    /// What its signature was given for, where that has to be remembered.
    pub claim: Option<Claim>,
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
pub struct ArrivalBatch {
    /// Whether the DevOps module is told of payments.
    pub devops: DevopsLine,
}

impl Batch for ArrivalBatch {
    type Item = Arrival;
    type Answer = Receipt;

    /// One that is told is a delivery for each of up to a hundred webhooks.
    fn weight(item: &Arrival) -> usize {
        if item.event.is_some() { 1 + TOLD_WEIGHT } else { 1 }
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Arrival],
    ) -> BoxFuture<'a, Result<Vec<Result<Receipt>>>> {
        Box::pin(async move {
            let forged = forged(tx, items).await?;
            let mut first: HashMap<(Uuid, &str), &Arrival> = HashMap::with_capacity(items.len());
            let mut firsts: Vec<&Arrival> = Vec::with_capacity(items.len());
            for item in items.iter().filter(|item| !forged.contains(&item.log.id)) {
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
            let outdone = outdone(tx, &new).await?;
            let doubted = |item: &&Arrival| (*item).clone().doubted(FailureClass::Auth, OUTDONE);
            let (doubtful, sure): (Vec<&Arrival>, Vec<&Arrival>) =
                new.into_iter().partition(|item| outdone.contains(&item.log.id));
            let doubtful: Vec<Arrival> = doubtful.iter().map(doubted).collect();
            store(tx, &sure.into_iter().chain(&doubtful).collect::<Vec<_>>(), self.devops).await?;
            let standing: HashMap<(Uuid, &str), Entered> =
                entries.iter().map(|entry| (entry.integration_id, entry.key)).zip(entered).collect();
            let answer = |item: &&Arrival| {
                if forged.contains(&item.log.id) {
                    return Err(Error::invalid("signature_key", "was given for another order, code and amount"));
                }
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

/// Arrivals with a signature that came before with something else. What is signed has nothing between its parts, so that
/// the end of one might be read as the beginning of the next; whoever caught a signature could use it for another order.
/// The ledger remembers what each came with first, as the id of an entry nobody has.
async fn forged(tx: &mut WriteTx, items: &[&Arrival]) -> Result<HashSet<Uuid>> {
    let mut claims: HashMap<Uuid, Entry<'_>> = HashMap::new();
    let id_of = |item: &Arrival, claim: &Claim| {
        let digest = Sha256::new().chain_update(item.log.integration_id).chain_update(claim.content).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(id)
    };
    for item in items {
        let Some(claim) = &item.claim else { continue };
        let (integration_id, id) = (item.log.integration_id, id_of(item, claim));
        claims.entry(id).or_insert(Entry { integration_id, key: &claim.key, log_id: id, at: item.log.at });
    }
    let entries: Vec<Entry<'_>> = claims.into_values().collect();
    let entered = stored::enter(tx, &entries).await?;
    let false_claims: HashSet<Uuid> = entries
        .iter()
        .zip(entered)
        .filter(|(entry, entered)| matches!(entered, Entered::Known(id) if *id != entry.log_id))
        .map(|(entry, _)| entry.log_id)
        .collect();
    let is_forged =
        |item: &&&Arrival| item.claim.as_ref().is_some_and(|claim| false_claims.contains(&id_of(item, claim)));
    Ok(items.iter().filter(is_forged).map(|item| item.log.id).collect())
}

/// New arrivals that may be made of something else, which has come: before them or with them.
async fn outdone(tx: &WriteTx, new: &[&Arrival]) -> Result<HashSet<Uuid>> {
    let other = |item: &&Arrival| {
        let key = item.claim.as_ref()?.outdone_by.clone()?;
        Some((item.log.id, (item.log.integration_id, key)))
    };
    let others: Vec<(Uuid, (Uuid, String))> = new.iter().filter_map(other).collect();
    let places: Vec<(Uuid, &str)> = others.iter().map(|(_, (integration_id, key))| (*integration_id, &**key)).collect();
    let known = stored::known(tx, &places).await?;
    Ok(others.into_iter().filter(|(_, place)| known.contains_key(place)).map(|(id, _)| id).collect())
}

async fn store(tx: &mut WriteTx, new: &[&Arrival], devops: DevopsLine) -> Result<()> {
    let logs: Vec<NewLog> =
        new.iter().flat_map(|item| [Some(item.log.clone()), item.transaction.clone()]).flatten().collect();
    integration_log::record(tx, &logs).await?;
    stored::log(tx, &new.iter().map(|item| &item.webhook).collect::<Vec<_>>()).await?;
    let events: Vec<IntegrationEvent> = new.iter().filter_map(|item| item.event.clone()).collect();
    devops.paid(tx, &events);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::integration::{Action, LogStatus};

    #[test]
    fn a_callback_that_is_told_weighs_as_much_as_what_telling_it_writes() {
        let at = Instant::UNIX_EPOCH;
        let log = NewLog::new(Uuid::nil(), Action::Webhook, LogStatus::Success, String::new(), at);
        let (payload, response, error, ip) = (None, None, None, String::new());
        let webhook = WebhookEntry { id: log.id, provider: None, payload, response, error, is_proved: true, ip, at };
        let kept = Arrival { key: String::new(), claim: None, log, transaction: None, event: None, webhook };
        assert_eq!(ArrivalBatch::weight(&kept), 1);
        let data = serde_json::Value::Null;
        let event = IntegrationEvent { integration_id: Uuid::nil(), name: "payment.success", data, at };
        assert_eq!(ArrivalBatch::weight(&Arrival { event: Some(event), ..kept }), 26);
    }
}
