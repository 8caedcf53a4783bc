//! Builds the schema from the descriptor pools, once, at the first use.
//!
//! What breaks a rule of the contract itself (a pattern that does not compile, a binding to a field that does not
//! exist, a type the contract does not use) panics here, in every test, and so never reaches anyone.

use std::collections::HashMap;

use prost_reflect::{
    Cardinality, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind as ReflectKind, MessageDescriptor,
    MethodDescriptor, Value,
};

use super::{
    Binding, Enum, EnumId, EnumValue, Field, Kind, Many, Message, MessageId, Method, Policy, Rules, Schema, Shape,
    path_variables,
};
use crate::contract::Contract;

struct Builder {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<String, MessageId>,
    enum_by_name: HashMap<String, EnumId>,
}

pub(super) fn build(contracts: &[&'static Contract]) -> Schema {
    let mut builder =
        Builder { messages: Vec::new(), enums: Vec::new(), by_name: HashMap::new(), enum_by_name: HashMap::new() };
    let (mut methods, mut places) = (Vec::new(), HashMap::new());
    for contract in contracts {
        let first = methods.len();
        builder.read(contract, &mut methods);
        places.insert(contract.package, first..methods.len());
    }
    builder.spread_rules();
    let by_path = methods.iter().enumerate().map(|(index, method)| (method.path.clone(), index)).collect();
    let Builder { messages, enums, by_name, .. } = builder;
    let schema = Schema { messages, enums, methods, places, by_name, by_path };
    check_bindings(&schema);
    schema
}

impl Builder {
    /// Adds the messages of a contract to what is known, and its methods to `methods`.
    fn read(&mut self, contract: &Contract, methods: &mut Vec<Method>) {
        let pool = contract.pool();
        let extension = |name: &str| pool.get_extension_by_name(name).unwrap_or_else(|| panic!("no option {name}"));
        let (http, policy, status) = (
            extension("google.api.http"),
            extension("upbridge.v1.policy"),
            extension("upbridge.v1.http_success_status"),
        );
        let rules = extension("buf.validate.field");
        let first = methods.len();
        for service in pool.services().filter(|service| service.package_name() == contract.package) {
            for method in service.methods() {
                let (input, output) = (self.message(&method.input(), &rules), self.message(&method.output(), &rules));
                let options = method.options();
                let success_status = match options.get_extension(&status).as_i32() {
                    Some(code @ 200..=299) => code as u16,
                    _ => 200,
                };
                methods.push(Method {
                    package: contract.package,
                    place: methods.len() - first,
                    path: format!("/{}/{}", service.full_name(), method.name()),
                    service: service.full_name().to_owned(),
                    name: method.name().to_owned(),
                    input,
                    output,
                    client_streaming: method.is_client_streaming(),
                    server_streaming: method.is_server_streaming(),
                    bindings: if options.has_extension(&http) { bindings(&options, &http) } else { Vec::new() },
                    policy: options.has_extension(&policy).then(|| read_policy(&options, &policy)),
                    success_status,
                    idempotent: is_idempotent(&method),
                });
            }
        }
        // Messages that no method names (types of events to come) still take part, so their rules are checked too.
        for message in pool.all_messages().filter(|message| message.package_name() == contract.package) {
            self.message(&message, &rules);
        }
    }

    fn message(&mut self, descriptor: &MessageDescriptor, rules: &ExtensionDescriptor) -> MessageId {
        if let Some(id) = self.by_name.get(descriptor.full_name()) {
            return *id;
        }
        let id = self.messages.len();
        self.by_name.insert(descriptor.full_name().to_owned(), id);
        let shape = match descriptor.full_name() {
            "google.protobuf.Timestamp" => Shape::Timestamp,
            "google.protobuf.Struct" => Shape::Struct,
            "google.protobuf.Value" => Shape::Value,
            "google.protobuf.ListValue" => Shape::List,
            _ => Shape::Object,
        };
        // The entry must exist before its fields are read: Struct and Value contain each other.
        self.messages.push(Message {
            full_name: descriptor.full_name().to_owned(),
            fields: Vec::new(),
            shape,
            has_rules: false,
            by_number: HashMap::new(),
            by_json: HashMap::new(),
        });
        let mut declared: Vec<FieldDescriptor> = descriptor.fields().collect();
        declared.sort_by_key(|field| field.path().last().copied());
        let fields: Vec<Field> = declared.iter().map(|field| self.field(field, rules)).collect();
        let message = &mut self.messages[id];
        for (index, field) in fields.iter().enumerate() {
            message.by_number.insert(field.number, index);
            message.by_json.insert(field.name.clone(), index);
            message.by_json.insert(field.json_name.clone(), index);
        }
        message.fields = fields;
        id
    }

    fn field(&mut self, descriptor: &FieldDescriptor, rules: &ExtensionDescriptor) -> Field {
        let (cardinality, kind) = if descriptor.is_map() {
            let ReflectKind::Message(entry) = descriptor.kind() else { unreachable!("a map field is a message") };
            assert!(
                matches!(entry.map_entry_key_field().kind(), ReflectKind::String),
                "{} has keys that are no strings",
                descriptor.full_name()
            );
            (Many::Map, entry.map_entry_value_field().kind())
        } else if descriptor.cardinality() == Cardinality::Repeated {
            (Many::List, descriptor.kind())
        } else {
            (Many::One, descriptor.kind())
        };
        let said = descriptor.options().get_extension(rules).as_message().map(read_rules);
        Field {
            number: descriptor.number(),
            name: descriptor.name().to_owned(),
            json_name: descriptor.json_name().to_owned(),
            kind: self.kind(&kind, descriptor.full_name(), rules),
            cardinality,
            presence: descriptor.supports_presence(),
            rules: said.unwrap_or_default(),
            secret: flag(&descriptor.options(), "debug_redact"),
        }
    }

    fn kind(&mut self, kind: &ReflectKind, field: &str, rules: &ExtensionDescriptor) -> Kind {
        match kind {
            ReflectKind::Bool => Kind::Bool,
            ReflectKind::Int32 => Kind::Int32,
            ReflectKind::Int64 => Kind::Int64,
            ReflectKind::Uint32 => Kind::Uint32,
            ReflectKind::Uint64 => Kind::Uint64,
            ReflectKind::Double => Kind::Double,
            ReflectKind::String => Kind::String,
            ReflectKind::Bytes => Kind::Bytes,
            ReflectKind::Enum(descriptor) => {
                if let Some(id) = self.enum_by_name.get(descriptor.full_name()) {
                    return Kind::Enum(*id);
                }
                let id = self.enums.len();
                self.enum_by_name.insert(descriptor.full_name().to_owned(), id);
                let prefix = format!("{}_", shouting(descriptor.name()));
                let values = descriptor.values().map(|value| EnumValue {
                    number: value.number(),
                    name: value.name().to_owned(),
                    word: value.name().strip_prefix(&prefix).unwrap_or(value.name()).to_lowercase(),
                });
                self.enums.push(Enum { full_name: descriptor.full_name().to_owned(), values: values.collect() });
                Kind::Enum(id)
            }
            ReflectKind::Message(descriptor) => Kind::Message(self.message(descriptor, rules)),
            other => panic!("{field} has type {other:?}, which the contracts do not use"),
        }
    }

    /// A message needs checking when a field of it does; messages may contain each other, so this runs to a fixpoint.
    fn spread_rules(&mut self) {
        loop {
            let needy: Vec<bool> = self
                .messages
                .iter()
                .map(|message| {
                    message.shape == Shape::Timestamp
                        || (message.shape == Shape::Object
                            && message.fields.iter().any(|field| self.needs_check(field)))
                })
                .collect();
            if self.messages.iter().zip(&needy).all(|(message, needs)| message.has_rules == *needs) {
                return;
            }
            self.messages.iter_mut().zip(needy).for_each(|(message, needs)| message.has_rules = needs);
        }
    }

    fn needs_check(&self, field: &Field) -> bool {
        match field.kind {
            // A string is always checked for UTF-8, an integer for its width, so that the error names the field.
            Kind::String | Kind::Int32 => true,
            Kind::Message(id) => field.rules.required || self.messages[id].has_rules,
            _ => {
                let rules = &field.rules;
                rules.required
                    || rules.gte.is_some()
                    || rules.lte.is_some()
                    || rules.defined_only
                    || rules.max_items.is_some()
            }
        }
    }
}

/// `UserStatus` → `USER_STATUS`, the prefix of its values.
fn shouting(camel: &str) -> String {
    let mut out = String::new();
    for (index, letter) in camel.char_indices() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_uppercase());
    }
    out
}

fn read_rules(rules: &DynamicMessage) -> Rules {
    let mut out = Rules { required: flag(rules, "required"), ..Rules::default() };
    match rules.get_field_by_name("ignore").and_then(|value| value.as_enum_number()) {
        Some(1) => out.ignore_zero = true,
        Some(3) => out.ignore_always = true,
        _ => {}
    }
    if let Some(string) = part(rules, "string") {
        out.min_len = number(&string, "min_len").map(|value| value as u64);
        out.max_len = number(&string, "max_len").map(|value| value as u64);
        out.email = flag(&string, "email");
        out.uuid = flag(&string, "uuid");
        if string.has_field_by_name("pattern") {
            let pattern = string.get_field_by_name("pattern").and_then(|value| value.as_str().map(str::to_owned));
            // ASCII classes, as RE2 has them: `\d` is `[0-9]` and nothing else.
            out.pattern = pattern.map(|pattern| {
                regex::RegexBuilder::new(&pattern).unicode(false).build().expect("a pattern of the contract compiles")
            });
        }
    }
    for name in ["int32", "int64"] {
        if let Some(int) = part(rules, name) {
            out.gte = number(&int, "gte");
            out.lte = number(&int, "lte");
        }
    }
    if let Some(enumeration) = part(rules, "enum") {
        out.defined_only = flag(&enumeration, "defined_only");
        if let Some(Value::List(values)) = enumeration.get_field_by_name("not_in").map(|value| value.into_owned()) {
            out.not_in = values.iter().filter_map(Value::as_i32).collect();
        }
    }
    if let Some(repeated) = part(rules, "repeated") {
        out.min_items = number(&repeated, "min_items").map(|value| value as u64);
        out.max_items = number(&repeated, "max_items").map(|value| value as u64);
    }
    out
}

fn part(message: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    message.has_field_by_name(name).then(|| message.get_field_by_name(name)?.as_message().cloned())?
}

fn flag(message: &DynamicMessage, name: &str) -> bool {
    message.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn number(message: &DynamicMessage, name: &str) -> Option<i64> {
    if !message.has_field_by_name(name) {
        return None;
    }
    match message.get_field_by_name(name)?.into_owned() {
        Value::I32(value) => Some(value.into()),
        Value::I64(value) => Some(value),
        Value::U64(value) => i64::try_from(value).ok(),
        _ => None,
    }
}

fn text(message: &DynamicMessage, name: &str) -> Option<String> {
    let value = message.get_field_by_name(name)?.as_str()?.to_owned();
    (!value.is_empty()).then_some(value)
}

fn bindings(options: &DynamicMessage, http: &ExtensionDescriptor) -> Vec<Binding> {
    let value = options.get_extension(http);
    let Some(main) = value.as_message() else { return Vec::new() };
    let mut out = vec![binding(main)];
    if let Some(Value::List(more)) = main.get_field_by_name("additional_bindings").map(|value| value.into_owned()) {
        out.extend(more.iter().filter_map(Value::as_message).map(binding));
    }
    out
}

fn binding(rule: &DynamicMessage) -> Binding {
    let (verb, template) = ["get", "put", "post", "delete", "patch"]
        .iter()
        .find_map(|verb| Some((verb.to_uppercase(), text(rule, verb)?)))
        .expect("an HTTP binding has a verb and a path");
    let body = text(rule, "body");
    assert!(matches!(body.as_deref(), None | Some("*")), "{template}: a body is `*` or absent in the contracts");
    Binding { verb, template, body: body.is_some(), response_body: text(rule, "response_body") }
}

fn read_policy(options: &DynamicMessage, policy: &ExtensionDescriptor) -> Policy {
    let value = options.get_extension(policy);
    let mut out = Policy::default();
    let Some(message) = value.as_message() else { return out };
    let event = text(message, "webhook_event");
    if let Some(Value::List(allowed)) = message.get_field_by_name("allow").map(|value| value.into_owned()) {
        for principal in allowed.iter().filter_map(Value::as_enum_number) {
            match principal {
                1 => out.public = true,
                2 => out.user = true,
                3 => out.admin = true,
                4 => out.service = true,
                5 => out.webhook = Some(event.clone().expect("a policy for webhooks names their event")),
                other => panic!("a policy allows principal {other}, which does not exist"),
            }
        }
    }
    out.token_field = text(message, "token_field");
    let flag = |name: &str| message.get_field_by_name(name).is_some_and(|value| value.as_bool() == Some(true));
    out.without_database = flag("without_database");
    out.raw_body = flag("raw_body");
    let limit = message.get_field_by_name("body_limit").and_then(|value| value.as_i32()).unwrap_or_default();
    out.body_limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
    out
}

fn is_idempotent(method: &MethodDescriptor) -> bool {
    use prost_types::method_options::IdempotencyLevel::{Idempotent, NoSideEffects};
    let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
    matches!(options.idempotency_level(), Idempotent | NoSideEffects)
}

/// Path variables and response bodies must name fields that exist: better found at start than by a caller.
fn check_bindings(schema: &Schema) {
    for method in &schema.methods {
        for binding in &method.bindings {
            for variable in path_variables(&binding.template) {
                let known = schema.messages[method.input].field_by_json(variable).is_some();
                assert!(known, "{}: path variable {variable} is no field of the request", binding.template);
            }
            if let Some(field) = &binding.response_body {
                let known = schema.messages[method.output].field_by_json(field).is_some();
                assert!(known, "{}: response_body {field} is no field of the response", binding.template);
            }
        }
    }
}
