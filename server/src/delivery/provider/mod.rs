//! Connection tests: each provider is asked something that changes nothing there, and its answer is judged.
//!
//! A file per provider: what it is asked, and a pure judgement of what it answers. [`answer`] holds what their answers
//! have in common, [`request`] how they are asked.
//!
//! Guaranteed: a test ends within its deadline, whatever the provider does; nothing is tried twice, because providers
//! lock accounts (Wablas alone is asked a second time, with another form of its token); every address goes through the
//! guard; no word of a provider's answer is passed on but the name of the account, because they repeat keys and tokens.

mod answer;
mod fonnte;
mod midtrans;
mod request;
mod smtp;
mod stripe;
mod twilio;
mod wablas;
mod xendit;

use std::error::Error;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use upbridge_service::delivery::{Call, MOST_BYTES, Reading};

use self::answer::Heard;
use self::request::Asking;
use super::{Answer, Guard, Outbound, Trust};
use crate::model::connection::{Account, Deadlines, Diagnosis, Fault, FaultCode, Providers, Verdict};
use crate::model::failure::{Failure, FailureClass};
use crate::model::integration::Provider;
use crate::model::outward::NotCallable;

/// The providers, as they are on the network.
pub struct ProviderApis {
    outbound: Outbound,
    guard: Guard,
    deadlines: Deadlines,
}

impl ProviderApis {
    /// Connects to nobody yet; an error is a system without certificates.
    pub fn new(guard: Guard, deadlines: Deadlines) -> Result<ProviderApis, Box<dyn Error + Send + Sync>> {
        let outbound = Outbound::new(guard.clone(), deadlines.slow_http)?;
        Ok(ProviderApis { outbound, guard, deadlines })
    }

    fn deadline(&self, provider: Provider) -> Duration {
        match provider {
            Provider::Smtp => self.deadlines.smtp,
            Provider::Wablas | Provider::Fonnte => self.deadlines.slow_http,
            _ => self.deadlines.http,
        }
    }

    async fn judge(&self, account: &Account) -> Judged {
        match account.provider {
            Provider::Midtrans => self.ask(account, midtrans::ask(account), midtrans::judge).await,
            Provider::Xendit => self.ask(account, xendit::ask(account), xendit::judge).await,
            Provider::Stripe => self.ask(account, stripe::ask(account), stripe::judge).await,
            Provider::Twilio => self.ask(account, twilio::ask(account), twilio::judge).await,
            Provider::Fonnte => self.ask(account, fonnte::ask(account), fonnte::judge).await,
            Provider::Wablas => self.ask_wablas(account).await,
            Provider::Smtp => smtp::test(&self.guard, &self.deadlines, account).await,
        }
    }

    async fn ask_wablas(&self, account: &Account) -> Judged {
        let alone = self.ask(account, wablas::ask(account, false), wablas::judge).await;
        let is_refused = alone.verdict.fault.as_ref().is_some_and(|fault| fault.code == FaultCode::AuthFailed);
        if !is_refused || account.credentials.text("secretKey").is_none() {
            return alone;
        }
        let mut together = self.ask(account, wablas::ask(account, true), wablas::judge).await;
        if together.verdict.fault.as_ref().is_none_or(|fault| fault.code == FaultCode::DeviceDisconnected) {
            together.verdict = together.verdict.warn(wablas::TOGETHER);
        }
        together
    }

    async fn ask(&self, account: &Account, asking: Asking, judge: fn(&Account, &Heard<'_>) -> Verdict) -> Judged {
        let ask = match asking {
            Ok(ask) => ask,
            Err(fault) => return fault.into(),
        };
        let call = Call {
            trust: Trust::Guarded,
            method: ask.method,
            url: ask.url,
            headers: ask.headers,
            body: ask.body,
            timeout: Some(self.deadline(account.provider)),
            reading: Reading::Whole(MOST_BYTES),
        };
        let name = account.provider.spec().name;
        let Answer { status, headers, body, .. } = match self.outbound.exchange(call).await {
            Ok(answer) => answer,
            Err(failure) => return fault(name, &failure).into(),
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|text| text.to_str().ok()).unwrap_or_default();
        let verdict = judge(account, &Heard { status: status.as_u16(), content_type, body: &body });
        Judged { verdict, status: Some(status.as_u16()) }
    }
}

impl Providers for ProviderApis {
    fn test<'a>(&'a self, account: &'a Account) -> BoxFuture<'a, Diagnosis> {
        Box::pin(async move {
            let begun = Instant::now();
            let judged = tokio::time::timeout(self.deadline(account.provider), self.judge(account)).await;
            let name = account.provider.spec().name;
            let Judged { verdict, status } =
                judged.unwrap_or_else(|_late| fault(name, &Failure::passing(FailureClass::Timeout, "")).into());
            Diagnosis { verdict, provider_status: status, latency: begun.elapsed() }
        })
    }
}

/// What an answer means, with its status if one came.
struct Judged {
    verdict: Verdict,
    status: Option<u16>,
}

impl From<Fault> for Judged {
    fn from(fault: Fault) -> Judged {
        Judged { verdict: fault.into(), status: None }
    }
}

/// What it means that there was no answer.
fn fault(name: &str, failure: &Failure) -> Fault {
    let (code, hint) = match failure.class {
        FailureClass::Timeout => (
            FaultCode::Timeout,
            format!("{name} did not answer in time; it is slow, or a firewall swallows the hub's calls"),
        ),
        FailureClass::Tls => (
            FaultCode::Tls,
            format!("the connection to {name} could not be secured; check the address, its port and its certificate"),
        ),
        FailureClass::Network => (
            FaultCode::Connection,
            format!("there is no connection to {name}; check the host name, the port and the firewall"),
        ),
        FailureClass::Blocked => {
            let hint = format!(
                "the address of {name} {}; the operator lists networks that are meant in OUTBOUND_ALLOWED_NETWORKS",
                NotCallable::Blocked
            );
            (FaultCode::BlockedTarget, hint)
        }
        _ => (
            FaultCode::UnexpectedResponse,
            format!("what came is no answer of {name}; check the base URL, and whether a proxy is in between"),
        ),
    };
    Fault::new(code, hint)
}

/// What the providers' own tests have in common.
#[cfg(test)]
mod check {
    use serde_json::Value;

    use crate::model::connection::{Account, FaultCode, Verdict};
    use crate::model::integration::{Credentials, Environment, Provider};

    /// An account for the sandbox, on 15 March 2026.
    pub fn account(provider: Provider, credentials: Value) -> Account {
        let Value::Object(values) = credentials else { panic!("credentials are an object") };
        let now = chrono::DateTime::parse_from_rfc3339("2026-03-15T12:00:00Z").unwrap().to_utc();
        let credentials = Credentials::new(values, None);
        Account { provider, environment: Environment::Sandbox, base_url: None, credentials, now }
    }

    pub fn code(verdict: &Verdict) -> Option<FaultCode> {
        verdict.fault.as_ref().map(|fault| fault.code)
    }
}
