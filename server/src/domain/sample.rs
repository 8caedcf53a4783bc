//! Sample data for newcomers: a partner with an integration of every provider, and credentials that are none.
//!
//! All of it is inactive, so that the hub calls nobody with it unless it is asked to.

use serde_json::json;
use uuid::Uuid;

use super::Hub;
use super::bootstrap::internal;
use super::hook::manage::NewHook;
use crate::model::integration::{
    Credentials, Environment, IntegrationFilter, NewIntegration, PartnerFilter, PartnerStatus, Provider,
};
use crate::model::page::Page;
use crate::model::{Ctx, Json, Result};

/// Whose the samples are.
const PARTNER: &str = "Sample Partner";
/// Whom they would tell.
const WEBHOOK: &str = "https://partner.example/webhooks/payment";
/// Most that one page has; the samples are fewer.
const MOST: i32 = 200;

/// Something the samples consist of.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `partner`, `integration` or `webhook`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// UUID.
    pub id: Uuid,
    /// Whether it was made just now.
    pub is_new: bool,
}

impl Hub {
    /// Adds what is missing of the samples, and says what there is.
    pub async fn seed_sample_integrations(&self) -> Result<Vec<Sample>> {
        let ctx = internal();
        let partner = self.sample_partner(&ctx).await?;
        let mut samples = Vec::new();
        for provider in Provider::ALL {
            samples.push(self.sample_integration(&ctx, partner.id, *provider).await?);
        }
        // Midtrans is the first of them.
        let webhook = self.sample_webhook(&ctx, samples[0].id).await?;
        samples.push(webhook);
        samples.insert(0, partner);
        Ok(samples)
    }

    /// A webhook that would be told of payments.
    async fn sample_webhook(&self, ctx: &Ctx, integration_id: Uuid) -> Result<Sample> {
        let sample = |id, is_new| Sample { kind: "webhook", name: WEBHOOK.to_owned(), id, is_new };
        let found = self.list_hooks(integration_id).await?;
        if let Some(one) = found.iter().find(|one| one.url == WEBHOOK) {
            return Ok(sample(one.id, false));
        }
        let new = NewHook {
            url: WEBHOOK.to_owned(),
            secret: None,
            events: vec!["payment.success".to_owned(), "payment.failed".to_owned()],
            is_active: Some(false),
            retry_attempts: None,
            retry_delay: None,
            rate_limit: None,
        };
        let (made, _) = self.create_hook(ctx, integration_id, new).await?;
        Ok(sample(made.id, true))
    }

    async fn sample_partner(&self, ctx: &Ctx) -> Result<Sample> {
        let sample = |id, is_new| Sample { kind: "partner", name: PARTNER.to_owned(), id, is_new };
        let filter = PartnerFilter { query: Some(PARTNER.to_owned()), ..PartnerFilter::default() };
        let page = Page::parse(Some(MOST), None, "")?;
        let found = self.list_partners(&filter, &page).await?.items;
        if let Some(partner) = found.iter().find(|partner| partner.name.eq_ignore_ascii_case(PARTNER)) {
            return Ok(sample(partner.id, false));
        }
        Ok(sample(self.create_partner(ctx, PARTNER, PartnerStatus::Active).await?.id, true))
    }

    async fn sample_integration(&self, ctx: &Ctx, partner_id: Uuid, provider: Provider) -> Result<Sample> {
        let name = format!("{} Sandbox", provider.spec().name);
        let sample = |id, is_new| Sample { kind: "integration", name: name.clone(), id, is_new };
        let filter = IntegrationFilter { provider: Some(provider), ..IntegrationFilter::default() };
        let page = Page::parse(Some(MOST), None, "")?;
        let found = self.list_integrations(partner_id, &filter, &page).await?.items;
        if let Some(one) = found.iter().find(|one| one.name.eq_ignore_ascii_case(&name)) {
            return Ok(sample(one.id, false));
        }
        let new = NewIntegration {
            partner_id,
            category: provider.spec().category,
            provider,
            name: name.clone(),
            environment: Environment::Sandbox,
            credentials: credentials(provider),
            base_url: (provider == Provider::Wablas).then(|| "https://sample.wablas.com".to_owned()),
            is_active: false,
        };
        Ok(sample(self.create_integration(ctx, new).await?.0.id, true))
    }
}

/// Credentials that look like the provider's, and say that they are none.
fn credentials(provider: Provider) -> Credentials {
    let values = match provider {
        Provider::Midtrans => json!({ "serverKey": "SB-Mid-server-SAMPLE-NOT-A-KEY" }),
        Provider::Xendit => {
            json!({ "secretKey": "xnd_development_SAMPLE_NOT_A_KEY", "callbackToken": "SAMPLE_NOT_A_TOKEN" })
        }
        Provider::Stripe => {
            json!({ "secretKey": "sk_test_SAMPLE_NOT_A_KEY", "webhookSecret": "whsec_SAMPLE_NOT_A_SECRET" })
        }
        Provider::Twilio => {
            json!({ "accountSid": "AC00000000000000000000000000000000", "authToken": "SAMPLE_NOT_A_TOKEN" })
        }
        Provider::Wablas => json!({ "token": "SAMPLE_NOT_A_TOKEN", "secretKey": "SAMPLE_NOT_A_KEY" }),
        Provider::Fonnte => json!({ "token": "SAMPLE_NOT_A_TOKEN" }),
        Provider::Smtp => json!({
            "host": "smtp.example.com", "port": 587, "username": "sample@example.com", "password": "SAMPLE_NOT_A_PASSWORD",
            "from": "sample@example.com", "security": "starttls",
        }),
    };
    let Json::Object(values) = values else { return Credentials::default() };
    Credentials::new(values, None)
}
