//! What the description says of a few endpoints, and that it says something of all.

use std::collections::HashSet;

use serde_json::{Value, json};
use upbridge_proto::UPBRIDGE;

use super::document;

fn parsed() -> Value {
    serde_json::from_str(&document(&crate::http::api::TESTED)).expect("it is JSON")
}

#[test]
fn every_binding_is_described_under_a_name_of_its_own() {
    let (document, mut ids) = (parsed(), HashSet::new());
    for method in UPBRIDGE.methods().iter().filter(|method| !method.client_streaming) {
        for binding in &method.bindings {
            let operation = &document["paths"][&binding.template][binding.verb.to_lowercase()];
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{} is missing", binding.template));
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{id} has no summary");
        }
    }
    assert!(ids.contains("UsageService_RecordUsage_2"));
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|inside| walk(inside, found));
            }
            Value::Array(items) => items.iter().for_each(|inside| walk(inside, found)),
            _ => {}
        }
    }
    let (document, mut found) = (parsed(), Vec::new());
    walk(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some_and(Value::is_object), "{reference}");
    }
}

#[test]
fn rules_spellings_and_absence_are_told() {
    let schemas = &parsed()["components"]["schemas"];
    let data = &schemas["UsageData"];
    assert_eq!(data["required"], json!(["batch_name", "batch_type", "usage_type"]));
    assert_eq!(data["properties"]["batch_name"]["maxLength"], 255);
    assert_eq!(data["properties"]["usage_amount"]["minimum"], 1);
    assert_eq!(data["properties"]["usage_amount"]["type"], json!(["integer", "null"]));
    assert_eq!(data["properties"]["completed_at"]["format"], "date-time");
    assert_eq!(schemas["RegisterRequest"]["properties"]["email"]["format"], "email");
    assert_eq!(schemas["Role"]["enum"], json!(["admin", "member", "reseller", "pro_reseller"]));
    assert!(schemas["Role"]["description"].as_str().unwrap().contains("- `admin`: May do everything."));
    assert!(schemas["UserCamel"]["properties"]["syncStatus"].is_object());
    assert!(schemas["User"]["properties"]["sync_status"].is_object());
    assert_eq!(schemas["User"]["required"].as_array().unwrap().len(), 13);
}

#[test]
fn an_endpoint_tells_its_parameters_answers_and_credentials() {
    let document = parsed();
    let list = &document["paths"]["/api/admin/users"]["get"];
    let names: Vec<_> =
        list["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["query", "role", "status", "syncStatus", "pageSize", "pageToken"]);
    assert_eq!(list["security"], json!([{"bearerAuth": []}, {"sessionCookie": []}]));
    let answer = &list["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(answer["required"], json!(["success", "data", "nextPageToken"]));
    let login = &document["paths"]["/api/v1/client/auth/login"]["post"];
    assert_eq!(login["security"], json!([]));
    let register = &document["paths"]["/api/v1/client/auth/register"]["post"]["responses"];
    assert!(register["201"].is_object() && register["409"].is_object() && register["200"].is_null());
    let usage = &document["paths"]["/api/v1/creatorup/sync/usage"]["post"];
    assert_eq!(usage["security"], json!([{"bearerAuth": []}, {"serviceKey": []}]));
    let example = &usage["requestBody"]["content"]["application/json"]["example"];
    assert_eq!(example["usage_data"]["metadata"]["video_count"], 5);
    let update = &document["paths"]["/api/admin/plans/{plan_id}"]["patch"];
    let body = &update["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert!(body["planId"].is_null() && body["isActive"].is_object());
}
