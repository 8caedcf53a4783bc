//! Integrations and providers as messages, and what is given for them as the model has it.

use prost_types::Struct;
use upbridge_proto::v1;

use crate::grpc::convert;
use crate::model::integration as model;
use crate::model::integration::catalogue::{CallbackProof, CredentialSpec};
use crate::model::integration::check::MASK;
use crate::model::{Error, Result};

/// Where a provider's callbacks are taken.
pub fn callback_path(integration: &model::Integration, token: Option<&str>) -> String {
    let path = format!("/api/webhooks/integrations/{}", integration.id);
    match integration.provider.spec().proof {
        CallbackProof::Path => format!("{path}/{}", token.unwrap_or(MASK)),
        CallbackProof::Signature | CallbackProof::Token => path,
    }
}

pub fn integration(integration: model::Integration) -> v1::Integration {
    v1::Integration {
        id: integration.id.to_string(),
        partner_id: integration.partner_id.to_string(),
        category: convert::number!(integration.provider.spec().category),
        provider: convert::number!(integration.provider),
        environment: convert::number!(integration.environment),
        credentials: convert::structure(&integration.masked),
        callback_path: callback_path(&integration, None),
        base_url: integration.base_url,
        is_active: integration.is_active,
        last_test: integration.last_test.map(last_test),
        encryption_key_id: integration.key_id,
        created_by: integration.created_by.map(|id| id.to_string()),
        created_at: Some(convert::timestamp(integration.created_at)),
        updated_at: Some(convert::timestamp(integration.updated_at)),
        name: integration.name,
    }
}

fn last_test(test: model::TestRecord) -> v1::IntegrationTestSummary {
    v1::IntegrationTestSummary {
        tested_at: Some(convert::timestamp(test.at)),
        status: convert::number!(test.status),
        message: test.message,
        error_class: test.class.map(|class| class.as_str().to_owned()),
        latency_ms: test.latency,
    }
}

pub fn provider(provider: model::Provider) -> v1::ProviderInfo {
    let spec = provider.spec();
    let proof = match spec.proof {
        CallbackProof::Signature => "signature",
        CallbackProof::Token => "token",
        CallbackProof::Path => "path",
    };
    v1::ProviderInfo {
        provider: convert::number!(provider),
        name: spec.name.to_owned(),
        category: convert::number!(spec.category),
        credentials: spec.credentials.iter().map(credential).collect(),
        events: spec.events.iter().map(|event| (*event).to_owned()).collect(),
        sandbox_url: spec.sandbox_url.unwrap_or_default().to_owned(),
        production_url: spec.production_url.unwrap_or_default().to_owned(),
        callback_proof: proof.to_owned(),
        base_url_domain: spec.domain.unwrap_or_default().to_owned(),
    }
}

fn credential(spec: &CredentialSpec) -> v1::CredentialInfo {
    v1::CredentialInfo {
        name: spec.name.to_owned(),
        required: spec.required,
        secret: spec.secret,
        description: spec.description.to_owned(),
        choices: spec.choices.iter().map(|choice| (*choice).to_owned()).collect(),
    }
}

/// Credentials as they were given.
pub fn credentials(given: Struct) -> Result<model::Credentials> {
    match convert::json(given, "credentials")? {
        serde_json::Value::Object(values) => Ok(model::Credentials::new(values, None)),
        _ => Err(Error::invalid("credentials", "must be an object")),
    }
}

pub fn new(message: v1::CreateIntegrationRequest) -> Result<model::NewIntegration> {
    Ok(model::NewIntegration {
        partner_id: convert::uuid(&message.partner_id, "partner_id")?,
        category: convert::known(model::Category::ALL, message.category, "category")?,
        provider: convert::known(model::Provider::ALL, message.provider, "provider")?,
        name: message.name,
        environment: message.environment.and_then(environment).unwrap_or(model::Environment::Sandbox),
        credentials: credentials(message.credentials.unwrap_or_default())?,
        base_url: message.base_url,
        is_active: message.is_active.unwrap_or(true),
    })
}

pub fn change(message: v1::UpdateIntegrationRequest) -> Result<model::IntegrationChange> {
    Ok(model::IntegrationChange {
        category: message.category.and_then(category),
        provider: message.provider.and_then(self::known_provider),
        name: message.name,
        environment: message.environment.and_then(environment),
        credentials: message.credentials.map(credentials).transpose()?,
        base_url: message.base_url,
        is_active: message.is_active,
    })
}

pub fn filter(message: &v1::ListIntegrationsRequest) -> model::IntegrationFilter {
    model::IntegrationFilter {
        category: message.category.and_then(category),
        provider: message.provider.and_then(known_provider),
        environment: message.environment.and_then(environment),
        is_active: message.is_active,
    }
}

pub fn category(number: i32) -> Option<model::Category> {
    convert::value(model::Category::ALL, number)
}

fn known_provider(number: i32) -> Option<model::Provider> {
    convert::value(model::Provider::ALL, number)
}

fn environment(number: i32) -> Option<model::Environment> {
    convert::value(model::Environment::ALL, number)
}
