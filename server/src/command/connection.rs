//! A running hub, called as an administrator.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use clap::Args;
use upbridge_client::{Client, Status, v1};
use upbridge_server::config::ClientConfig;

/// Which hub, and who calls.
#[derive(Args)]
pub struct Connection {
    /// The hub's URL; UPBRIDGE_URL when not given, http://127.0.0.1:3345 when neither is.
    #[arg(long, global = true)]
    url: Option<String>,
    /// Sign in as this administrator, with UPBRIDGE_PASSWORD or the password that is asked for. Without it
    /// UPBRIDGE_TOKEN is who calls.
    #[arg(long, global = true)]
    email: Option<String>,
}

/// A hub that is called as an administrator; signed out at the end when it was signed in for the command.
pub struct Session {
    /// Calls as the administrator.
    pub client: Client,
    ends: bool,
}

impl Connection {
    /// Connects and signs in.
    pub async fn open(&self) -> anyhow::Result<Session> {
        let config = ClientConfig::load()?;
        let client = Client::connect(self.url.as_deref().unwrap_or(&config.url)).await?;
        let Some(email) = &self.email else {
            let token = config.token.context(
                "set UPBRIDGE_TOKEN to an administrator's token, or sign in with --email and UPBRIDGE_PASSWORD",
            )?;
            return Ok(Session { client: client.with_bearer(token.expose()), ends: false });
        };
        let password = match config.password {
            Some(password) => password.expose().to_owned(),
            None => ask_password(email)?,
        };
        let login = v1::LoginRequest { email: email.clone(), password };
        let token = client.auth().login(login).await.map_err(refused)?.into_inner().token;
        Ok(Session { client: client.with_bearer(token), ends: true })
    }
}

impl Session {
    /// Ends the session that was opened for the command.
    pub async fn close(self) {
        if self.ends
            && let Err(status) = self.client.auth().logout(v1::LogoutRequest::default()).await
        {
            eprintln!("upbridge: the session could not be ended: {}", status.message());
        }
    }
}

fn ask_password(email: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("set UPBRIDGE_PASSWORD: there is no terminal to ask for the password on");
    }
    rpassword::prompt_password(format!("Password of {email}: ")).context("the password could not be read")
}

/// Asks before something is destroyed.
pub fn confirm(what: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{what}; add --yes to confirm");
    }
    eprint!("{what}. Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}

/// A refusal for people: what the hub says, the fields at fault, and the reason for programs.
pub fn refused(status: Status) -> anyhow::Error {
    let mut text = status.message().to_owned();
    for (field, description) in upbridge_client::field_violations(&status) {
        text += &format!("\n  {field} {description}");
    }
    match upbridge_client::reason(&status) {
        Some(reason) => anyhow::anyhow!("{text} ({reason})"),
        None => anyhow::anyhow!("{text} ({:?})", status.code()),
    }
}
