//! The contract and what is derived from it: nothing changes unseen, nothing is left without comment, route, policy
//! and test.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor};
use upbridge_proto::UPBRIDGE;
use upbridge_server::model::{
    Reason, hook, integration, integration_health, job, membership, transition, user, webhook,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Compares with a golden file; `UPDATE_SNAPSHOTS=1` writes it.
fn golden(name: &str, actual: &str) {
    let path = root().join("tests/it/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return;
    }
    let changed = expected.lines().zip(actual.lines()).position(|(one, other)| one != other);
    let line = changed.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    panic!(
        "{name} changed at line {}:\n- {}\n+ {}\nIf it is meant, write it anew with UPDATE_SNAPSHOTS=1 and name the change in the changelog.",
        line + 1,
        expected.lines().nth(line).unwrap_or("(end)"),
        actual.lines().nth(line).unwrap_or("(end)"),
    );
}

#[test]
fn the_contract_is_the_one_callers_know() {
    golden("contract.txt", &text(&UPBRIDGE.pool()));
}

#[test]
fn the_openapi_document_is_the_one_callers_know() {
    let document: serde_json::Value =
        serde_json::from_str(&upbridge_server::http::openapi::document(&upbridge_server::API)).unwrap();
    golden("openapi.json", &format!("{}\n", serde_json::to_string_pretty(&document).unwrap()));
}

/// The contract without its comments: what another program depends on.
fn text(pool: &DescriptorPool) -> String {
    let mut out = String::new();
    for service in pool.services() {
        writeln!(out, "service {}", service.full_name()).unwrap();
        for method in service.methods() {
            writeln!(out, "  rpc {}", signature(&method)).unwrap();
        }
    }
    for message in
        pool.all_messages().filter(|message| message.package_name() == "upbridge.v1" && !message.is_map_entry())
    {
        writeln!(out, "message {}", message.full_name()).unwrap();
        for field in message.fields() {
            writeln!(out, "  {}", declaration(&field)).unwrap();
        }
    }
    for enumeration in pool.all_enums().filter(|found| found.package_name() == "upbridge.v1") {
        writeln!(out, "enum {}", enumeration.full_name()).unwrap();
        for value in enumeration.values() {
            writeln!(out, "  {} = {}", value.name(), value.number()).unwrap();
        }
    }
    out
}

fn signature(method: &MethodDescriptor) -> String {
    let (_, known) = UPBRIDGE.method(&format!("/{}/{}", method.parent_service().full_name(), method.name())).unwrap();
    let stream = |is: bool| if is { "stream " } else { "" };
    let mut out = format!(
        "{}({}{}) -> {}{}",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name()
    );
    for binding in &known.bindings {
        write!(out, " [{} {}{}]", binding.verb, binding.template, if binding.body { " body" } else { "" }).unwrap();
    }
    write!(out, " {:?} {} idempotent={}", known.policy.as_ref().unwrap(), known.success_status, known.idempotent)
        .unwrap();
    out
}

fn declaration(field: &FieldDescriptor) -> String {
    let many = if field.is_map() {
        "map "
    } else if field.is_list() {
        "repeated "
    } else {
        ""
    };
    let optional = if field.supports_presence() { "optional " } else { "" };
    let options = field.options();
    let rules: Vec<String> = options.extensions().map(|(_, value)| value.to_string()).collect();
    format!("{} = {}: {optional}{many}{:?} {}", field.name(), field.number(), field.kind(), rules.join(" "))
        .trim_end()
        .to_owned()
}

#[test]
fn every_part_of_the_contract_has_a_comment() {
    let mut missing = Vec::new();
    for file in UPBRIDGE.pool().files().filter(|file| !file.package_name().starts_with("google.protobuf")) {
        let proto = file.file_descriptor_proto();
        let comments = proto.source_code_info.as_ref().expect("comments are kept");
        let documented = |path: &[i32]| {
            comments
                .location
                .iter()
                .any(|location| location.path == path && !location.leading_comments().trim().is_empty())
        };
        let mut ask = |path: &[i32], name: &str| {
            if !documented(path) {
                missing.push(name.to_owned());
            }
        };
        for service in file.services() {
            ask(service.path(), service.full_name());
            service.methods().for_each(|method| ask(method.path(), method.full_name()));
        }
        for message in file.messages() {
            ask(message.path(), message.full_name());
            message.fields().for_each(|field| ask(field.path(), field.full_name()));
        }
        for enumeration in file.enums() {
            ask(enumeration.path(), enumeration.full_name());
            enumeration.values().for_each(|value| ask(value.path(), value.full_name()));
        }
    }
    assert!(missing.is_empty(), "without a comment: {missing:#?}");
}

/// Streams of requests have no form in HTTP/JSON.
const WITHOUT_ROUTE: &[&str] = &["RecordUsageStream"];

#[test]
fn every_rpc_has_a_route_a_policy_and_a_test() {
    let mut sources = String::new();
    read_tests(&root().join("tests/it"), &mut sources);
    for method in UPBRIDGE.methods() {
        let routeless = WITHOUT_ROUTE.contains(&method.name.as_str());
        assert_eq!(method.bindings.is_empty(), routeless, "{}: a route, or a reason in WITHOUT_ROUTE", method.path);
        assert!(method.policy.is_some(), "{} has no policy", method.path);
        let call = format!(".{}(", snake(&method.name));
        assert!(sources.contains(&call), "{}: no test calls `{call}…)`", method.path);
    }
}

fn read_tests(directory: &Path, out: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tests(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

fn snake(camel: &str) -> String {
    let mut out = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// Enums that no conversion by place has anything to do with: policies are read by name, the others are matched.
const NOT_BY_PLACE: &[&str] = &["Principal", "HealthStatus", "UsageOutcome"];

#[test]
fn the_model_and_the_contract_have_the_same_words() {
    // In the order of the numbers, from 1: conversions go by the place alone.
    let words = |name: &str| -> Vec<String> {
        let found = UPBRIDGE.pool().get_enum_by_name(&format!("upbridge.v1.{name}")).expect(name);
        let prefix = format!("{}_", snake(name).to_uppercase());
        let word = |number| {
            let value = found.get_value(number).unwrap_or_else(|| panic!("{name} has no value {number}"));
            value.name().replacen(&prefix, "", 1).to_lowercase()
        };
        (1..found.values().len() as i32).map(word).collect()
    };
    let mut compared = NOT_BY_PLACE.to_vec();
    macro_rules! same {
        ($($contract:literal = $model:ty),+ $(,)?) => {
            $(
                let model: Vec<String> = <$model>::ALL.iter().map(|value| value.as_str().to_lowercase()).collect();
                assert_eq!(model, words($contract), $contract);
                compared.push($contract);
            )+
        };
    }
    same!(
        "Role" = user::Role,
        "UserStatus" = user::UserStatus,
        "SyncStatus" = user::SyncStatus,
        "Tier" = membership::Tier,
        "SubscriptionStatus" = membership::SubscriptionStatus,
        "AccessReason" = membership::AccessReason,
        "ErrorReason" = Reason,
        "PartnerStatus" = integration::PartnerStatus,
        "IntegrationCategory" = integration::Category,
        "IntegrationProvider" = integration::Provider,
        "IntegrationEnvironment" = integration::Environment,
        "IntegrationAction" = integration::Action,
        "IntegrationOutcome" = integration::LogStatus,
        "IntegrationHealthStatus" = integration_health::HealthStatus,
        "WebhookDeliveryStatus" = hook::DeliveryStatus,
        "WebhookStatus" = webhook::WebhookStatus,
        "JobKind" = job::JobKind,
        "JobState" = job::JobState,
        "JobStep" = transition::JobStep,
    );
    for found in UPBRIDGE.pool().all_enums().filter(|found| found.package_name() == "upbridge.v1") {
        assert!(compared.contains(&found.name()), "{} is compared with nothing of the model", found.name());
    }
}
