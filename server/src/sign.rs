//! `upbridge sign`: the signature of a webhook, and the curl line that sends it.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use upbridge_server::config::{self, Config};
use upbridge_server::model::signature::{Key, body};
use uuid::Uuid;

/// What to sign, and how.
#[derive(Args)]
pub struct Sign {
    /// The file that holds the body, sent byte for byte. One that has a `signature` gets a good one in its place,
    /// because whatever is given must hold.
    file: PathBuf,
    /// How the signature is given.
    #[arg(long, value_enum, default_value_t = Form::Header)]
    form: Form,
    /// The variable that holds the secret; one in an .env file serves too. The hub's own secret when neither this nor
    /// --secret is given.
    #[arg(long, value_name = "NAME", conflicts_with = "secret")]
    secret_env: Option<String>,
    /// The secret itself; others on this machine can see it while the command runs.
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// When it is signed: `now`, or unix seconds. Only where the form has a timestamp.
    #[arg(long, default_value = "now")]
    timestamp: String,
    /// The id of the event, for --form standard; a new one when absent.
    #[arg(long)]
    id: Option<String>,
    /// Where it is sent; when absent, the hub on this machine that HOST, PORT and TLS_CERT_FILE describe, with the path
    /// the body's members suggest.
    #[arg(long)]
    url: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// `X-Webhook-Signature`, hex, over the body.
    Header,
    /// The same with `X-Webhook-Timestamp`, over `timestamp.body`.
    Timestamped,
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature` of Standard Webhooks; the secret is a `whsec_` one.
    Standard,
    /// The body's own member `signature`.
    Body,
}

/// The signature on a line, and the curl line after it.
pub fn sign(command: &Sign, now: i64) -> anyhow::Result<String> {
    let read = std::fs::read(&command.file).with_context(|| command.file.display().to_string())?;
    let key = Key::parse(&secret(command)?).map_err(|what| anyhow::anyhow!("the secret {what}"))?;
    let timestamp = match command.timestamp.as_str() {
        "now" => now,
        seconds => seconds.parse().context("--timestamp is `now` or unix seconds")?,
    };
    let own = body::split(&read).ok().is_some_and(|split| split.signature.is_some());
    let is_inside = own || command.form == Form::Body;
    let body = match is_inside {
        true => key.sign_body(&read).map_err(anyhow::Error::msg)?,
        false => read,
    };
    let mut headers = vec![("Content-Type", "application/json".to_owned())];
    let signature = match command.form {
        Form::Header => {
            let signature = key.sign(None, &body);
            headers.push(("X-Webhook-Signature", signature.clone()));
            signature
        }
        Form::Timestamped => {
            let signature = key.sign(Some(timestamp), &body);
            headers.push(("X-Webhook-Timestamp", timestamp.to_string()));
            headers.push(("X-Webhook-Signature", signature.clone()));
            signature
        }
        Form::Standard => {
            let id = command.id.clone().unwrap_or_else(|| format!("msg_{}", Uuid::now_v7().simple()));
            let signature = key.sign_standard(&id, timestamp, &body);
            let signature = signature.context("Standard Webhooks take a secret that begins with whsec_")?;
            headers.push(("webhook-id", id));
            headers.push(("webhook-timestamp", timestamp.to_string()));
            headers.push(("webhook-signature", signature.clone()));
            signature
        }
        Form::Body => {
            let split = body::split(&body).map_err(anyhow::Error::msg)?;
            String::from_utf8(split.signature.unwrap_or_default())?
        }
    };
    let url = match &command.url {
        Some(url) => url.clone(),
        None => format!("{}{}", config::own_url()?, path(&body)),
    };
    let (source, data) = match is_inside {
        true => spoken(&String::from_utf8(body).context("a body that is not UTF-8 cannot stand in a command")?),
        false => (String::new(), format!("--data-binary {}", quoted(&format!("@{}", command.file.display())))),
    };
    let mut out = format!("{signature}\n{source}curl -sS -X POST {}", quoted(&url));
    for (name, value) in headers {
        write!(out, " -H {}", quoted(&format!("{name}: {value}")))?;
    }
    write!(out, " {data}")?;
    Ok(out)
}

/// A body that is in no file, for a command of one line, whatever lines the body has: what goes before curl, and how curl
/// takes it.
fn spoken(body: &str) -> (String, String) {
    if !body.contains(['\n', '\r']) {
        return (String::new(), format!("--data-raw {}", quoted(body)));
    }
    let escaped = body.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
    (format!("printf %b {} | ", quoted(&escaped)), "--data-binary @-".to_owned())
}

fn secret(command: &Sign) -> anyhow::Result<String> {
    if let Some(secret) = &command.secret {
        return Ok(secret.clone());
    }
    if let Some(name) = &command.secret_env {
        return config::variable(name)?.with_context(|| format!("{name} is not set"));
    }
    match config::variable("WEBHOOK_SECRET")? {
        Some(secret) => Ok(secret),
        // The one the hub has made for itself.
        None => Ok(Config::load()?.webhook_secret.expose().to_owned()),
    }
}

fn path(body: &[u8]) -> &'static str {
    let is_subscription = serde_json::from_slice::<serde_json::Value>(body)
        .is_ok_and(|body| body.get("subscription_data").or(body.get("subscriptionData")).is_some());
    if is_subscription {
        "/api/v1/creatorup/webhook/subscription-update"
    } else {
        "/api/v1/creatorup/webhook/usage-update"
    }
}

/// A word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
