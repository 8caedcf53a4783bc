//! The contract and what is derived from it: nothing changes unseen, nothing is left without comment, route, policy and
//! test.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use creatorup::model::batch::BatchStatus;
use prost_reflect::FieldDescriptor;
use upbridge_proto::CREATORUP;
use upbridge_proto::schema::Method;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")
}

/// Compares with a golden file; `UPDATE_SNAPSHOTS=1` writes it.
fn golden(name: &str, actual: &str) {
    let path = here().join("snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let changed = expected.lines().zip(actual.lines()).find(|(one, other)| one != other);
    assert!(
        expected == actual,
        "{name} changed: {changed:?}\nIf it is meant, write it anew with UPDATE_SNAPSHOTS=1 and name the change in the changelog."
    );
}

#[test]
fn the_contract_is_the_one_callers_know() {
    let (pool, mut out) = (CREATORUP.pool(), String::new());
    for method in CREATORUP.methods() {
        writeln!(out, "rpc {}", signature(method)).unwrap();
    }
    for message in pool.all_messages().filter(|message| message.package_name() == CREATORUP.package) {
        writeln!(out, "message {}", message.full_name()).unwrap();
        message.fields().for_each(|field| writeln!(out, "  {}", declaration(&field)).unwrap());
    }
    for enumeration in pool.all_enums().filter(|found| found.package_name() == CREATORUP.package) {
        writeln!(out, "enum {}", enumeration.full_name()).unwrap();
        enumeration.values().for_each(|value| writeln!(out, "  {} = {}", value.name(), value.number()).unwrap());
    }
    golden("contract.txt", &out);
}

#[test]
fn the_openapi_document_is_the_one_callers_know() {
    golden("openapi.json", &upbridge_service::http::openapi::document(&creatorup::API));
}

fn signature(method: &Method) -> String {
    let bindings = method.bindings.iter().map(|binding| format!("[{} {}]", binding.verb, binding.template));
    let bindings = bindings.collect::<Vec<_>>().join(" ");
    let policy = method.policy.as_ref().expect("a policy");
    format!("{} {bindings} {policy:?} {} idempotent={}", method.path, method.success_status, method.idempotent)
}

fn declaration(field: &FieldDescriptor) -> String {
    let many = if field.is_list() { "repeated " } else { "" };
    let optional = if field.supports_presence() { "optional " } else { "" };
    let options = field.options();
    let rules: Vec<String> = options.extensions().map(|(_, value)| value.to_string()).collect();
    let text = format!("{} = {}: {optional}{many}{:?} {}", field.name(), field.number(), field.kind(), rules.join(" "));
    text.trim_end().to_owned()
}

#[test]
fn every_part_of_the_contract_has_a_comment() {
    let mut missing = Vec::new();
    for file in CREATORUP.pool().files().filter(|file| file.package_name() == CREATORUP.package) {
        let proto = file.file_descriptor_proto();
        let comments = proto.source_code_info.as_ref().expect("comments are kept");
        let mut ask = |path: &[i32], name: &str| {
            let mut locations = comments.location.iter().filter(|location| location.path == path);
            if !locations.any(|location| !location.leading_comments().trim().is_empty()) {
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

#[test]
fn every_rpc_has_a_route_a_policy_and_a_test() {
    let mut sources = String::new();
    read_tests(&here(), &mut sources);
    for method in CREATORUP.methods() {
        assert!(!method.bindings.is_empty(), "{} has no route", method.path);
        assert!(method.policy.is_some(), "{} has no policy", method.path);
        let call = format!(".{}(", snake(&method.name));
        assert!(sources.contains(&call), "{}: no test calls `{call}…)`", method.path);
    }
}

/// The paths the sources print, as they print them.
#[test]
fn the_paths_of_the_sources_are_served() {
    let bindings = CREATORUP.methods().iter().flat_map(|method| &method.bindings);
    let served: Vec<String> = bindings.map(|binding| format!("{} {}", binding.verb, binding.template)).collect();
    for path in [
        "POST /api/v1/digiup/verify",
        "GET /api/v1/digiup/user/sync",
        "POST /api/v1/digiup/user/sync",
        "GET /api/v1/digiup/membership/check",
        "POST /api/v1/batch/create",
        "POST /api/v1/video/process",
        "GET /api/v1/usage/monthly",
    ] {
        assert!(served.iter().any(|one| one == path), "{path}: {served:#?}");
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

#[test]
fn the_model_and_the_contract_have_the_same_words() {
    let found = CREATORUP.pool().get_enum_by_name("creatorup.v1.BatchStatus").expect("BatchStatus");
    let word = |number| found.get_value(number).unwrap().name().replacen("BATCH_STATUS_", "", 1).to_lowercase();
    let contract: Vec<String> = (1..found.values().len() as i32).map(word).collect();
    let model: Vec<&str> = BatchStatus::ALL.iter().map(|status| status.as_str()).collect();
    assert_eq!(model, contract);
}
