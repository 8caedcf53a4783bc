//! The contracts as data, read once from their descriptor sets: what the JSON face, the validating codec, the
//! policy gate and the OpenAPI document share.
//!
//! Everything is indexed by small integers, so that encoding, decoding and validating a message follow tables
//! and never look a name up twice.

mod build;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use regex::Regex;

use crate::contract::CONTRACTS;

/// Index of a message in [`Schema::messages`].
pub type MessageId = usize;
/// Index of an enum in [`Schema::enums`].
pub type EnumId = usize;

/// Every message, enum and method of every contract. [`Contract`](crate::Contract) tells what is whose.
#[derive(Debug)]
pub struct Schema {
    /// Messages; a field's [`Kind::Message`] points into this list.
    pub messages: Vec<Message>,
    /// Enums; a field's [`Kind::Enum`] points into this list.
    pub enums: Vec<Enum>,
    /// Methods of every service, contract by contract, in the order of the files.
    methods: Vec<Method>,
    /// Where the methods of a package are.
    places: HashMap<&'static str, Range<usize>>,
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
    /// Whether its value is a secret that no log may hold (`debug_redact`).
    pub secret: bool,
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
    /// The package of its contract.
    pub package: &'static str,
    /// Its place among the methods of that contract, from 0.
    pub place: usize,
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
    /// Whether administrators the hub knows already may call while the database is gone.
    pub without_database: bool,
    /// Whoever signs may call, by a webhook of this event.
    pub webhook: Option<String>,
    /// Whether the body is nothing the contract describes and is handed on as it came.
    pub raw_body: bool,
    /// Most bytes of the body over HTTP, where that is fewer than the server takes of any.
    pub body_limit: Option<usize>,
}

impl Schema {
    /// The schema, built at the first call.
    ///
    /// # Panics
    /// When an embedded descriptor set breaks the rules of the contract (a pattern that does not compile, a
    /// binding to a field that does not exist): the contract's tests find that before anyone else does.
    pub fn get() -> &'static Schema {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| build::build(CONTRACTS))
    }

    /// The message of that full name.
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    /// Where the methods of a package are in [`Schema::all_methods`].
    pub(crate) fn places(&self, package: &str) -> Range<usize> {
        self.places.get(package).cloned().unwrap_or_default()
    }

    /// The methods of every contract; those of one are what [`Contract::methods`](crate::Contract::methods) is for.
    pub fn all_methods(&self) -> &[Method] {
        &self.methods
    }

    /// The method at that gRPC path of any contract, with its index in [`Schema::all_methods`].
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

/// The `{variable}` names of a path template, in order.
pub fn path_variables(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}
