use super::{assert_kept, assert_refused};
use crate::json::{JsonErrorKind as Kind, MAX_DEPTH, MAX_NUMBER_DIGITS, json_string, validate};

#[test]
fn a_document_of_any_kind_with_white_space_around_it_is_kept() {
    for document in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12.50",
        "1E+2",
        "\"\"",
        "{}",
        "[]",
        " \t\r\n [ ] \n",
        "{ }",
        "[1 , 2]",
        "{\"a\" : 1 , \"a\" : [ ] }",
        "[[],{},[{}]]",
        "{\"a\":{\"b\":[null,{\"c\":[]}]},\"d\":\"e\"}",
    ] {
        assert_kept(document);
    }
}

#[test]
fn what_is_not_json_is_refused_with_what_was_expected_and_where() {
    for (document, kind, offset) in [
        ("", Kind::UnexpectedEnd, 0),
        ("  ", Kind::UnexpectedEnd, 2),
        ("x", Kind::ExpectedValue, 0),
        ("nul", Kind::UnexpectedEnd, 3),
        ("nulx", Kind::ExpectedValue, 0),
        ("True", Kind::ExpectedValue, 0),
        ("NaN", Kind::ExpectedValue, 0),
        ("'a'", Kind::ExpectedValue, 0),
        ("1 2", Kind::TrailingData, 2),
        ("01", Kind::TrailingData, 1),
        ("{}}", Kind::TrailingData, 2),
        ("nullx", Kind::TrailingData, 4),
        ("+1", Kind::ExpectedValue, 0),
        (".5", Kind::ExpectedValue, 0),
        ("-", Kind::UnexpectedEnd, 1),
        ("-a", Kind::BadNumber, 1),
        ("1.", Kind::UnexpectedEnd, 2),
        ("[1.]", Kind::BadNumber, 3),
        ("[1e]", Kind::BadNumber, 3),
        ("[1e+]", Kind::BadNumber, 4),
        ("0x10", Kind::TrailingData, 1),
        ("[1,]", Kind::ExpectedValue, 3),
        ("[,1]", Kind::ExpectedValue, 1),
        ("[1 2]", Kind::ExpectedCommaOrBracket, 3),
        ("[1}", Kind::ExpectedCommaOrBracket, 2),
        ("[{]", Kind::ExpectedKey, 2),
        ("[", Kind::UnexpectedEnd, 1),
        ("{\"a\":1,}", Kind::ExpectedKey, 7),
        ("{a:1}", Kind::ExpectedKey, 1),
        ("{\"a\" 1}", Kind::ExpectedColon, 5),
        ("{\"a\"}", Kind::ExpectedColon, 4),
        ("{\"a\":}", Kind::ExpectedValue, 5),
        ("{\"a\":1]", Kind::ExpectedCommaOrBrace, 6),
        ("{\"a\":1 \"b\":2}", Kind::ExpectedCommaOrBrace, 7),
        ("\"abc", Kind::UnexpectedEnd, 4),
        ("\"a\\", Kind::UnexpectedEnd, 3),
        ("\"a\\x\"", Kind::BadEscape, 2),
        ("\"a\\u12", Kind::UnexpectedEnd, 6),
        ("\"\\u12g4\"", Kind::BadEscape, 1),
        ("\"\\u+123\"", Kind::BadEscape, 1),
        ("// a\n1", Kind::ExpectedValue, 0),
        ("\u{a0}1", Kind::ExpectedValue, 0),
        ("\u{feff}1", Kind::ByteOrderMark, 0),
        ("\0", Kind::ExpectedValue, 0),
        ("1\0", Kind::TrailingData, 1),
    ] {
        assert_refused(document, kind, offset);
        assert!(!kind.is_not_storable());
    }
}

#[test]
fn every_control_character_in_a_string_is_refused_at_every_alignment() {
    for byte in 0..=0xff_u8 {
        for before in 0..20 {
            let mut document = vec![b'a'; before + 1];
            document[0] = b'"';
            document.push(byte);
            document.extend_from_slice(b"bcdefghij\"");
            match byte {
                0..0x20 => assert_refused(&document, Kind::ControlCharacter, before + 1),
                b'"' => assert_refused(&document, Kind::TrailingData, before + 2),
                b'\\' => assert_kept(&document),
                0x80.. => assert_refused(&document, Kind::InvalidUtf8, before + 1),
                _ => assert_kept(&document),
            }
        }
    }
}

#[test]
fn every_prefix_of_a_document_is_refused() {
    let document = r#" {"a":[1.5e3,true,null,{"\u00e9\ud83d\ude00":"é😀\n"}],"b":{}}"#.as_bytes();
    assert_kept(document);
    for length in 0..document.len() {
        assert!(validate(&document[..length]).is_err(), "{length}");
    }
}

#[test]
fn the_messages_name_the_limits_that_hold() {
    assert!(Kind::TooManyDigits.to_string().contains(&format!(" {MAX_NUMBER_DIGITS} ")));
    assert!(Kind::TooDeep.to_string().contains(&format!(" {MAX_DEPTH} ")));
    assert_eq!(
        validate(br#"["\u0000"]"#).map_err(|error| error.to_string()),
        Err(r"\u0000 cannot be stored at byte 2".to_owned())
    );
    assert_eq!(validate(b"[").map_err(|error| error.kind.is_not_storable()), Err(false));
    assert_eq!(validate(br#""\ud800""#).map_err(|error| error.kind.is_not_storable()), Err(true));
}

#[test]
fn a_string_that_is_written_reads_back_as_it_was() {
    for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t", "\0\u{1}\u{1f} \u{7f}", "é😀\u{2028}", "0123456\"89abcde\n"] {
        let mut out = b"[".to_vec();
        json_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out[1..]).unwrap(), text);
    }
    let mut out = Vec::new();
    json_string(&mut out, "a\"\u{1}\n");
    assert_eq!(out, br#""a\"\u0001\n""#);
}
