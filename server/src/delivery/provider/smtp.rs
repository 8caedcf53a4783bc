//! Mail servers: connect, secure, greet, sign in, and nothing more. Whether mail may be sent from the address is not
//! tried: only a mail could tell.
//!
//! The client's own timeouts end neither a read nor the whole, so each step and all of them together are bounded here.
//! A refused password is never tried again: mail servers lock accounts.

mod wire;

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

use super::request::{required, wrong};
use super::{Guard, Judged, fault};
use crate::model::connection::{Account, Deadlines, Fault, FaultCode, Verdict};

const NAME: &str = "the mail server";
/// The port that is TLS from the first byte.
const TLS_PORT: u16 = 465;
/// How long the server has to take its leave.
const LEAVE: Duration = Duration::from_secs(1);

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    None,
    StartTls,
    Tls,
}

/// What is configured, checked.
struct Server<'a> {
    host: &'a str,
    port: u16,
    security: Security,
    credentials: Credentials,
}

pub async fn test(guard: &Guard, deadlines: &Deadlines, account: &Account) -> Judged {
    let server = match configured(account) {
        Ok(server) => server,
        Err(fault) => return fault.into(),
    };
    match knock(guard, deadlines.smtp_step, &server).await {
        Ok(status) => {
            let verdict = match server.security {
                Security::None => Verdict::good_but("the connection is not secured: the password is sent unencrypted"),
                _ => Verdict::good(),
            };
            Judged { verdict, status }
        }
        Err((fault, status)) => Judged { verdict: fault.into(), status },
    }
}

fn configured(account: &Account) -> Result<Server<'_>, Fault> {
    let host = required(account, "host")?;
    let port = account.credentials.number("port").ok_or_else(|| wrong("port is missing"))?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| wrong("port is not 1 to 65535"))?;
    let username = required(account, "username")?;
    let password = required(account, "password")?;
    let from = required(account, "from")?;
    // `Name <box@host>` is an address too.
    if from.split_once('@').is_none_or(|(local, domain)| local.trim().is_empty() || domain.trim().is_empty()) {
        return Err(wrong("from is no e-mail address"));
    }
    let security = match required(account, "security")? {
        "none" => Security::None,
        "starttls" => Security::StartTls,
        "tls" => Security::Tls,
        _ => return Err(wrong("security is not none, starttls or tls")),
    };
    Ok(Server { host, port, security, credentials: Credentials::new(username.to_owned(), password.to_owned()) })
}

/// Why there is no connection, with the code the server gave, if it gave one.
type Refusal = (Fault, Option<u16>);

/// Each step of a connection, one after the other; the code of the last answer.
async fn knock(guard: &Guard, step: Duration, server: &Server<'_>) -> Result<Option<u16>, Refusal> {
    let late = |_| (judge(&Trouble::Late, server), None);
    let refused = |error: smtp::Error| {
        let trouble = Trouble::of(&error);
        (judge(&trouble, server), trouble.code())
    };
    let addresses = timeout(step, guard.addresses(server.host, server.port)).await.map_err(late)?;
    let addresses = addresses.map_err(|failure| (fault(NAME, &failure), None))?;
    // To an address that was judged, and to no other.
    let stream = timeout(step, wire::connect(&addresses)).await.map_err(late)?;
    let stream = stream.map_err(|_| (judge(&Trouble::NoConnection, server), None))?;
    let stream = match server.security {
        Security::Tls => {
            let secured = timeout(step, wire::secure(stream, server.host)).await.map_err(late)?;
            secured.map_err(|error| (judge(&Trouble::of(&error), server), None))?
        }
        _ => stream,
    };
    let hello = ClientId::Ipv4(Ipv4Addr::LOCALHOST);
    let opening = AsyncSmtpConnection::connect_with_transport(stream, &hello);
    let mut connection = timeout(step, opening).await.map_err(late)?.map_err(refused)?;
    if server.security == Security::StartTls {
        let tls = TlsParameters::new_rustls(server.host.to_owned()).map_err(refused)?;
        timeout(step, connection.starttls(tls, &hello)).await.map_err(late)?.map_err(refused)?;
    }
    let mechanisms = [Mechanism::Plain, Mechanism::Login];
    let answer = timeout(step, connection.auth(&mechanisms, &server.credentials)).await.map_err(late)?;
    let code = answer.map_err(refused)?.code().into();
    // Being signed in is what was asked for; how the server takes its leave changes nothing.
    drop(timeout(LEAVE.min(step), connection.quit()).await);
    Ok(Some(code))
}

/// What went wrong between the hub and a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing came in time.
    Late,
    /// Nobody took the connection.
    NoConnection,
    /// The connection ended.
    Broken,
    /// The certificate is not good, or there is no common TLS.
    Untrusted,
    /// What came where TLS begins is not TLS.
    NoTls,
    /// The server refused, with this code and text.
    Refused(u16, String),
    /// The server does not offer STARTTLS.
    NoStartTls,
    /// The server takes no password here.
    NoPassword,
    /// What came is not SMTP.
    NotSmtp,
}

impl Trouble {
    fn of(error: &(dyn Error + 'static)) -> Trouble {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<smtp::Error>()
                && let Some(trouble) = Trouble::of_client(error)
            {
                return trouble;
            }
            // An I/O error hides what it wraps from `source`.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            match wrapped.and_then(|wrapped| wrapped.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidMessage(_)) => return Trouble::NoTls,
                Some(_) => return Trouble::Untrusted,
                None => {}
            }
            match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => return Trouble::Late,
                // Not even text, or more of it than any greeting has.
                Some(io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) => return Trouble::NotSmtp,
                _ => {}
            }
            cause = error.source();
        }
        Trouble::Broken
    }

    fn of_client(error: &smtp::Error) -> Option<Trouble> {
        let text = || error.source().map(ToString::to_string).unwrap_or_default();
        match error.status() {
            Some(code) => Some(Trouble::Refused(code.into(), text())),
            None if error.is_client() => match text().contains("STARTTLS") {
                true => Some(Trouble::NoStartTls),
                false => Some(Trouble::NoPassword),
            },
            // A connection that ended before anything came is told as half an answer.
            None if error.is_response() && text().contains("incomplete") => Some(Trouble::Broken),
            None if error.is_response() => Some(Trouble::NotSmtp),
            None if error.is_tls() => Some(Trouble::Untrusted),
            None => None,
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Trouble::Refused(code, _) => Some(*code),
            _ => None,
        }
    }
}

/// What it means, and what to do about it.
fn judge(trouble: &Trouble, server: &Server<'_>) -> Fault {
    use FaultCode::*;
    let Server { port, security, .. } = *server;
    let fault = |code, hint: &str| Fault::new(code, hint);
    match trouble {
        Trouble::Late if port == TLS_PORT && security != Security::Tls => {
            fault(Timeout, "the mail server says nothing: port 465 needs security `tls`")
        }
        Trouble::Late => fault(Timeout, "the mail server did not answer in time; check the port and the firewall"),
        Trouble::NoConnection => {
            fault(Connection, "the mail server takes no connection; check the host, the port and the firewall")
        }
        Trouble::Broken => fault(
            Connection,
            "the mail server closed the connection; check the port and its security, and whether it lets the hub's address in",
        ),
        Trouble::Untrusted => fault(
            Tls,
            "the certificate of the mail server is not trusted, has expired, or is for another host name; give the \
             name the certificate is for",
        ),
        Trouble::NoTls => {
            fault(Configuration, "the port does not begin with TLS; use security `starttls`, mostly at port 587")
        }
        Trouble::NoStartTls => fault(
            Configuration,
            "the mail server offers no STARTTLS at this port; use port 465 with security `tls`, or another port",
        ),
        Trouble::NoPassword => fault(
            Configuration,
            "the mail server takes no password at this port; many do only once the connection is secured, and some \
             want OAuth2, which is not supported",
        ),
        Trouble::NotSmtp => {
            fault(UnexpectedResponse, "what answers at this port is no mail server; check host and port")
        }
        Trouble::Refused(code, text) => refused(*code, text),
    }
}

/// What a code of the server means; its text decides where a code has more than one meaning, and is not passed on.
fn refused(code: u16, text: &str) -> Fault {
    use FaultCode::*;
    let says = |words: &[&str]| words.iter().any(|word| text.to_ascii_lowercase().contains(word));
    let (fault, hint) = match code {
        421 | 450 | 452 if says(&["4.7.", "too many", "rate", "limit"]) => {
            (RateLimited, "the mail server limits connections; try again in a few minutes")
        }
        450 => (RateLimited, "the mail server is busy with this mailbox; try again in a few minutes"),
        421 => (ProviderUnavailable, "the mail server is busy or going down; try again later"),
        454 => (ProviderUnavailable, "the mail server cannot check passwords for now; try again later"),
        432 => (AuthFailed, "the mail server wants the password to be changed or set anew first"),
        535 if says(&["5.7.139", "5.7.3", "disabled"]) => (
            AuthFailed,
            "the mail server lets this mailbox send nothing with a password; enable SMTP AUTH for it, then check the \
             user name and the password",
        ),
        535 => (
            AuthFailed,
            "the user name or the password is wrong; the user is mostly the whole address, and an account with two \
             factors needs an app password",
        ),
        534 => (AuthFailed, "the mail server wants an app password for this account"),
        530 => (
            Configuration,
            "the mail server wants the connection secured first: port 587 with `starttls`, or 465 with `tls`",
        ),
        538 => (Configuration, "the mail server takes this password over a secured connection only"),
        554 => (
            Configuration,
            "the mail server refuses the hub: its address is blocked there, or it takes no mail from users",
        ),
        400..=499 => (ProviderUnavailable, "the mail server has a fault of its own; try again later"),
        500 | 502..=504 => (Configuration, "the mail server does not know what it was asked; check the port"),
        _ => (Configuration, "the mail server refuses the hub; check the account and its permission to send"),
    };
    Fault::new(fault, format!("{hint} (code {code})"))
}

#[cfg(test)]
mod tests;
