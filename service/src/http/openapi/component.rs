//! The schemas of messages and enums: their types, their rules, their comments.
//!
//! A message gets one schema for each spelling and direction it is seen in, and only where they differ: in
//! camelCase families as `PlanCamel`, in requests as `PlanInput` when answers have it too. An answer has all its
//! members always, so all are required there; a request's are required where a rule says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use upbridge_proto::Contract;
use upbridge_proto::schema::{EnumId, Field, Kind, Many, Message, MessageId, Schema, Shape};

use super::super::casing::Casing;
use super::comment::Comments;

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the caller.
    Request,
    /// To the caller.
    Answer,
}

/// The schemas that were asked for so far.
pub struct Components<'a> {
    schema: &'static Schema,
    comments: &'a Comments,
    answered: BTreeSet<MessageId>,
    /// By name, which keeps the document in one order.
    made: BTreeMap<String, Value>,
}

impl<'a> Components<'a> {
    /// None yet.
    pub fn new(contract: &Contract, comments: &'a Comments) -> Components<'a> {
        let schema = Schema::get();
        let mut answered = BTreeSet::new();
        for method in contract.methods().iter().filter(|method| !method.bindings.is_empty()) {
            reach(schema, method.output, &mut answered);
        }
        Components { schema, comments, answered, made: BTreeMap::new() }
    }

    /// All of them, by name.
    pub fn finish(self) -> Map<String, Value> {
        self.made.into_iter().collect()
    }

    /// A reference to the schema of a message, which is made when it is new.
    pub fn message(&mut self, id: MessageId, casing: Casing, way: Way) -> Value {
        let message = &self.schema.messages[id];
        match message.shape {
            Shape::Object => {}
            Shape::Timestamp => return json!({"type": "string", "format": "date-time"}),
            Shape::Struct => return json!({"type": "object", "additionalProperties": true}),
            Shape::Value => return json!({}),
            Shape::List => return json!({"type": "array", "items": {}}),
        }
        let mut name = short(&message.full_name).to_owned();
        if way == Way::Request && self.answered.contains(&id) {
            name += "Input";
        }
        if casing == Casing::Camel && self.differs(id, &mut BTreeSet::new()) {
            name += "Camel";
        }
        if !self.made.contains_key(&name) {
            // The name must be taken before the fields are described: messages may contain each other.
            self.made.insert(name.clone(), Value::Null);
            let described = self.object(message, casing, way, &[]);
            self.made.insert(name.clone(), described);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// The schema of a message without the fields at `except`.
    pub fn object(&mut self, message: &'static Message, casing: Casing, way: Way, except: &[usize]) -> Value {
        let fields = message.fields.iter().enumerate().filter(|(index, _)| !except.contains(index));
        let fields: Vec<&Field> = fields.map(|(_, field)| field).collect();
        let mut properties = Map::new();
        for field in &fields {
            properties.insert(casing.name(field).to_owned(), self.property(message, field, casing, way));
        }
        let required = fields.iter().filter(|field| way == Way::Answer || field.rules.required);
        let required: Vec<&str> = required.map(|field| casing.name(field)).collect();
        let mut out = json!({"type": "object", "description": self.comments.get(&message.full_name)});
        out["properties"] = Value::Object(properties);
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        out
    }

    /// The schema of a field as a member of its message: null where it may be absent.
    pub fn property(&mut self, message: &Message, field: &Field, casing: Casing, way: Way) -> Value {
        let mut out = self.field(field, casing, way);
        if field.presence && !(way == Way::Request && field.rules.required) {
            out = nullable(out);
        }
        let comment = self.describe(message, field);
        if !comment.is_empty() {
            out["description"] = json!(comment);
        }
        out
    }

    /// The field's comment.
    pub fn describe(&self, message: &Message, field: &Field) -> &str {
        self.comments.get(&format!("{}.{}", message.full_name, field.name))
    }

    /// The schema of a field's value.
    pub fn field(&mut self, field: &Field, casing: Casing, way: Way) -> Value {
        let mut one = self.kind(field.kind, casing, way);
        match field.cardinality {
            Many::One => {
                rules(&mut one, field);
                one
            }
            Many::List => {
                let mut list = json!({"type": "array", "items": one});
                set(&mut list, "minItems", field.rules.min_items);
                set(&mut list, "maxItems", field.rules.max_items);
                list
            }
            Many::Map => json!({"type": "object", "additionalProperties": one}),
        }
    }

    fn kind(&mut self, kind: Kind, casing: Casing, way: Way) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Uint32 => json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX}),
            Kind::Uint64 => json!({"type": "integer", "minimum": 0}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(id) => self.enumeration(id),
            Kind::Message(id) => self.message(id, casing, way),
        }
    }

    fn enumeration(&mut self, id: EnumId) -> Value {
        let enumeration = &self.schema.enums[id];
        let name = short(&enumeration.full_name);
        if !self.made.contains_key(name) {
            let mut description = self.comments.get(&enumeration.full_name).to_owned();
            for value in enumeration.values.iter().filter(|value| value.number != 0) {
                let comment = self.comments.get(&format!("{}.{}", enumeration.full_name, value.name));
                description += &format!("\n- `{}`: {comment}", value.word);
            }
            let words: Vec<&str> = enumeration.words().collect();
            self.made.insert(name.to_owned(), json!({"type": "string", "enum": words, "description": description}));
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// Whether any name in the message is spelled differently in camelCase.
    fn differs(&self, id: MessageId, seen: &mut BTreeSet<MessageId>) -> bool {
        let message = &self.schema.messages[id];
        seen.insert(id)
            && message.shape == Shape::Object
            && message.fields.iter().any(|field| {
                field.name != field.json_name
                    || matches!(field.kind, Kind::Message(inside) if self.differs(inside, seen))
            })
    }
}

fn reach(schema: &Schema, id: MessageId, reached: &mut BTreeSet<MessageId>) {
    if reached.insert(id) {
        for field in &schema.messages[id].fields {
            if let Kind::Message(inside) = field.kind {
                reach(schema, inside, reached);
            }
        }
    }
}

/// The last part of a full name.
pub fn short(full_name: &str) -> &str {
    full_name.rsplit('.').next().unwrap_or(full_name)
}

fn set(schema: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        schema[key] = value.into();
    }
}

fn rules(schema: &mut Value, field: &Field) {
    let rules = &field.rules;
    set(schema, "minimum", rules.gte);
    set(schema, "maximum", rules.lte);
    let filled = field.kind == Kind::String && rules.required && !rules.email && !rules.uuid && rules.pattern.is_none();
    set(schema, "minLength", rules.min_len.or(filled.then_some(1)));
    set(schema, "maxLength", rules.max_len);
    set(schema, "pattern", rules.pattern.as_ref().map(|pattern| pattern.as_str()));
    set(schema, "format", rules.email.then_some("email").or(rules.uuid.then_some("uuid")));
}

/// The same schema, or null.
fn nullable(mut schema: Value) -> Value {
    match schema.get("type") {
        Some(Value::String(kind)) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ if schema.get("$ref").is_some() => json!({"anyOf": [schema, {"type": "null"}]}),
        _ => schema,
    }
}
