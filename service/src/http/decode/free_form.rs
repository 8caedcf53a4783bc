//! Free-form JSON: any value, into `google.protobuf.Struct`, `Value` and `ListValue`.
//!
//! These hold every number as a double. A number that a double would change is refused, because what a caller
//! stores as "anything about the batch" has to come back as it was.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::json::Json;
use super::super::wire;
use super::Decoder;

/// Messages inside messages that a decoder of protobuf accepts; prost, like others, stops at 100. An object
/// inside an object is three of them, a list inside a list two.
const MAX_DEPTH: u32 = 100;

impl Decoder {
    /// Writes the inside of a `Struct`.
    pub(super) fn free_object(&mut self, members: &[(Cow<'_, str>, Json<'_>)], depth: u32) {
        self.refuse_repeated(members);
        for (name, value) in members {
            let entry = wire::open(&mut self.out, 1);
            wire::bytes(&mut self.out, 1, name.as_bytes());
            let start = wire::open(&mut self.out, 2);
            self.at(name, |decoder| decoder.free_value(value, depth + 2));
            wire::close(&mut self.out, start);
            wire::close(&mut self.out, entry);
        }
    }

    /// Writes the inside of a `ListValue`.
    pub(super) fn free_list(&mut self, items: &[Json<'_>], depth: u32) {
        for (index, value) in items.iter().enumerate() {
            let start = wire::open(&mut self.out, 1);
            self.at_index(index, |decoder| decoder.free_value(value, depth + 1));
            wire::close(&mut self.out, start);
        }
    }

    /// Writes the inside of a `Value`, which itself is `depth` messages deep.
    pub(super) fn free_value(&mut self, value: &Json<'_>, depth: u32) {
        let nested = matches!(value, Json::Object(_) | Json::List(_));
        if depth + u32::from(nested) > MAX_DEPTH {
            return self.fail("is nested too deeply");
        }
        match value {
            Json::Null => wire::number(&mut self.out, 1, 0),
            Json::Number(text) => match exact(text) {
                Some(number) => wire::double(&mut self.out, 2, number),
                None => self.fail("must be sent as a string: no JSON number holds it exactly"),
            },
            Json::Text(text) => wire::bytes(&mut self.out, 3, text.as_bytes()),
            Json::Bool(value) => wire::number(&mut self.out, 4, u64::from(*value)),
            Json::Object(members) => {
                let start = wire::open(&mut self.out, 5);
                self.free_object(members, depth + 1);
                wire::close(&mut self.out, start);
            }
            Json::List(items) => {
                let start = wire::open(&mut self.out, 6);
                self.free_list(items, depth + 1);
                wire::close(&mut self.out, start);
            }
        }
    }

    /// Two members of one name cannot both be kept.
    pub(super) fn refuse_repeated(&mut self, members: &[(Cow<'_, str>, Json<'_>)]) {
        let mut seen = HashSet::with_capacity(members.len());
        for (name, _) in members {
            if !seen.insert(&**name) {
                self.at(name, |decoder| decoder.fail("is given twice"));
            }
        }
    }
}

/// The double that is the number in `text`, when it says the same number: no integer beyond 2^53, and no more
/// digits than the double prints.
fn exact(text: &str) -> Option<f64> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return text.parse().ok().filter(|whole: &i64| whole.unsigned_abs() <= 1 << 53).map(|whole| whole as f64);
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    (significant(text) == significant(&format!("{number:e}"))).then_some(number)
}

/// The digits of a number without sign, point, exponent and the zeros around them, and the power of ten of the first.
fn significant(text: &str) -> (String, i64) {
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let power =
        exponent.parse::<i64>().unwrap_or(i64::MAX / 2) + whole.len() as i64 - (all.len() - digits.len()) as i64;
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { (String::new(), 0) } else { (digits.to_owned(), power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_stay_what_they_are_pass() {
        for text in [
            "0",
            "-0",
            "5",
            "5.0",
            "-1.5",
            "0.1",
            "1e21",
            "1.7976931348623157e308",
            "9007199254740992",
            "0.000",
            "1E-7",
            "120.50",
        ] {
            assert!(exact(text).is_some(), "{text}");
        }
        for text in [
            "9007199254740993",
            "-9007199254740993",
            "18014398509481984",
            "12345678901234567890",
            "9007199254740993.0",
            "0.12345678901234567890",
            "1e999",
            "1e-999",
            "3.141592653589793238",
        ] {
            assert!(exact(text).is_none(), "{text}");
        }
    }
}
