//! What commands that call a running hub are told.

use upbridge_service::config::{Secret, gather};

use super::ENVIRONMENT;

/// Where the hub is, and who calls.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `UPBRIDGE_URL`
    pub url: String,
    /// `UPBRIDGE_TOKEN`
    pub token: Option<Secret>,
    /// `UPBRIDGE_PASSWORD`
    pub password: Option<Secret>,
}

impl ClientConfig {
    /// Reads the environment of this process and the `.env` files of the working directory.
    pub fn load() -> anyhow::Result<ClientConfig> {
        let mut variables = gather(ENVIRONMENT)?;
        let mut secret = |name| variables.remove(name).map(Secret::new);
        let (token, password) = (secret("UPBRIDGE_TOKEN"), secret("UPBRIDGE_PASSWORD"));
        let url = variables.remove("UPBRIDGE_URL").unwrap_or_else(|| "http://127.0.0.1:3345".to_owned());
        Ok(ClientConfig { url, token, password })
    }
}
