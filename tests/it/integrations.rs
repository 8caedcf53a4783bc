//! Partners' integrations: how they are managed, tried, called, told, and how they are.

mod book;
mod callbacks;
mod cleanup;
mod command;
mod connection;
mod encryption;
mod health;
mod hooks;
mod logs;
mod manage;
mod partners;
mod sample;
mod source;

use std::collections::BTreeMap;

use prost_types::{Struct, Value, value::Kind};
use upbridge_client::{Client, v1};

use crate::harness::TestHub;

/// Free-form JSON as the contract has it; an object of text, numbers and nulls.
fn structure(json: &serde_json::Value) -> Option<Struct> {
    let value = |json: &serde_json::Value| match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().expect("a number")),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        other => panic!("{other} is not needed"),
    };
    let fields: BTreeMap<_, _> =
        json.as_object()?.iter().map(|(key, json)| (key.clone(), Value { kind: Some(value(json)) })).collect();
    Some(Struct { fields })
}

/// A member that is text.
fn text<'a>(object: &'a Option<Struct>, name: &str) -> Option<&'a str> {
    match object.as_ref()?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A partner of this name; their id.
async fn partner(admin: &Client, name: &str) -> String {
    let request = v1::CreatePartnerRequest { name: name.into(), status: None };
    admin.partners().create_partner(request).await.expect("a partner").into_inner().partner.expect("it").id
}

/// An integration to add to a partner: of a provider, with its name, and these credentials.
fn new(
    partner_id: &str,
    provider: v1::IntegrationProvider,
    credentials: &serde_json::Value,
) -> v1::CreateIntegrationRequest {
    use v1::{IntegrationCategory as Category, IntegrationProvider as Provider};
    let category = match provider {
        Provider::Twilio | Provider::Wablas | Provider::Fonnte => Category::Whatsapp,
        Provider::Smtp => Category::Email,
        _ => Category::PaymentGateway,
    };
    v1::CreateIntegrationRequest {
        partner_id: partner_id.into(),
        category: category.into(),
        provider: provider.into(),
        name: provider.as_str_name().into(),
        credentials: structure(credentials),
        ..Default::default()
    }
}

/// Adds an integration.
async fn add(admin: &Client, request: v1::CreateIntegrationRequest) -> v1::Integration {
    admin
        .integrations()
        .create_integration(request)
        .await
        .expect("an integration")
        .into_inner()
        .integration
        .expect("it")
}

/// What was written into an integration's log, oldest first, as `action status request_data`.
async fn logged(hub: &TestHub, integration_id: &str) -> Vec<String> {
    let id = integration_id.replace('-', "");
    let id = if hub.database.is_postgres() { format!("'{integration_id}'") } else { format!("x'{id}'") };
    let sql = format!(
        "SELECT action || ' ' || status || ' ' || CAST(request_data AS TEXT) FROM integration_logs \
         WHERE integration_id = {id} ORDER BY id"
    );
    hub.database.texts(&sql).await.iter().map(|line| line.replace(": ", ":").replace(", ", ",")).collect()
}
