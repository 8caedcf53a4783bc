//! Turns the bytes of an answer into JSON text, straight from the contract's tables.
//!
//! A message is read twice: the first pass notes where each field's bytes are, the second prints the fields in
//! the order the contract declares them. Nothing is left out for being zero, false or empty, so a reader need
//! not know defaults; what is absent, and can be, is `null`. Whole numbers print as integers, whatever their
//! type: 5 stays 5.

mod free_form;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, Timelike};
use upbridge_proto::schema::{Field, Kind, Many, Message, MessageId, Schema, Shape};
use upbridge_proto::validate::{Wire, next_field, varint};

use super::casing::Casing;

/// Whole doubles up to this size print as integers; beyond it their digits would claim more than they know.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The bytes are not the message they should be: a fault of the server.
#[derive(Debug)]
pub struct Corrupt(String);

impl fmt::Display for Corrupt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an answer is no valid message: {}", self.0)
    }
}

impl From<String> for Corrupt {
    fn from(why: String) -> Corrupt {
        Corrupt(why)
    }
}

/// `{"success":true,"data":…}` around an encoded `message`: all of it, or only the field `data`, with the other
/// fields beside it.
pub fn envelope(message: MessageId, data: Option<usize>, bytes: &[u8], casing: Casing) -> Result<Vec<u8>, Corrupt> {
    let schema = Schema::get();
    let mut out = Vec::with_capacity(bytes.len() * 3 + 64);
    out.extend_from_slice(b"{\"success\":true,\"data\":");
    let mut printer = Printer { schema, casing, out, found: Vec::with_capacity(64) };
    match data {
        None => printer.message(message, bytes)?,
        Some(index) => printer.split(&schema.messages[message], index, bytes)?,
    }
    printer.out.push(b'}');
    Ok(printer.out)
}

/// An encoded `message` without an envelope.
pub fn plain(message: MessageId, bytes: &[u8], casing: Casing) -> Result<Vec<u8>, Corrupt> {
    let out = Vec::with_capacity(bytes.len() * 3);
    let mut printer = Printer { schema: Schema::get(), casing, out, found: Vec::with_capacity(64) };
    printer.message(message, bytes)?;
    Ok(printer.out)
}

struct Printer<'a> {
    schema: &'static Schema,
    casing: Casing,
    out: Vec<u8>,
    /// Fields found in the messages being printed, innermost last: one allocation serves them all.
    found: Vec<(usize, Wire<'a>)>,
}

impl<'a> Printer<'a> {
    /// Notes the fields of a message, in the order of the table; values of one field keep theirs.
    fn find(&mut self, table: &Message, mut bytes: &'a [u8]) -> Result<usize, Corrupt> {
        let start = self.found.len();
        while !bytes.is_empty() {
            let (number, value, rest) = next_field(bytes)?;
            bytes = rest;
            if let Some((index, _)) = table.field(number) {
                self.found.push((index, value));
            }
        }
        self.found[start..].sort_by_key(|(index, _)| *index);
        Ok(start)
    }

    fn message(&mut self, id: MessageId, bytes: &'a [u8]) -> Result<(), Corrupt> {
        let table = &self.schema.messages[id];
        match table.shape {
            Shape::Object => {}
            Shape::Timestamp => return self.timestamp(bytes),
            Shape::Struct => return self.free_object(bytes),
            Shape::Value => return self.free_value(bytes),
            Shape::List => return self.free_list(bytes),
        }
        let start = self.find(table, bytes)?;
        let mut cursor = start;
        for (index, field) in table.fields.iter().enumerate() {
            self.out.push(if index == 0 { b'{' } else { b',' });
            self.name(field);
            cursor = self.field(field, index, cursor)?;
        }
        self.out.extend_from_slice(if table.fields.is_empty() { b"{}" } else { b"}" });
        self.found.truncate(start);
        Ok(())
    }

    /// The field `data` as a value, then the other fields as members beside it.
    fn split(&mut self, table: &Message, data: usize, bytes: &'a [u8]) -> Result<(), Corrupt> {
        self.find(table, bytes)?;
        let first = |found: &[(usize, Wire<'_>)], index: usize| found.partition_point(|(other, _)| *other < index);
        self.field(&table.fields[data], data, first(&self.found, data))?;
        for (index, field) in table.fields.iter().enumerate().filter(|(index, _)| *index != data) {
            self.out.push(b',');
            self.name(field);
            self.field(field, index, first(&self.found, index))?;
        }
        Ok(())
    }

    fn name(&mut self, field: &Field) {
        self.out.push(b'"');
        self.out.extend_from_slice(self.casing.name(field).as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Prints the values noted from `cursor` on that belong to the field `index`; returns where the next begin.
    fn field(&mut self, field: &Field, index: usize, cursor: usize) -> Result<usize, Corrupt> {
        let count = self.found[cursor..].iter().take_while(|(other, _)| *other == index).count();
        let values = cursor..cursor + count;
        match field.cardinality {
            Many::One => match (count, field.presence) {
                (0, true) => self.out.extend_from_slice(b"null"),
                (0, false) => self.value(field.kind, zero(field.kind))?,
                // The last one counts, as everywhere in protobuf.
                _ => self.value(field.kind, self.found[cursor + count - 1].1)?,
            },
            Many::List => {
                self.out.push(b'[');
                let begin = self.out.len();
                for at in values.clone() {
                    self.items(field.kind, self.found[at].1, begin)?;
                }
                self.out.push(b']');
            }
            Many::Map => {
                self.out.push(b'{');
                for at in values.clone() {
                    if at > values.start {
                        self.out.push(b',');
                    }
                    self.entry(field.kind, self.found[at].1)?;
                }
                self.out.push(b'}');
            }
        }
        Ok(values.end)
    }

    /// One item of a list, or many numbers packed into one run of bytes.
    fn items(&mut self, kind: Kind, value: Wire<'a>, begin: usize) -> Result<(), Corrupt> {
        let (Wire::Bytes(mut packed), false) = (value, matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_)))
        else {
            self.comma(begin);
            return self.value(kind, value);
        };
        while !packed.is_empty() {
            self.comma(begin);
            if kind == Kind::Double {
                let (chunk, rest) = packed.split_first_chunk().ok_or_else(|| "a double is cut off".to_owned())?;
                packed = rest;
                self.value(kind, Wire::Fixed64(u64::from_le_bytes(*chunk)))?;
            } else {
                let (number, rest) = varint(packed)?;
                packed = rest;
                self.value(kind, Wire::Varint(number))?;
            }
        }
        Ok(())
    }

    fn comma(&mut self, begin: usize) {
        if self.out.len() > begin {
            self.out.push(b',');
        }
    }

    fn entry(&mut self, kind: Kind, value: Wire<'a>) -> Result<(), Corrupt> {
        let (key, value) = key_and_value(value)?;
        self.text(key)?;
        self.out.push(b':');
        self.value(kind, value.unwrap_or(zero(kind)))
    }

    fn value(&mut self, kind: Kind, value: Wire<'a>) -> Result<(), Corrupt> {
        match (kind, value) {
            (Kind::Bool, Wire::Varint(number)) => {
                self.out.extend_from_slice(if number == 0 { b"false" } else { b"true" })
            }
            (Kind::Int32, Wire::Varint(number)) => self.json(&(number as i32)),
            (Kind::Int64, Wire::Varint(number)) => self.json(&(number as i64)),
            (Kind::Uint32, Wire::Varint(number)) => self.json(&(number as u32)),
            (Kind::Uint64, Wire::Varint(number)) => self.json(&number),
            (Kind::Double, Wire::Fixed64(bits)) => self.double(f64::from_bits(bits)),
            (Kind::String, Wire::Bytes(bytes)) => self.text(bytes)?,
            (Kind::Bytes, Wire::Bytes(bytes)) => self.json(&STANDARD.encode(bytes)),
            (Kind::Enum(id), Wire::Varint(number)) => match self.schema.enums[id].word(number as i32) {
                Some(word) => self.json(word),
                None => self.json(&(number as i32)),
            },
            (Kind::Message(id), Wire::Bytes(bytes)) => self.message(id, bytes)?,
            _ => return Err(Corrupt("a field has the wrong wire type".to_owned())),
        }
        Ok(())
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.out, value).expect("a number or a string can be written to memory");
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        let text = std::str::from_utf8(bytes).map_err(|_| Corrupt("a string is not UTF-8".to_owned()))?;
        self.json(text);
        Ok(())
    }

    fn double(&mut self, value: f64) {
        if value.fract() == 0.0 && value.abs() <= EXACT {
            self.json(&(value as i64));
        } else {
            self.json(&value);
        }
    }

    /// RFC 3339 in UTC, with as many digits of a second as are needed, in threes.
    fn timestamp(&mut self, mut bytes: &[u8]) -> Result<(), Corrupt> {
        let (mut seconds, mut nanos) = (0i64, 0u32);
        while !bytes.is_empty() {
            let (number, value, rest) = next_field(bytes)?;
            bytes = rest;
            match (number, value) {
                (1, Wire::Varint(value)) => seconds = value as i64,
                (2, Wire::Varint(value)) => nanos = value as u32,
                _ => {}
            }
        }
        let time = DateTime::from_timestamp(seconds, nanos).filter(|time| (0..=9999).contains(&time.year()));
        let time = time.ok_or_else(|| Corrupt("a time is out of range".to_owned()))?;
        self.out.push(b'"');
        self.digits(time.year() as u32, 4, b'-');
        self.digits(time.month(), 2, b'-');
        self.digits(time.day(), 2, b'T');
        self.digits(time.hour(), 2, b':');
        self.digits(time.minute(), 2, b':');
        self.digits(time.second(), 2, if nanos == 0 { b'Z' } else { b'.' });
        match nanos {
            0 => {}
            nanos if nanos % 1_000_000 == 0 => self.digits(nanos / 1_000_000, 3, b'Z'),
            nanos if nanos % 1_000 == 0 => self.digits(nanos / 1_000, 6, b'Z'),
            nanos => self.digits(nanos, 9, b'Z'),
        }
        self.out.push(b'"');
        Ok(())
    }

    fn digits(&mut self, value: u32, width: u32, then: u8) {
        for place in (0..width).rev() {
            self.out.push(b'0' + (value / 10u32.pow(place) % 10) as u8);
        }
        self.out.push(then);
    }
}

/// What an absent field without presence means.
fn zero<'a>(kind: Kind) -> Wire<'a> {
    match kind {
        Kind::String | Kind::Bytes | Kind::Message(_) => Wire::Bytes(&[]),
        Kind::Double => Wire::Fixed64(0),
        _ => Wire::Varint(0),
    }
}

/// The two fields of a map's entry; an absent key is the empty string.
fn key_and_value(entry: Wire<'_>) -> Result<(&[u8], Option<Wire<'_>>), Corrupt> {
    let Wire::Bytes(mut bytes) = entry else { return Err(Corrupt("a map entry has the wrong wire type".to_owned())) };
    let (mut key, mut value): (&[u8], _) = (&[], None);
    while !bytes.is_empty() {
        let (number, wire, rest) = next_field(bytes)?;
        bytes = rest;
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = text,
            (2, wire) => value = Some(wire),
            _ => {}
        }
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests;
