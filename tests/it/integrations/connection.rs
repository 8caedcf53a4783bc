//! Connection tests: every provider, scripted, through everything the fact sheet knows of it; what is answered, what is
//! kept, and what is shown to nobody.

mod kept;
mod mail;
mod provider;
mod schedule;

use std::time::Duration;

use serde_json::{Value, json};
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Client, v1};
use upbridge_server::config::Config;
use upbridge_server::model::connection::Deadlines;

use super::{add, new, partner};
use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestHub};
use crate::peer::HttpPeer;

/// What no answer, log or table may show.
const SECRET: &str = "hunter22secret";
const SID: &str = "AC00000000000000000000000000000001";

/// Longer than a test takes that comes to its end by itself, or by the deadlines of [`hasty`]; shorter than those of
/// [`near`].
const LONG: Duration = Duration::from_secs(8);

/// A hub that may call this machine, and gives up nobody who answers.
fn near() -> Setup {
    waiting(|config| {
        let (step, whole) = (LONG, LONG + Duration::from_secs(1));
        config.test_deadlines = Deadlines { http: whole, slow_http: whole, smtp_step: step, smtp: whole };
    })
}

/// The same, for those who fall silent: it does not wait long.
fn hasty() -> Setup {
    waiting(|config| {
        let (step, whole) = (Duration::from_secs(2), Duration::from_secs(3));
        config.test_deadlines = Deadlines { http: whole, slow_http: whole, smtp_step: step, smtp: whole };
    })
}

fn waiting(deadlines: fn(&mut Config)) -> Setup {
    Setup::default().set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8").adjust(deadlines)
}

/// A hub, its administrator, and a partner.
struct Stage {
    hub: TestHub,
    admin: Client,
    /// The administrator's, for requests over HTTP.
    token: String,
    partner_id: String,
}

impl Stage {
    async fn of(setup: Setup) -> Stage {
        let hub = setup.start().await;
        let partner_id = partner(&hub.admin().await, "Contoh").await;
        Stage::on(hub, partner_id).await
    }

    /// The same partner on another hub.
    async fn on(hub: TestHub, partner_id: String) -> Stage {
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let token = hub.client().await.auth().login(login).await.expect("signed in").into_inner().token;
        let admin = hub.client().await.with_bearer(&token);
        Stage { hub, admin, token, partner_id }
    }

    /// A test over HTTP, without a body.
    async fn post(&self, id: &str) -> reqwest::Response {
        let url = self.hub.url(&format!("/api/admin/integrations/{id}/test"));
        let request = reqwest::Client::new().post(url).bearer_auth(&self.token);
        request.header("user-agent", "an admin's browser").send().await.expect("an answer")
    }

    /// Adds an integration under a name of its own.
    async fn add(&self, provider: Provider, credentials: &Value, base_url: Option<&str>) -> String {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let request = v1::CreateIntegrationRequest {
            name: format!("{} {count}", provider.as_str_name()),
            base_url: base_url.map(str::to_owned),
            ..new(&self.partner_id, provider, credentials)
        };
        add(&self.admin, request).await.id
    }

    /// Adds one that is reached at a peer.
    async fn at(&self, provider: Provider, peer: &HttpPeer) -> String {
        self.add(provider, &credentials(provider), Some(&peer.url())).await
    }

    async fn test(&self, id: &str) -> (v1::ConnectionTest, v1::ConnectionDiagnosis) {
        test(&self.admin, id).await
    }

    async fn get(&self, id: &str) -> v1::Integration {
        let request = v1::GetIntegrationRequest { integration_id: id.into() };
        let found = self.admin.integrations().get_integration(request).await.expect("it is there");
        found.into_inner().integration.expect("an integration")
    }
}

async fn test(admin: &Client, id: &str) -> (v1::ConnectionTest, v1::ConnectionDiagnosis) {
    let request = v1::TestConnectionRequest { integration_id: id.into() };
    let tested = admin.integrations().test_connection(request).await.expect("an answer").into_inner();
    (tested.test.expect("a test"), tested.diagnosis.expect("a diagnosis"))
}

/// Good credentials of the providers over HTTP.
fn credentials(provider: Provider) -> Value {
    match provider {
        Provider::Midtrans => json!({ "serverKey": format!("SB-Mid-server-{SECRET}") }),
        Provider::Xendit => json!({ "secretKey": format!("xnd_development_{SECRET}") }),
        Provider::Stripe => json!({ "secretKey": format!("sk_test_{SECRET}") }),
        Provider::Twilio => json!({ "accountSid": SID, "authToken": SECRET }),
        Provider::Wablas | Provider::Fonnte => json!({ "token": SECRET }),
        other => panic!("{other:?} is not over HTTP"),
    }
}

/// The class and code of a failure; nothing of a success.
fn fault(diagnosis: &v1::ConnectionDiagnosis) -> Option<(&str, &str)> {
    diagnosis.error_class.as_deref().zip(diagnosis.error_code.as_deref())
}
