//! Turns path variables, query and JSON body into the request's bytes, straight from the contract's tables.
//!
//! There is no message in between: a field is looked up, its value is checked for its type, and its bytes are
//! written. What is checked here is only whether the JSON *is* such a message: names and types. Whether it is
//! allowed (lengths, ranges, patterns) is the business of the codec that reads these bytes, on every face alike.
//!
//! All that is wrong is collected and named by its path, up to 32 fields; values are never repeated. `null` is
//! the same as an absent member, except inside free-form JSON.

mod free_form;
mod scalar;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use upbridge_proto::schema::{Field, Kind, Many, Message, MessageId, Schema, Shape};
use upbridge_proto::validate::Violation;

use super::json::Json;
use super::wire;

/// A request names at most this many fields; the rest would not help anyone.
const MAX_VIOLATIONS: usize = 32;
/// Names that a caller made up are repeated up to this length.
const MAX_NAME: usize = 64;

/// The parts of an HTTP request that make up a message.
#[derive(Debug, Default)]
pub struct Input<'a> {
    /// Request fields that the path gives, decoded.
    pub variables: Vec<(usize, String)>,
    /// The query, still encoded; may be empty.
    pub query: &'a str,
    /// The members of the body; empty when there is no body.
    pub body: Vec<(Cow<'a, str>, Json<'a>)>,
    /// Whether the endpoint reads its fields from the body; else it reads them from the query.
    pub takes_body: bool,
    /// Whether members of the body that the contract does not know are passed over; else they are an error.
    pub passes_unknown: bool,
}

/// The bytes of the `message` that `input` spells, or all that is wrong with it.
pub fn message(message: MessageId, input: &Input<'_>) -> Result<Vec<u8>, Vec<Violation>> {
    let schema = Schema::get();
    let mut decoder = Decoder {
        schema,
        out: Vec::with_capacity(128),
        path: String::new(),
        violations: Vec::new(),
        passes_unknown: input.passes_unknown,
    };
    let table = &schema.messages[message];
    let mut given = Given::new(table);
    for (index, text) in &input.variables {
        decoder.variable(&table.fields[*index], *index, text, &mut given);
    }
    if input.takes_body {
        decoder.members(table, &input.body, &mut given, 1);
    } else {
        for (name, _) in &input.body {
            decoder.at(name, |decoder| decoder.fail("is not accepted: this endpoint takes no body"));
        }
    }
    for (name, value) in pairs(input.query) {
        decoder.parameter(table, &name, &value, input.takes_body, &mut given);
    }
    if decoder.violations.is_empty() { Ok(decoder.out) } else { Err(decoder.violations) }
}

/// Which fields of a message were given already, and what the path said of them.
struct Given {
    fields: Vec<bool>,
    counts: Vec<usize>,
    path: Vec<(usize, Vec<u8>)>,
}

impl Given {
    fn new(table: &Message) -> Given {
        Given { fields: vec![false; table.fields.len()], counts: Vec::new(), path: Vec::new() }
    }
}

/// The names and values of a query; invalid UTF-8 is kept as an error.
fn pairs(query: &str) -> impl Iterator<Item = (String, Result<String, ()>)> {
    fn decoded(text: &str) -> Result<String, ()> {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(drop)
    }
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name).unwrap_or_else(|()| name.to_owned()), decoded(value))
    })
}

struct Decoder {
    schema: &'static Schema,
    out: Vec<u8>,
    path: String,
    violations: Vec<Violation>,
    passes_unknown: bool,
}

impl Decoder {
    fn fail(&mut self, description: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { field: self.path.clone(), description: description.into() });
        }
    }

    /// Runs `step` with the path extended by a name.
    fn at<T>(&mut self, name: &str, step: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.extend(name.chars().take(MAX_NAME));
        let result = step(self);
        self.path.truncate(length);
        result
    }

    /// Runs `step` with the path extended by an index.
    fn at_index<T>(&mut self, index: usize, step: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = step(self);
        self.path.truncate(length);
        result
    }

    fn variable(&mut self, field: &Field, index: usize, text: &str, given: &mut Given) {
        let start = self.out.len();
        self.at(&field.name, |decoder| decoder.text_value(field, text));
        given.path.push((index, self.out[start..].to_vec()));
    }

    fn parameter(
        &mut self,
        table: &Message,
        name: &str,
        value: &Result<String, ()>,
        takes_body: bool,
        given: &mut Given,
    ) {
        let known = table.field_by_json(name);
        self.at(known.map_or(name, |(_, field)| &field.name), |decoder| match (known, value) {
            _ if takes_body => decoder.fail("is not accepted: this endpoint takes no query"),
            (None, _) => decoder.fail("is not a known parameter"),
            (_, Err(())) => decoder.fail("must be valid UTF-8"),
            (Some((index, field)), Ok(text)) => match field.cardinality {
                Many::One => {
                    decoder.once(index, given, |decoder| decoder.text_value(field, text));
                }
                Many::List => {
                    given.counts.resize(table.fields.len(), 0);
                    given.counts[index] += 1;
                    decoder.at_index(given.counts[index] - 1, |decoder| decoder.text_value(field, text));
                }
                Many::Map => decoder.fail("cannot be given in the query"),
            },
        });
    }

    /// A value that comes as text from the path or the query.
    fn text_value(&mut self, field: &Field, text: &str) {
        let value = match (field.kind, text) {
            (Kind::Bool, "true") => Json::Bool(true),
            (Kind::Bool, "false") => Json::Bool(false),
            (Kind::Message(id), _) if self.schema.messages[id].shape != Shape::Timestamp => {
                return self.fail("cannot be given in the query");
            }
            _ => Json::Text(text.into()),
        };
        self.element(field.number, field.kind, &value, 1);
    }

    /// Writes a field that may be given once; when the path gave it too, both must agree.
    fn once(&mut self, index: usize, given: &mut Given, write: impl FnOnce(&mut Self)) {
        if std::mem::replace(&mut given.fields[index], true) {
            return self.fail("is given twice");
        }
        let (start, wrong) = (self.out.len(), self.violations.len());
        write(self);
        if let Some((_, in_path)) = given.path.iter().find(|(other, _)| *other == index) {
            if self.violations.len() == wrong && self.out[start..] != in_path[..] && !in_path.is_empty() {
                self.fail("differs from the one in the path");
            }
            self.out.truncate(start);
        }
    }

    fn members(&mut self, table: &Message, members: &[(Cow<'_, str>, Json<'_>)], given: &mut Given, depth: u32) {
        for (name, value) in members {
            let Some((index, field)) = table.field_by_json(name) else {
                if !self.passes_unknown {
                    self.at(name, |decoder| decoder.fail("is not a known field"));
                }
                continue;
            };
            if *value == Json::Null && !self.holds_null(field) {
                continue;
            }
            self.at(&field.name, |decoder| {
                decoder.once(index, given, |decoder| decoder.field(field, value, depth));
            });
        }
    }

    /// A `google.protobuf.Value` has a null of its own; for everything else null means absent.
    fn holds_null(&self, field: &Field) -> bool {
        matches!(field.kind, Kind::Message(id) if self.schema.messages[id].shape == Shape::Value)
            && field.cardinality == Many::One
    }

    fn field(&mut self, field: &Field, value: &Json<'_>, depth: u32) {
        match (field.cardinality, value) {
            (Many::One, value) => self.element(field.number, field.kind, value, depth),
            (Many::List, Json::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.at_index(index, |decoder| decoder.element(field.number, field.kind, item, depth));
                }
            }
            (Many::List, _) => self.fail("must be a list"),
            (Many::Map, Json::Object(entries)) => {
                self.refuse_repeated(entries);
                for (key, item) in entries {
                    let start = wire::open(&mut self.out, field.number);
                    wire::bytes(&mut self.out, 1, key.as_bytes());
                    self.at(key, |decoder| decoder.element(2, field.kind, item, depth + 1));
                    wire::close(&mut self.out, start);
                }
            }
            (Many::Map, _) => self.fail("must be an object"),
        }
    }

    /// One value: written as field `number`, or named as wrong.
    fn element(&mut self, number: u32, kind: Kind, value: &Json<'_>, depth: u32) {
        let Kind::Message(id) = kind else {
            if let Err(description) = scalar::write(&mut self.out, number, kind, value) {
                self.fail(description);
            }
            return;
        };
        let table = &self.schema.messages[id];
        if *value == Json::Null && table.shape != Shape::Value {
            return self.fail("must not be null");
        }
        let start = wire::open(&mut self.out, number);
        match (table.shape, value) {
            (Shape::Object, Json::Object(members)) => {
                self.members(table, members, &mut Given::new(table), depth + 1);
            }
            (Shape::Object, _) => self.fail("must be an object"),
            (Shape::Timestamp, _) => match scalar::time(value) {
                Ok((seconds, nanos)) => {
                    wire::number(&mut self.out, 1, seconds as u64);
                    wire::number(&mut self.out, 2, u64::from(nanos));
                }
                Err(description) => self.fail(description),
            },
            (Shape::Struct, Json::Object(members)) => self.free_object(members, depth + 1),
            (Shape::Struct, _) => self.fail("must be an object"),
            (Shape::List, Json::List(items)) => self.free_list(items, depth + 1),
            (Shape::List, _) => self.fail("must be a list"),
            (Shape::Value, value) => self.free_value(value, depth + 1),
        }
        wire::close(&mut self.out, start);
    }
}

#[cfg(test)]
mod tests;
