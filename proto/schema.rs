//! The contract as data, read once from the descriptor set: what the JSON face, the validating codec, the
//! policy gate and the OpenAPI document share.
//!
//! Everything is indexed by small integers, so that encoding, decoding and validating a message follow tables
//! and never look a name up twice.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind as ReflectKind,
    MessageDescriptor, MethodDescriptor, Value,
};
use regex::Regex;

/// Index of a message in [`Schema::messages`].
pub type MessageId = usize;
/// Index of an enum in [`Schema::enums`].
pub type EnumId = usize;

/// Every message, enum and method of the contract.
#[derive(Debug)]
pub struct Schema {
    /// Messages; a field's [`Kind::Message`] points into this list.
    pub messages: Vec<Message>,
    /// Enums; a field's [`Kind::Enum`] points into this list.
    pub enums: Vec<Enum>,
    /// Methods of every service, in the order of the files.
    pub methods: Vec<Method>,
    by_name: HashMap<String, MessageId>,
    by_path: HashMap<String, usize>,
}

/// A message's table.
#[derive(Debug)]
pub struct Message {
    /// Full name, such as `upbridge.v1.User`.
    pub full_name: String,
    /// Fields in the order of the file.
    pub fields: Vec<Field>,
    /// What JSON makes of the message.
    pub shape: Shape,
    /// Whether the message, or one it contains, has a rule to enforce.
    pub has_rules: bool,
    by_number: HashMap<u32, usize>,
    by_json: HashMap<String, usize>,
}

/// How a message appears in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with a member for each field.
    Object,
    /// `google.protobuf.Timestamp`: an RFC 3339 string.
    Timestamp,
    /// `google.protobuf.Struct`: any object.
    Struct,
    /// `google.protobuf.Value`: any JSON.
    Value,
    /// `google.protobuf.ListValue`: any array.
    List,
}

/// A field's table.
#[derive(Debug)]
pub struct Field {
    /// Number on the wire.
    pub number: u32,
    /// Name in the file, snake_case.
    pub name: String,
    /// Name in lowerCamelCase JSON.
    pub json_name: String,
    /// Type of one value.
    pub kind: Kind,
    /// How many values there are.
    pub cardinality: Many,
    /// Whether unset differs from zero.
    pub presence: bool,
    /// What is checked.
    pub rules: Rules,
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// One at most.
    One,
    /// A list.
    List,
    /// A map with string keys; [`Field::kind`] is the type of its values.
    Map,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// An enum.
    Enum(EnumId),
    /// A message.
    Message(MessageId),
}

/// The `buf.validate` rules of a field.
#[derive(Debug, Default)]
pub struct Rules {
    /// Must be set, and must not be zero when it has no presence.
    pub required: bool,
    /// Rules are skipped while the field has its zero value.
    pub ignore_zero: bool,
    /// Rules are skipped, those of nested messages too.
    pub ignore_always: bool,
    /// Smallest integer.
    pub gte: Option<i64>,
    /// Largest integer.
    pub lte: Option<i64>,
    /// Fewest characters.
    pub min_len: Option<u64>,
    /// Most characters.
    pub max_len: Option<u64>,
    /// Must match.
    pub pattern: Option<Regex>,
    /// Must be an e-mail address.
    pub email: bool,
    /// Must be a hyphenated UUID.
    pub uuid: bool,
    /// Only defined enum values.
    pub defined_only: bool,
    /// Forbidden enum values.
    pub not_in: Vec<i32>,
    /// Fewest items.
    pub min_items: Option<u64>,
    /// Most items.
    pub max_items: Option<u64>,
}

/// An enum's words.
#[derive(Debug)]
pub struct Enum {
    /// Full name.
    pub full_name: String,
    /// Number, full value name and lowercase word without the prefix, in the order of the file.
    pub values: Vec<EnumValue>,
}

/// One value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// Number on the wire.
    pub number: i32,
    /// Name in the file, such as `ROLE_PRO_RESELLER`.
    pub name: String,
    /// Word in JSON, such as `pro_reseller`.
    pub word: String,
}

/// An rpc.
#[derive(Debug)]
pub struct Method {
    /// gRPC path, such as `/upbridge.v1.AuthService/Login`.
    pub path: String,
    /// Full name of the service.
    pub service: String,
    /// Name of the rpc.
    pub name: String,
    /// The request.
    pub input: MessageId,
    /// The response.
    pub output: MessageId,
    /// Whether the caller sends many requests.
    pub client_streaming: bool,
    /// Whether the hub sends many responses.
    pub server_streaming: bool,
    /// HTTP endpoints, the main one first.
    pub bindings: Vec<Binding>,
    /// Who may call; `None` means the contract is incomplete and a server must not start.
    pub policy: Option<Policy>,
    /// HTTP status of a successful answer.
    pub success_status: u16,
    /// Whether the contract says that a repeated call does no harm.
    pub idempotent: bool,
}

/// An HTTP endpoint of an rpc.
#[derive(Clone, Debug)]
pub struct Binding {
    /// HTTP method in capitals.
    pub verb: String,
    /// Path template with `{field}` variables.
    pub template: String,
    /// Whether the request fields not in the path come from a JSON body (`body: "*"`); else from the query.
    pub body: bool,
    /// The response field that is the data; `None` for the whole response.
    pub response_body: Option<String>,
}

/// An access policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Anyone may call.
    pub public: bool,
    /// Signed-in users may call, administrators included.
    pub user: bool,
    /// Administrators may call.
    pub admin: bool,
    /// Services may call.
    pub service: bool,
    /// The request field that may carry the token instead of a header.
    pub token_field: Option<String>,
}

impl Schema {
    /// The contract's schema, built at the first call.
    ///
    /// # Panics
    /// When the embedded descriptor set breaks the rules of the contract (a pattern that does not compile, a
    /// binding to a field that does not exist): the contract's tests find that before anyone else does.
    pub fn get() -> &'static Schema {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| build(&pool()))
    }

    /// The message of that full name.
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    /// The method at that gRPC path, with its index in [`Schema::methods`].
    pub fn method(&self, path: &str) -> Option<(usize, &Method)> {
        let index = *self.by_path.get(path)?;
        Some((index, &self.methods[index]))
    }
}

impl Message {
    /// The field of that wire number, with its index.
    pub fn field(&self, number: u32) -> Option<(usize, &Field)> {
        let index = *self.by_number.get(&number)?;
        Some((index, &self.fields[index]))
    }

    /// The field of that name, in snake_case or lowerCamelCase, with its index.
    pub fn field_by_json(&self, name: &str) -> Option<(usize, &Field)> {
        let index = *self.by_json.get(name)?;
        Some((index, &self.fields[index]))
    }
}

impl Enum {
    /// The JSON word of a number, when it is defined.
    pub fn word(&self, number: i32) -> Option<&str> {
        self.values.iter().find(|value| value.number == number).map(|value| value.word.as_str())
    }

    /// The number of a JSON word, or of a full value name as the file has it.
    pub fn number(&self, word: &str) -> Option<i32> {
        self.values.iter().find(|value| value.word == word || value.name == word).map(|value| value.number)
    }

    /// The words a caller may send: every one but the unspecified.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter(|value| value.number != 0).map(|value| value.word.as_str())
    }
}

/// A descriptor pool of the contract, for those who need comments or reflection. Costs a few milliseconds.
///
/// # Panics
/// When the embedded descriptor set does not decode, which the build rules out.
pub fn pool() -> DescriptorPool {
    DescriptorPool::decode(crate::DESCRIPTOR_SET).expect("the embedded descriptor set decodes")
}

struct Builder {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<String, MessageId>,
    enum_by_name: HashMap<String, EnumId>,
    field_rules: ExtensionDescriptor,
}

fn build(pool: &DescriptorPool) -> Schema {
    let extension = |name: &str| pool.get_extension_by_name(name).unwrap_or_else(|| panic!("no option {name}"));
    let mut builder = Builder {
        messages: Vec::new(),
        enums: Vec::new(),
        by_name: HashMap::new(),
        enum_by_name: HashMap::new(),
        field_rules: extension("buf.validate.field"),
    };
    let (http, policy, status) =
        (extension("google.api.http"), extension("upbridge.v1.policy"), extension("upbridge.v1.http_success_status"));
    let mut methods = Vec::new();
    for service in pool.services() {
        for method in service.methods() {
            let (input, output) = (builder.message(&method.input()), builder.message(&method.output()));
            let options = method.options();
            let success_status = match options.get_extension(&status).as_i32() {
                Some(code @ 200..=299) => code as u16,
                _ => 200,
            };
            methods.push(Method {
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
    for message in pool.all_messages().filter(|message| message.package_name() == "upbridge.v1") {
        builder.message(&message);
    }
    builder.spread_rules();
    let by_path = methods.iter().enumerate().map(|(index, method)| (method.path.clone(), index)).collect();
    let schema =
        Schema { messages: builder.messages, enums: builder.enums, methods, by_name: builder.by_name, by_path };
    check_bindings(&schema);
    schema
}

impl Builder {
    fn message(&mut self, descriptor: &MessageDescriptor) -> MessageId {
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
        let fields: Vec<Field> = declared.iter().map(|field| self.field(field)).collect();
        let message = &mut self.messages[id];
        for (index, field) in fields.iter().enumerate() {
            message.by_number.insert(field.number, index);
            message.by_json.insert(field.name.clone(), index);
            message.by_json.insert(field.json_name.clone(), index);
        }
        message.fields = fields;
        id
    }

    fn field(&mut self, descriptor: &FieldDescriptor) -> Field {
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
        let rules = descriptor.options().get_extension(&self.field_rules).as_message().map(read_rules);
        Field {
            number: descriptor.number(),
            name: descriptor.name().to_owned(),
            json_name: descriptor.json_name().to_owned(),
            kind: self.kind(&kind, descriptor.full_name()),
            cardinality,
            presence: descriptor.supports_presence(),
            rules: rules.unwrap_or_default(),
        }
    }

    fn kind(&mut self, kind: &ReflectKind, field: &str) -> Kind {
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
            ReflectKind::Message(descriptor) => Kind::Message(self.message(descriptor)),
            other => panic!("{field} has type {other:?}, which this contract does not use"),
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
    assert!(matches!(body.as_deref(), None | Some("*")), "{template}: a body is `*` or absent in this contract");
    Binding { verb, template, body: body.is_some(), response_body: text(rule, "response_body") }
}

fn read_policy(options: &DynamicMessage, policy: &ExtensionDescriptor) -> Policy {
    let value = options.get_extension(policy);
    let mut out = Policy::default();
    let Some(message) = value.as_message() else { return out };
    if let Some(Value::List(allowed)) = message.get_field_by_name("allow").map(|value| value.into_owned()) {
        for principal in allowed.iter().filter_map(Value::as_enum_number) {
            match principal {
                1 => out.public = true,
                2 => out.user = true,
                3 => out.admin = true,
                4 => out.service = true,
                other => panic!("a policy allows principal {other}, which does not exist"),
            }
        }
    }
    out.token_field = text(message, "token_field");
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

/// The `{variable}` names of a path template, in order.
pub fn path_variables(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}
