//! Integrations: how they are configured, and what they are opened with.

use uuid::Uuid;

use super::Hub;
use crate::model::integration::{Credentials, Integration};
use crate::model::seal::Sealer;
use crate::model::{Error, Result};
use crate::storage::{self, integration::CREDENTIALS};

impl Hub {
    /// An integration with what it proves itself with, opened. For the hub's own calls; no door shows any of it.
    pub(crate) async fn integration_with_credentials(&self, id: Uuid) -> Result<(Integration, Credentials)> {
        let found = storage::integration::find_sealed(self.store.read(), id).await?;
        let (integration, sealed) = found.ok_or(Error::NotFound { what: "integration" })?;
        let credentials = open(&self.sealer, id, &sealed)?;
        Ok((integration, credentials))
    }
}

/// Opens what an integration is sealed with.
fn open(sealer: &Sealer, id: Uuid, sealed: &str) -> Result<Credentials> {
    let opened = sealer.open(CREDENTIALS, id, sealed).map_err(|why| {
        tracing::error!(integration_id = %id, %why, "the credentials of an integration cannot be decrypted");
        Error::State { message: "the integration's credentials cannot be decrypted; give them anew, or configure the key they are encrypted with" }
    })?;
    Credentials::parse(&opened)
}
