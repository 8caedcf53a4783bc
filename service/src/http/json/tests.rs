//! Which texts are JSON, what is kept of them, and where an error is.

use super::*;

#[test]
fn the_same_texts_are_json_as_for_a_general_parser() {
    let texts = [
        "{}",
        "[]",
        " { \"a\" : [ 1 , 2.5e-3 , -0 , true , null ] } ",
        "\"\\ud83d\\ude00\\n\\u00e9\"",
        "0",
        "-1",
        "1E5",
        "\"é😀\"",
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "-01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "tru",
        "nul",
        "truee",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"a",
        "\"\\",
        "[1 2]",
        "{} {}",
        "\u{feff}{}",
        "00",
        "-00",
        "10",
        "100",
        "[[[[[]]]]]",
        "NaN",
        "'a'",
        "{\"a\" 1}",
        "\"\\u00\"",
        "\"\\u",
    ];
    for text in texts {
        let general = serde_json::from_str::<serde_json::Value>(text);
        assert_eq!(parse(text).is_ok(), general.is_ok(), "{text:?}: {:?} against {general:?}", parse(text));
    }
    let Ok(Json::Text(text)) = parse("\"\\ud83d\\ude00\\n\\u00e9\\/\\\"x\"") else { panic!() };
    assert_eq!(text, "😀\né/\"x");
}

#[test]
fn every_cut_of_a_text_is_malformed_and_never_panics() {
    let whole = "{\"a\":[1.5e+3,\"\\ud83d\\ude00\",{\"b\":null}],\"é\":true}";
    assert!(parse(whole).is_ok());
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        assert!(parse(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
}

#[test]
fn an_error_says_where() {
    let Err(error) = parse("{\n  \"a\": 1,\n  b\n}") else { panic!() };
    assert_eq!((error.line, error.column), (3, 3));
    assert_eq!(parse("{\"a\":").unwrap_err().what, "it ends too early");
}

#[test]
fn depth_is_bounded() {
    assert!(parse(&("[".repeat(100) + &"]".repeat(100))).is_ok());
    assert_eq!(parse(&"[".repeat(100_000)).unwrap_err().what, "it is nested too deeply");
}

#[test]
fn digits_and_repeated_names_are_kept() {
    let Ok(Json::Object(members)) = parse("{\"a\":18446744073709551617,\"a\":1.10}") else { panic!() };
    assert_eq!(members[0].1, Json::Number("18446744073709551617"));
    assert_eq!(members[1].1, Json::Number("1.10"));
}
