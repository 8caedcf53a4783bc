//! What every server's messages are made of (ids, times, months, free-form JSON) as the model has it, and back.

use chrono::{DateTime, SubsecRound};
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use uuid::Uuid;

use crate::model::{Error, Instant, Json, Month, Result};

/// A UUID the codec has checked; `field` names it should it be none all the same.
pub fn uuid(text: &str, field: &'static str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| Error::invalid(field, "must be a UUID"))
}

/// A UUID that may be absent.
pub fn uuid_or_none(text: Option<&str>, field: &'static str) -> Result<Option<Uuid>> {
    text.map(|text| uuid(text, field)).transpose()
}

/// A month that may be absent.
pub fn month_or_none(text: Option<&str>, field: &'static str) -> Result<Option<Month>> {
    let read = |text| Month::parse(text).ok_or_else(|| Error::invalid(field, "must be a month as YYYY-MM"));
    text.map(read).transpose()
}

/// A time as a message.
pub fn timestamp(at: Instant) -> Timestamp {
    Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 }
}

/// A time a message holds; `field` names it should it be none.
pub fn instant(at: Timestamp, field: &'static str) -> Result<Instant> {
    let nanos = u32::try_from(at.nanos).unwrap_or(u32::MAX);
    let read = DateTime::from_timestamp(at.seconds, nanos).map(|at| at.trunc_subsecs(6));
    read.ok_or_else(|| Error::invalid(field, "must be a time between years 1 and 9999"))
}

/// A list of free-form JSON as it is stored.
pub fn list(list: ListValue, field: &str) -> Result<Json> {
    Ok(Json::Array(list.values.into_iter().map(|value| json_value(value, field)).collect::<Result<_>>()?))
}

/// Free-form JSON as it is stored: integers stay integers, 5 and not 5.0.
pub fn json(object: Struct, field: &str) -> Result<Json> {
    let members = object.fields.into_iter().map(|(key, value)| match key.contains('\0') {
        true => Err(Error::invalid(field, "must not hold NUL")),
        false => Ok((key, json_value(value, field)?)),
    });
    Ok(Json::Object(members.collect::<Result<_>>()?))
}

fn json_value(value: Value, field: &str) -> Result<Json> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        // PostgreSQL's jsonb has no NUL, so a text with one could not be kept everywhere.
        Some(Kind::StringValue(value)) if value.contains('\0') => {
            return Err(Error::invalid(field, "must not hold NUL"));
        }
        Some(Kind::StringValue(value)) => Json::String(value),
        // Beyond 2^53 a double is no longer every integer, and its exact value is anyone's guess.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
            Json::from(number as i64)
        }
        Some(Kind::NumberValue(number)) => serde_json::Number::from_f64(number)
            .map(Json::Number)
            .ok_or_else(|| Error::invalid(field, "must not hold NaN or infinity"))?,
        Some(Kind::ListValue(values)) => list(values, field)?,
        Some(Kind::StructValue(object)) => json(object, field)?,
    })
}

/// Stored JSON as a message; anything but an object has no such form.
pub fn structure(json: &Json) -> Option<Struct> {
    let members = json.as_object()?;
    Some(Struct { fields: members.iter().map(|(key, value)| (key.clone(), structure_value(value))).collect() })
}

fn structure_value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(structure_value).collect() }),
        Json::Object(_) => Kind::StructValue(structure(json).unwrap_or_default()),
    };
    Value { kind: Some(kind) }
}
