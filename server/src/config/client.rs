//! What commands that call a running hub are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
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

/// Where the hub that HOST, PORT and TLS_CERT_FILE describe is called from its own machine.
pub fn own_url() -> anyhow::Result<String> {
    let variables = gather(ENVIRONMENT)?;
    let text = |name: &str, default: &str| variables.get(name).map_or_else(|| default.to_owned(), String::clone);
    let host: IpAddr = text("HOST", "127.0.0.1").parse().context("HOST must be an IP address")?;
    let port: u16 = text("PORT", "3345").parse().context("PORT must be a port, 0 to 65535")?;
    // One that listens on every address is called on this machine's own.
    let host = match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let scheme = if variables.contains_key("TLS_CERT_FILE") { "https" } else { "http" };
    Ok(format!("{scheme}://{}", SocketAddr::new(host, port)))
}
