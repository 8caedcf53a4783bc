//! Callbacks of providers: who is believed, what is stored before they are answered, and who is told.
//!
//! The order of an arrival: the coarse limit by address, the integration, the proof over the raw bytes, the limit of the
//! integration; only then is anything of it read. What is read is stored in one transaction ([`intake`]): the key that
//! tells a repeated one, the entries in the logs, and the events for those who are told. Then it is answered; nothing is
//! called out while a provider waits.
//!
//! Guaranteed: what was answered is stored, once, however often and however many at a time it comes. Who proves nothing
//! learns nothing: a callback for an integration that does not exist is refused in the same words as one with a wrong
//! signature. Refused callbacks are logged without anything of their bodies; of many only some are.

mod arrival;
pub mod intake;
mod proof;
mod refused;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::intake::{ArrivalBatch, RefusalBatch};
use self::proof::{Opened, midtrans_key};
use super::cache::Cache;
use super::devops::DevopsLine;
use super::integration::unseal;
use super::limit::{FairSampler, Sampler};
use super::{Hub, STALENESS};
use crate::model::callback::{self as model, Callback, PublicUrl};
use crate::model::failure::FailureClass;
use crate::model::integration::{Integration, Provider};
use crate::model::webhook::Receipt;
use crate::model::{Ctx, Error, Principal, Result};
use crate::storage::{self, Lane, Store};

/// Refused callbacks logged a minute at most: of those that proved nothing, and of those that did.
const UNPROVED_LOGGED: u32 = 60;
const PROVED_LOGGED: u32 = 600;
/// The same of one integration, of those that proved nothing.
const UNPROVED_LOGGED_OF_ONE: NonZeroU32 = NonZeroU32::new(12).unwrap();
/// The hub's part for callbacks.
pub(super) struct Callbacks {
    public_url: PublicUrl,
    arrivals: Lane<ArrivalBatch>,
    refusals: Lane<RefusalBatch>,
    unproved: FairSampler,
    proved: Sampler,
    /// Of more candidates than are tried.
    crowded: Sampler,
    /// Integrations at Midtrans that are at work. Anybody may ask for a comparison with all of them, so they are not read
    /// anew for each.
    midtrans: Cache<(), Arc<Vec<Opened>>>,
}

impl Callbacks {
    pub(super) fn new(store: &Store, public_url: PublicUrl, devops: DevopsLine) -> Callbacks {
        Callbacks {
            public_url,
            arrivals: store.lane(ArrivalBatch { devops }),
            refusals: store.lane(RefusalBatch),
            unproved: FairSampler::new(UNPROVED_LOGGED, UNPROVED_LOGGED_OF_ONE, Duration::from_secs(60)),
            proved: Sampler::new(PROVED_LOGGED, Duration::from_secs(60)),
            crowded: Sampler::new(1, Duration::from_secs(60)),
            midtrans: Cache::new(1, STALENESS),
        }
    }
}

impl Hub {
    /// Stores a callback of an integration's provider. `token` is the secret of the path.
    pub async fn handle_provider_callback(&self, ctx: &Ctx, id: &str, token: Option<&str>) -> Result<Receipt> {
        let callback = self.look_at(ctx)?;
        let Ok(id) = Uuid::parse_str(id) else {
            return Err(self.refuse_unproved(ctx, None, "the path has no id of an integration"));
        };
        let Some((integration, sealed)) = storage::integration::find_sealed(self.store.read(), id).await? else {
            return Err(self.refuse_unproved(ctx, None, "there is no such integration"));
        };
        let credentials = match unseal(&self.sealer, id, &sealed) {
            Ok(credentials) => credentials,
            // The hub cannot do its part, and may soon: the provider should send it again.
            Err(why) => return Err(self.fail_to_open(ctx, id, &why)),
        };
        if !storage::partner::is_active(self.store.read(), integration.partner_id).await? {
            return Err(self.refuse_unproved(ctx, Some(&integration), "the partner is not active"));
        }
        if let Err(why) = self.prove_callback(&integration, &credentials, callback, token) {
            return Err(self.refuse_unproved(ctx, Some(&integration), why));
        }
        self.take_callback(ctx, callback, &integration).await
    }

    /// Stores a notification of Midtrans for the first integration whose key it is signed with.
    pub async fn handle_midtrans_notification(&self, ctx: &Ctx) -> Result<Receipt> {
        let callback = self.look_at(ctx)?;
        // Read once, however many keys it is compared with.
        let signed = match model::midtrans::Signed::of(&callback.body) {
            Ok(signed) => signed,
            Err(why) => return Err(self.refuse_unproved(ctx, None, why)),
        };
        let candidates = self.callbacks.midtrans.get_or_load_once((), || self.open_active(Provider::Midtrans)).await?;
        let proved =
            |(_, credentials): &&Opened| midtrans_key(credentials).is_some_and(|key| signed.prove(key).is_ok());
        match candidates.iter().find(proved) {
            Some((integration, _)) => self.take_callback(ctx, callback, integration).await,
            None => {
                Err(self.refuse_unproved(ctx, None, "no active integration at midtrans has the key it is signed with"))
            }
        }
    }

    /// Forgets what few refusals there were lately.
    pub(super) fn prune_callbacks(&self) {
        self.callbacks.unproved.prune();
    }

    /// Forgets which integrations a notification may belong to: one of them, or a partner, is another now.
    pub(super) fn forget_callback_candidates(&self) {
        self.callbacks.midtrans.forget(&());
    }

    /// The callback of a call, when its address has not proved nothing too often: nothing is done for others.
    fn look_at<'a>(&self, ctx: &'a Ctx) -> Result<&'a Callback> {
        let callback = callback(ctx)?;
        self.limits.check_unproved(ctx.ip)?;
        Ok(callback)
    }

    /// Reads and stores a callback that is proved.
    async fn take_callback(&self, ctx: &Ctx, callback: &Callback, integration: &Integration) -> Result<Receipt> {
        self.limits.check_callback(integration.id)?;
        let now = self.now();
        if !integration.is_active {
            self.refuse_proved(ctx, callback, integration, FailureClass::Config, "the integration is not active").await;
            return Err(Error::State { message: "the integration is not at work; activate it, and send this again" });
        }
        let reading = match model::read(integration.provider, integration.environment, callback) {
            Ok(reading) => reading,
            Err(model::Unreadable { field, description }) => {
                let why = format!("{field} {description}");
                self.refuse_proved(ctx, callback, integration, FailureClass::Garbage, &why).await;
                return Err(Error::invalid(field, description));
            }
        };
        if let Some((_, why)) = reading.doubt {
            tracing::warn!(integration_id = %integration.id, why, "a callback is kept, and nobody is told of it");
        }
        let stored = self.callbacks.arrivals.submit(arrival::arrival(ctx, callback, integration, reading, now)).await;
        match stored {
            // It was deleted a moment ago, and is as unknown as any other now.
            Err(Error::NotFound { .. }) => Err(self.refuse_unproved(ctx, None, "the integration was deleted")),
            Err(Error::Invalid { field, description }) => {
                let why = format!("{field} {description}");
                self.refuse_proved(ctx, callback, integration, FailureClass::Auth, &why).await;
                Err(Error::Invalid { field, description })
            }
            stored => stored,
        }
    }
}

fn callback(ctx: &Ctx) -> Result<&Callback> {
    match &ctx.principal {
        Principal::Provider(callback) => Ok(callback),
        _ => Err(Error::internal("a callback without its bytes")),
    }
}

/// An address as it is logged.
fn text_of(ip: Option<IpAddr>) -> String {
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}
