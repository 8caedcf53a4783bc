//! Single values: whether a JSON value is one of the field's type, and its bytes when it is.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::DateTime;
use upbridge_proto::schema::{Kind, Schema};

use super::super::json::Json;
use super::super::wire;

/// Integers up to this size are the same number as an integer and as a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

const TIME: &str = "must be a time such as 2024-01-15T10:30:00Z";

/// Writes `value` as field `number` of a type that is no message, or says what it must be.
pub fn write(out: &mut Vec<u8>, number: u32, kind: Kind, value: &Json<'_>) -> Result<(), String> {
    if *value == Json::Null {
        return Err("must not be null".to_owned());
    }
    match kind {
        Kind::Bool => {
            let Json::Bool(value) = value else { return Err("must be true or false".to_owned()) };
            wire::number(out, number, u64::from(*value));
        }
        Kind::Int32 => {
            let value = integer(value, i32::MIN.into(), i32::MAX.into(), "must be a 32-bit integer")?;
            wire::number(out, number, value as i64 as u64);
        }
        Kind::Int64 => {
            let value = integer(value, i64::MIN.into(), i64::MAX.into(), "must be a 64-bit integer")?;
            wire::number(out, number, value as i64 as u64);
        }
        Kind::Uint32 => {
            let value = integer(value, 0, u32::MAX.into(), "must be an unsigned 32-bit integer")?;
            wire::number(out, number, value as u64);
        }
        Kind::Uint64 => {
            let value = integer(value, 0, u64::MAX.into(), "must be an unsigned 64-bit integer")?;
            wire::number(out, number, value as u64);
        }
        Kind::Double => wire::double(out, number, double(value)?),
        Kind::String => wire::bytes(out, number, text(value, "must be a string")?.as_bytes()),
        Kind::Bytes => {
            let decoded = base64(text(value, "must be a string")?).ok_or("must be base64")?;
            wire::bytes(out, number, &decoded);
        }
        Kind::Enum(id) => {
            let words = &Schema::get().enums[id];
            let known = match value {
                Json::Text(word) => words.number(word),
                Json::Number(digits) => digits.parse().ok().filter(|number| words.word(*number).is_some()),
                _ => None,
            };
            let known =
                known.ok_or_else(|| format!("must be one of {}", words.words().collect::<Vec<_>>().join(", ")))?;
            wire::number(out, number, i64::from(known) as u64);
        }
        Kind::Message(_) => unreachable!("messages are written by the decoder"),
    }
    Ok(())
}

/// Seconds and nanoseconds of an RFC 3339 time with any offset.
pub fn time(value: &Json<'_>) -> Result<(i64, u32), &'static str> {
    let text = text(value, TIME)?;
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| TIME)?;
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    // The parser would drop what is finer than a nanosecond.
    if fraction.bytes().take_while(u8::is_ascii_digit).count() > 9 {
        return Err("must have at most 9 digits after the second");
    }
    let nanos = time.timestamp_subsec_nanos();
    // A leap second has no place in protobuf's time line.
    if nanos < 1_000_000_000 { Ok((time.timestamp(), nanos)) } else { Err(TIME) }
}

fn text<'a>(value: &'a Json<'_>, otherwise: &'static str) -> Result<&'a str, &'static str> {
    if let Json::Text(text) = value { Ok(text) } else { Err(otherwise) }
}

fn integer(value: &Json<'_>, least: i128, most: i128, range: &'static str) -> Result<i128, &'static str> {
    let number = match value {
        Json::Number(text) => integral(text, range)?,
        // Callers whose numbers are doubles send large integers as strings.
        Json::Text(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("must be an integer");
            }
            text.parse().map_err(|_| range)?
        }
        _ => return Err("must be an integer"),
    };
    if (least..=most).contains(&number) { Ok(number) } else { Err(range) }
}

/// An integer in any spelling JSON has for it: `5`, `5.0`, `5e0`.
fn integral(text: &str, range: &'static str) -> Result<i128, &'static str> {
    let plain = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0'));
    let plain = plain.map_or(text, |(whole, _)| whole);
    if plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return plain.parse().map_err(|_| range);
    }
    let value: f64 = text.parse().map_err(|_| "must be an integer")?;
    match value {
        value if value.fract() != 0.0 => Err("must be an integer"),
        value if value.abs() >= EXACT => Err(range),
        value => Ok(value as i128),
    }
}

fn double(value: &Json<'_>) -> Result<f64, &'static str> {
    const WRONG: &str = "must be a number";
    let text = match value {
        Json::Number(text) => text,
        // Rust reads words such as `inf` as well, which are no numbers here.
        Json::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => &**text,
        _ => return Err(WRONG),
    };
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(WRONG)
}

/// Both alphabets are in use, with and without padding; all four mean the same bytes.
fn base64(text: &str) -> Option<Vec<u8>> {
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Json<'_> {
        Json::Number(text)
    }

    #[test]
    fn integers_come_in_several_spellings() {
        let int64 = |value: &Json<'_>| integer(value, i64::MIN.into(), i64::MAX.into(), "range");
        for text in ["5", "5.0", "5e0", "0.5e1", "5.000"] {
            assert_eq!(int64(&number(text)), Ok(5), "{text}");
        }
        assert_eq!(int64(&number("9007199254740993")), Ok(9007199254740993));
        assert_eq!(int64(&number("9007199254740993.0")), Ok(9007199254740993));
        assert_eq!(int64(&Json::Text("-9223372036854775808".into())), Ok(i64::MIN.into()));
        assert_eq!(int64(&number("9223372036854775808")), Err("range"));
        assert_eq!(int64(&number("1e300")), Err("range"));
        assert_eq!(int64(&Json::Text("9".repeat(100).into())), Err("range"));
        for wrong in
            [number("5.5"), Json::Text("".into()), Json::Text("+5".into()), Json::Text("5.0".into()), Json::Bool(true)]
        {
            assert_eq!(int64(&wrong), Err("must be an integer"), "{wrong:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_offsets() {
        let read = |text: &'static str| time(&Json::Text(text.into()));
        assert_eq!(read("2024-01-15T10:30:00.000Z"), Ok((1705314600, 0)));
        assert_eq!(read("2024-01-15T17:30:00+07:00"), Ok((1705314600, 0)));
        assert_eq!(read("1969-12-31T23:59:59.5Z"), Ok((-1, 500_000_000)));
        for wrong in ["2024-01-15", "2024-01-15T10:30:00", "now", "", "2024-13-15T10:30:00Z", "2016-12-31T23:59:60Z"] {
            assert_eq!(read(wrong), Err(TIME), "{wrong}");
        }
    }

    #[test]
    fn a_time_finer_than_a_nanosecond_is_refused() {
        let read = |text: &'static str| time(&Json::Text(text.into()));
        assert_eq!(read("2024-01-15T10:30:00.123456789Z"), Ok((1705314600, 123_456_789)));
        assert!(read("2024-01-15T10:30:00.1234567891Z").is_err());
    }

    #[test]
    fn bytes_come_in_both_alphabets() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(base64(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(base64("a"), None);
        assert_eq!(base64("+_8="), None);
    }

    #[test]
    fn a_double_is_a_number_and_nothing_else() {
        assert_eq!(double(&number("1.5e3")), Ok(1500.0));
        assert_eq!(double(&Json::Text("2.5".into())), Ok(2.5));
        for wrong in
            [number("1e999"), Json::Text("inf".into()), Json::Text("NaN".into()), Json::Text("".into()), Json::Null]
        {
            assert!(double(&wrong).is_err(), "{wrong:?}");
        }
    }
}
