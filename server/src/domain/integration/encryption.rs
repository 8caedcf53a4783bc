//! Sealing anew with the current key what is sealed with a previous one, so that the previous one can be given up.

use serde_json::json;
use uuid::Uuid;

use crate::domain::Hub;
use crate::model::seal::Sealer;
use crate::model::{Ctx, Error, Instant, Result};
use crate::storage::sealed::{self, PLACES, Place, Sealed};
use crate::storage::{WriteTx, audit};

/// Rows of one transaction.
const BATCH: u64 = 100;
/// Secrets after which a call answers.
const MOST: u64 = 1_000;

/// How far sealing anew has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Secrets that were sealed anew.
    pub rotated: u64,
    /// Secrets that are still sealed with a previous key.
    pub remaining: u64,
    /// Id of the key that seals.
    pub key_id: String,
}

/// What became of a batch.
#[derive(Default)]
struct Turn {
    rotated: u64,
    /// Whether something in it does not open.
    has_damaged: bool,
    /// The last row that was looked at; nothing when there was none.
    last: Option<Uuid>,
}

impl Hub {
    /// Seals anew what is sealed with a previous key, a bounded number of secrets; safe to repeat and to interrupt.
    pub async fn rotate_encryption(&self, ctx: &Ctx) -> Result<Rotated> {
        let previous = self.sealer.previous_ids();
        let (mut rotated, mut has_damaged) = (0, false);
        for place in &PLACES {
            for key_id in &previous {
                let mut after = Uuid::nil();
                while rotated < MOST {
                    let rows = (after, BATCH.min(MOST - rotated));
                    let input = (ctx.clone(), place, key_id.clone(), rows, self.sealer.clone(), self.now());
                    let turn = self
                        .store
                        .write(input, |tx, (ctx, place, key_id, rows, sealer, now)| {
                            Box::pin(take_turn(tx, ctx, place, key_id, *rows, sealer, *now))
                        })
                        .await?;
                    rotated += turn.rotated;
                    has_damaged |= turn.has_damaged;
                    let Some(last) = turn.last else { break };
                    after = last;
                }
            }
        }
        let counts = sealed::count(self.store.read(), self.store.dialect()).await?;
        let of = |is_meant: &dyn Fn(&String) -> bool| {
            counts.iter().filter(|(key_id, _)| is_meant(key_id)).map(|(_, secrets)| *secrets as u64).sum()
        };
        let remaining = of(&|key_id| previous.contains(key_id));
        let unknown: u64 = of(&|key_id| key_id != self.sealer.key_id() && !previous.contains(key_id));
        if rotated < MOST && unknown > 0 {
            tracing::error!(secrets = unknown, "secrets are encrypted with a key that is not configured");
            let message = "a secret is encrypted with a key the hub does not have; the others are done";
            return Err(Error::State { message });
        }
        if rotated < MOST && has_damaged {
            let message = "a secret is damaged and cannot be encrypted anew; the log names it, the others are done";
            return Err(Error::State { message });
        }
        Ok(Rotated { rotated, remaining, key_id: self.sealer.key_id().to_owned() })
    }
}

/// Seals a batch of rows anew.
async fn take_turn(
    tx: &mut WriteTx,
    ctx: &Ctx,
    place: &'static Place,
    key_id: &str,
    (after, most): (Uuid, u64),
    sealer: &Sealer,
    now: Instant,
) -> Result<Turn> {
    let held = sealed::hold(tx, place, key_id, after, most).await?;
    let mut turn = Turn { last: held.last().map(|row| row.id), ..Turn::default() };
    let mut anew = Vec::with_capacity(held.len());
    for row in held {
        match reseal(sealer, place, &row) {
            Some(row) => {
                turn.rotated += row.texts.iter().flatten().count() as u64;
                anew.push(row);
            }
            None => turn.has_damaged = true,
        }
    }
    if anew.is_empty() {
        return Ok(turn);
    }
    sealed::reseal(tx, place, key_id, sealer.key_id(), anew).await?;
    let entry = audit::Entry {
        action: "encryption.rotated",
        target_kind: "table",
        target_id: place.name().to_owned(),
        changes: json!({ "secrets": turn.rotated, "from_key": key_id, "to_key": sealer.key_id() }),
    };
    audit::insert(tx, ctx, entry, now).await?;
    Ok(turn)
}

/// A row sealed with the current key; nothing when a part of it does not open.
fn reseal(sealer: &Sealer, place: &Place, row: &Sealed) -> Option<Sealed> {
    let mut texts = row.texts.clone();
    for (text, purpose) in texts.iter_mut().zip(place.purposes()) {
        let Some(text) = text else { continue };
        match sealer.open(purpose, row.id, text) {
            Ok(plain) => *text = sealer.seal(purpose, row.id, &plain),
            Err(why) => {
                tracing::error!(table = place.name(), id = %row.id, %why, "a secret cannot be encrypted anew");
                return None;
            }
        }
    }
    Some(Sealed { id: row.id, texts })
}
