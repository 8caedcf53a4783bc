//! Enforces the contract's `buf.validate` rules on encoded messages, before they are decoded into Rust.
//!
//! Working on the wire bytes costs one pass and no copy, needs no generated code, and lets an error name the
//! field that holds bad UTF-8 or an integer too large for its type, which decoding alone would not.

use std::sync::LazyLock;

use regex::Regex;

use crate::schema::{Field, Kind, Many, MessageId, Schema, Shape};

/// Nesting beyond this is refused, as prost does.
const MAX_DEPTH: u32 = 100;
/// A request names at most this many violations; the rest would not help anyone.
const MAX_VIOLATIONS: usize = 32;

/// A field that breaks a rule. Values are never repeated in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in snake_case, such as `usage_data.month_year` or `features[2].feature`.
    pub field: String,
    /// What is wrong, for people.
    pub description: String,
}

/// Why an encoded message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no encoded message: cut off, or of the wrong wire type.
    Malformed(String),
    /// Fields break rules; never empty.
    Violations(Vec<Violation>),
}

/// Checks the encoded `message` and everything in it.
pub fn check(message: MessageId, bytes: &[u8]) -> Result<(), Refusal> {
    let schema = Schema::get();
    if !schema.messages[message].has_rules {
        return Ok(());
    }
    let mut walk = Walk { schema, violations: Vec::new(), path: String::new() };
    walk.message(message, bytes, 0).map_err(Refusal::Malformed)?;
    if walk.violations.is_empty() { Ok(()) } else { Err(Refusal::Violations(walk.violations)) }
}

/// One value on the wire.
#[derive(Clone, Copy)]
pub enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// Reads the next field of an encoded message: its number, its value, and what follows.
pub fn next_field(bytes: &[u8]) -> Result<(u32, Wire<'_>, &[u8]), String> {
    let (tag, rest) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or("a field has no number")?;
    let short = || format!("field {number} is cut off");
    match tag & 7 {
        0 => varint(rest).map(|(value, rest)| (number, Wire::Varint(value), rest)),
        1 => rest
            .split_first_chunk()
            .ok_or_else(short)
            .map(|(value, rest)| (number, Wire::Fixed64(u64::from_le_bytes(*value)), rest)),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or_else(short)?;
            let (value, rest) = rest.split_at(length);
            Ok((number, Wire::Bytes(value), rest))
        }
        5 => rest
            .split_first_chunk()
            .ok_or_else(short)
            .map(|(value, rest)| (number, Wire::Fixed32(u32::from_le_bytes(*value)), rest)),
        other => Err(format!("field {number} has wire type {other}")),
    }
}

/// Reads a varint.
pub fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("a number is cut off or too long".to_owned())
}

struct Walk {
    schema: &'static Schema,
    violations: Vec<Violation>,
    path: String,
}

impl Walk {
    fn message(&mut self, id: MessageId, mut bytes: &[u8], depth: u32) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("messages are nested too deeply".to_owned());
        }
        let message = &self.schema.messages[id];
        if message.shape == Shape::Timestamp {
            return self.timestamp(bytes);
        }
        let mut last: Vec<Option<Wire<'_>>> = vec![None; message.fields.len()];
        let mut counts = vec![0u64; message.fields.len()];
        while !bytes.is_empty() {
            let (number, value, rest) = next_field(bytes)?;
            bytes = rest;
            let Some((index, field)) = message.field(number) else { continue };
            // Decoding merges the parts of a message that comes in several, so that none of them alone says what it
            // will hold. No encoder writes such a thing.
            let is_message = field.cardinality == Many::One && matches!(field.kind, Kind::Message(_));
            if is_message && last[index].is_some() {
                return Err(format!("field {number} is given twice"));
            }
            last[index] = Some(value);
            match field.cardinality {
                Many::One => {}
                Many::List => {
                    counts[index] += 1;
                    if !field.rules.ignore_always {
                        self.at(field, Some(counts[index] - 1), |walk| walk.element(field, value, depth))?;
                    }
                }
                Many::Map => counts[index] += 1,
            }
        }
        for (index, field) in message.fields.iter().enumerate() {
            if field.rules.ignore_always || self.violations.len() >= MAX_VIOLATIONS {
                continue;
            }
            self.at(field, None, |walk| match field.cardinality {
                Many::One => walk.single(field, last[index], depth),
                Many::List | Many::Map => {
                    walk.items(field, counts[index]);
                    Ok(())
                }
            })?;
        }
        Ok(())
    }

    /// Runs `check` with the path extended by the field, and by its index in a list.
    fn at(
        &mut self,
        field: &Field,
        index: Option<u64>,
        check: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(&field.name);
        if let Some(index) = index {
            self.path.push_str(&format!("[{index}]"));
        }
        let result = check(self);
        self.path.truncate(length);
        result
    }

    fn fail(&mut self, description: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { field: self.path.clone(), description: description.into() });
        }
    }

    fn items(&mut self, field: &Field, count: u64) {
        if field.rules.required && count == 0 {
            return self.fail("is required");
        }
        if let Some(most) = field.rules.max_items.filter(|most| count > *most) {
            self.fail(format!("must have at most {most} items"));
        }
        if let Some(fewest) = field.rules.min_items.filter(|fewest| count < *fewest) {
            self.fail(format!("must have at least {fewest} items"));
        }
    }

    fn single(&mut self, field: &Field, value: Option<Wire<'_>>, depth: u32) -> Result<(), String> {
        let zero = match value {
            None => true,
            Some(Wire::Varint(0) | Wire::Fixed32(0) | Wire::Fixed64(0)) => true,
            Some(Wire::Bytes(bytes)) => bytes.is_empty() && !matches!(field.kind, Kind::Message(_)),
            Some(_) => false,
        };
        let unset = if field.presence { value.is_none() } else { zero };
        if unset && field.rules.required {
            self.fail("is required");
            return Ok(());
        }
        if (field.presence && value.is_none()) || (zero && field.rules.ignore_zero) {
            return Ok(());
        }
        let missing = match field.kind {
            Kind::String | Kind::Bytes | Kind::Message(_) => Wire::Bytes(&[]),
            _ => Wire::Varint(0),
        };
        self.element(field, value.unwrap_or(missing), depth)
    }

    fn element(&mut self, field: &Field, value: Wire<'_>, depth: u32) -> Result<(), String> {
        match (field.kind, value) {
            (Kind::Message(id), Wire::Bytes(bytes)) => {
                if self.schema.messages[id].has_rules {
                    self.message(id, bytes, depth + 1)
                } else {
                    Ok(())
                }
            }
            (Kind::String, Wire::Bytes(bytes)) => {
                match std::str::from_utf8(bytes) {
                    Ok(text) => self.string(field, text),
                    Err(_) => self.fail("must be valid UTF-8"),
                }
                Ok(())
            }
            (Kind::Int32, Wire::Varint(number)) => {
                match i32::try_from(number as i64) {
                    Ok(number) => self.integer(field, number.into()),
                    Err(_) => self.fail("must be a 32-bit integer"),
                }
                Ok(())
            }
            (Kind::Int64, Wire::Varint(number)) => {
                self.integer(field, number as i64);
                Ok(())
            }
            (Kind::Enum(id), Wire::Varint(number)) => {
                let number = number as i64 as i32;
                let rules = &field.rules;
                let words = &self.schema.enums[id];
                if rules.not_in.contains(&number) || (rules.defined_only && words.word(number).is_none()) {
                    self.fail(format!("must be one of {}", words.words().collect::<Vec<_>>().join(", ")));
                }
                Ok(())
            }
            // A packed list of numbers, or a type without rules; decoding checks the rest.
            _ => Ok(()),
        }
    }

    fn string(&mut self, field: &Field, text: &str) {
        let rules = &field.rules;
        if rules.min_len.is_some() || rules.max_len.is_some() {
            let length = text.chars().count() as u64;
            if let Some(fewest) = rules.min_len.filter(|fewest| length < *fewest) {
                return self.fail(format!("must have at least {fewest} characters"));
            }
            if let Some(most) = rules.max_len.filter(|most| length > *most) {
                return self.fail(format!("must have at most {most} characters"));
            }
        }
        if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            self.fail(format!("must match {}", pattern.as_str()));
        }
        if rules.email && !is_email(text) {
            self.fail("must be an e-mail address");
        }
        if rules.uuid && !is_uuid(text) {
            self.fail("must be a UUID");
        }
        // Neither database keeps a NUL inside text alike, and no name or key needs one.
        if text.contains('\0') {
            self.fail("must not contain NUL");
        }
    }

    fn integer(&mut self, field: &Field, value: i64) {
        let (least, most) = (field.rules.gte, field.rules.lte);
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            self.fail(match (least, most) {
                (Some(least), Some(most)) => format!("must be between {least} and {most}"),
                (Some(least), None) => format!("must be at least {least}"),
                (_, most) => format!("must be at most {}", most.unwrap_or_default()),
            });
        }
    }

    /// `google.protobuf.Timestamp` is defined from year 1 to year 9999.
    fn timestamp(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let (mut seconds, mut nanos) = (0i64, 0i64);
        while !bytes.is_empty() {
            let (number, value, rest) = next_field(bytes)?;
            bytes = rest;
            match (number, value) {
                (1, Wire::Varint(value)) => seconds = value as i64,
                (2, Wire::Varint(value)) => nanos = value as i64,
                _ => {}
            }
        }
        if !(-62_135_596_800..=253_402_300_799).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
            self.fail("must be a time between years 1 and 9999");
        }
        Ok(())
    }
}

/// The HTML standard's definition of an e-mail address, which `buf.validate` uses as well.
pub fn is_email(text: &str) -> bool {
    static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
        let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
        Regex::new(&format!(r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{label}(?:\.{label})*$")).expect("it compiles")
    });
    EMAIL.is_match(text)
}

/// The hyphenated form of a UUID, of any version.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use prost::Message as _;

    fn check_message<M: prost::Message + prost::Name>(message: &M) -> Vec<(String, String)> {
        let id = Schema::get().message(&M::full_name()).expect("known");
        match check(id, &message.encode_to_vec()) {
            Ok(()) => Vec::new(),
            Err(Refusal::Violations(all)) => all.into_iter().map(|one| (one.field, one.description)).collect(),
            Err(Refusal::Malformed(why)) => panic!("{why}"),
        }
    }

    fn usage() -> v1::UsageData {
        v1::UsageData {
            batch_name: "a".into(),
            batch_type: "video".into(),
            usage_type: "local_rendering".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_nested_field_is_named_by_its_path() {
        let bad = v1::RecordUsageRequest {
            usage_data: Some(v1::UsageData { month_year: Some("2024-13".into()), usage_amount: Some(0), ..usage() }),
            ..Default::default()
        };
        let fields: Vec<_> = check_message(&bad).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["usage_data.usage_amount", "usage_data.month_year"]);
    }

    #[test]
    fn a_required_field_is_missed_and_an_optional_one_is_not() {
        assert_eq!(check_message(&v1::RecordUsageRequest::default())[0], ("usage_data".into(), "is required".into()));
        let fine = v1::RecordUsageRequest { usage_data: Some(usage()), ..Default::default() };
        assert!(check_message(&fine).is_empty());
    }

    #[test]
    fn reports_of_a_stream_are_left_to_be_checked_one_by_one() {
        let bad = v1::RecordUsageStreamRequest { reports: vec![v1::UsageReport::default()] };
        assert!(check_message(&bad).is_empty());
        assert_eq!(check_message(&v1::UsageReport::default())[0].0, "usage_data");
    }

    #[test]
    fn an_amount_that_does_not_fit_is_named_and_not_wrapped() {
        // usage_amount is field 4, a varint: 2^31 does not fit an int32, which prost would wrap to a negative.
        let mut bytes = usage().encode_to_vec();
        bytes.extend([4 << 3, 0x80, 0x80, 0x80, 0x80, 0x08]);
        let id = Schema::get().message("upbridge.v1.UsageData").unwrap();
        let Err(Refusal::Violations(all)) = check(id, &bytes) else { panic!("it was accepted") };
        assert_eq!((all[0].field.as_str(), all[0].description.as_str()), ("usage_amount", "must be a 32-bit integer"));
    }

    #[test]
    fn every_cut_of_a_message_is_refused_or_accepted_but_never_panics() {
        let whole = v1::RecordUsageRequest { usage_data: Some(usage()), ..Default::default() }.encode_to_vec();
        let id = Schema::get().message("upbridge.v1.RecordUsageRequest").unwrap();
        for end in 0..whole.len() {
            assert!(check(id, &whole[..end]).is_err(), "{end} bytes of {} were accepted", whole.len());
        }
    }

    #[test]
    fn a_message_in_two_parts_cannot_carry_a_field_past_its_rule() {
        let bad = v1::UsageData { usage_amount: Some(-5), ..Default::default() }.encode_to_vec();
        let good = usage().encode_to_vec();
        let mut bytes = Vec::new();
        for part in [bad, good] {
            bytes.extend([1 << 3 | 2, part.len() as u8]);
            bytes.extend(part);
        }
        let id = Schema::get().message("upbridge.v1.RecordUsageRequest").unwrap();
        assert!(matches!(check(id, &bytes), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn text_that_is_not_utf8_names_its_field() {
        let id = Schema::get().message("upbridge.v1.LoginRequest").unwrap();
        let bytes = [1 << 3 | 2, 2, 0xff, 0xfe, 2 << 3 | 2, 1, b'x'];
        let Err(Refusal::Violations(all)) = check(id, &bytes) else { panic!("it was accepted") };
        assert_eq!((all[0].field.as_str(), all[0].description.as_str()), ("email", "must be valid UTF-8"));
    }

    #[test]
    fn digits_are_ascii_digits() {
        let bad = v1::GetMonthlyUsageRequest { month_year: Some("٢٠٢٤-01".into()), ..Default::default() };
        assert_eq!(check_message(&bad)[0].0, "month_year");
    }

    #[test]
    fn email_addresses() {
        for good in ["a@b.co", "first.last+tag@sub.example.com", "x@localhost"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "a", "a@", "@b", "a b@c.d", "a@-b.c", "a@b..c", "a@b\n"] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }
}
