//! How callbacks prove themselves: each provider's way, with the credentials of an integration that is named, or of whichever
//! has the key it is signed with.

use std::sync::Arc;

use super::refused::sampled;
use crate::domain::Hub;
use crate::domain::integration::{complain, unseal};
use crate::model::Result;
use crate::model::callback::{self as model, Callback, Refused};
use crate::model::integration::catalogue::CallbackProof;
use crate::model::integration::{Credentials, Integration, Provider};
use crate::storage::callback::list_active;

/// Integrations whose keys a notification that names none is tried with: the newest. What is compared with each costs
/// about a microsecond, and anybody may ask for it.
const CANDIDATES: usize = 10_000;
/// How many of them are read at a time.
const CHUNK: usize = 500;

/// An integration with the credentials that prove its callbacks.
pub(super) type Opened = (Integration, Credentials);

impl Hub {
    /// Integrations of a provider that are at work, the oldest first.
    pub(super) async fn open_active(&self, provider: Provider) -> Result<Arc<Vec<Opened>>> {
        let (mut opened, mut seen, mut before) = (Vec::new(), 0, None);
        loop {
            let listed = list_active(self.store.read(), provider, before, CHUNK).await?;
            (seen, before) = (seen + listed.len(), listed.last().map(|(integration, _)| integration.id));
            let is_last = listed.len() < CHUNK;
            // One that does not open is passed over; it says so in the log.
            opened.extend(listed.into_iter().filter_map(|(integration, sealed)| {
                match unseal(&self.sealer, integration.id, &sealed) {
                    Ok(credentials) => Some((integration, credentials)),
                    Err(why) => {
                        let said = sampled(self.callbacks.unproved.take(Some(integration.id)), &why);
                        said.into_iter().for_each(|why| complain(integration.id, &why));
                        None
                    }
                }
            }));
            if is_last {
                break;
            }
            if seen >= CANDIDATES {
                if self.callbacks.crowded.take().is_some() {
                    tracing::warn!(
                        provider = provider.as_str(),
                        tried = CANDIDATES,
                        "there are more integrations than a notification without an id is tried with; give those that \
                         are older their own callback address"
                    );
                }
                break;
            }
        }
        // The oldest first: of those with one key it is the one that had it first.
        opened.reverse();
        Ok(Arc::new(opened))
    }

    /// Whether a callback proves that it is the provider's of this integration.
    pub(super) fn prove_callback(
        &self,
        integration: &Integration,
        credentials: &Credentials,
        callback: &Callback,
        token: Option<&str>,
    ) -> Result<(), Refused> {
        let secret = |name: &str| credentials.text(name).filter(|secret| !secret.is_empty());
        let signs = integration.provider.spec().proof != CallbackProof::Path;
        if signs && token.is_some() {
            return Err("the path goes on behind the id of an integration whose provider signs");
        }
        match integration.provider {
            Provider::Midtrans => {
                let key = midtrans_key(credentials).ok_or("the integration has no serverKey")?;
                model::midtrans::prove(key, &callback.body)
            }
            Provider::Xendit => {
                model::xendit::prove(secret("callbackToken").ok_or("the integration has no callbackToken")?, callback)
            }
            Provider::Stripe => {
                let secret = secret("webhookSecret").ok_or("the integration has no webhookSecret")?;
                let header = callback.header("stripe-signature");
                model::stripe::prove(secret, header, &callback.body, self.now().timestamp())
            }
            Provider::Twilio => {
                let secret = secret("authToken").ok_or("the integration has no authToken")?;
                let url = self.callbacks.public_url.of(callback);
                model::twilio::prove(secret, &url.ok_or("PUBLIC_URL is not set, which Twilio signs")?, callback)
            }
            Provider::Wablas | Provider::Fonnte | Provider::Smtp => {
                model::prove_path(integration.callback_digest.as_deref(), token)
            }
        }
    }
}

/// The key an account at Midtrans signs with.
pub(super) fn midtrans_key(credentials: &Credentials) -> Option<&str> {
    let secret = |name: &str| credentials.text(name).filter(|secret| !secret.is_empty());
    secret("signatureKey").or(secret("serverKey"))
}
