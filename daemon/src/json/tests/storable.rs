use super::{assert_kept, assert_refused};
use crate::json::{JsonErrorKind as Kind, MAX_DEPTH, MAX_EXPONENT};

#[test]
fn a_nul_escape_is_refused_in_strings_and_in_keys_but_not_what_only_looks_like_one() {
    assert_refused(r#"["a\u0000"]"#, Kind::NulCharacter, 3);
    assert_refused(r#"{"\u0000":1}"#, Kind::NulCharacter, 2);
    assert_refused(r#"{"a":{"b\u0000":1}}"#, Kind::NulCharacter, 8);
    assert_kept(r#""\\u0000""#);
    assert_refused(r#""\\\u0000""#, Kind::NulCharacter, 3);
}

#[test]
fn only_whole_surrogate_pairs_are_kept() {
    for kept in [r#""\ud83d\ude00""#, r#""\uD800\uDC00""#, r#""\udbff\udfff""#, r#""\ud7ff\ue000\uffff""#] {
        assert_kept(kept);
    }
    for (refused, offset) in [
        (r#""\ud83d""#, 1),
        (r#""\ude00""#, 1),
        (r#""\ude00\ud83d""#, 1),
        (r#""\ud83d\ud83d\ude00""#, 1),
        (r#""\ud83d\ude00\ud83d""#, 13),
        (r#""\ud83dx""#, 1),
        (r#""\ud83d\n""#, 1),
        (r#""\ud83d\u0041""#, 1),
        (r#"{"\udfff":1}"#, 2),
    ] {
        assert_refused(refused, Kind::LoneSurrogate, offset);
    }
    assert_refused(r#""\ud83d\ude0""#, Kind::BadEscape, 1);
    assert_refused(r#""\ud83d\u"#, Kind::UnexpectedEnd, 9);
}

#[test]
fn bytes_that_are_not_utf8_are_refused_where_they_stand() {
    let flaws: &[&[u8]] = &[
        b"\x80",             // a continuation without a start
        b"\xc0\x80",         // an overlong NUL
        b"\xc1\xbf",         // an overlong letter
        b"\xe0\x9f\xbf",     // an overlong sequence of three
        b"\xed\xa0\x80",     // a surrogate, raw
        b"\xf0\x8f\xbf\xbf", // an overlong sequence of four
        b"\xf4\x90\x80\x80", // beyond U+10FFFF
        b"\xff",
        b"\xe2\x82", // cut short
    ];
    for flaw in flaws {
        for before in ["\"", "\"é", "{\"ключ\":\"0123456789abcdef0123456789abcdef"] {
            let document = [before.as_bytes(), flaw, b"\"}"].concat();
            assert_refused(document, Kind::InvalidUtf8, before.len());
        }
    }
    assert_refused(b"[1]\xff", Kind::InvalidUtf8, 3);
    assert_refused(b"\xff[1]", Kind::InvalidUtf8, 0);
    assert_refused(b"\"abc\xc3", Kind::InvalidUtf8, 4);
    // What is wrong earlier is told first.
    assert_refused(b"[1 x, \"\xff\"]", Kind::ExpectedCommaOrBracket, 3);
    assert_kept("\"\u{7f}\u{80}\u{d7ff}\u{e000}\u{fffe}\u{10ffff}\"");
}

#[test]
fn nesting_is_kept_up_to_the_limit_and_not_beyond() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_kept(nested(MAX_DEPTH));
    assert_refused(nested(MAX_DEPTH + 1), Kind::TooDeep, MAX_DEPTH);
    assert_refused(vec![b'['; 1_000_000], Kind::TooDeep, MAX_DEPTH);

    let objects = |depth: usize| format!("{}1{}", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2));
    assert_kept(objects(MAX_DEPTH));
    assert_refused(objects(MAX_DEPTH + 2), Kind::TooDeep, MAX_DEPTH / 2 * 6);
    // Many side by side are no depth.
    assert_kept(format!("[{}[]]", "[{\"a\":[]}],".repeat(2_000)));
}

#[test]
fn a_number_may_need_a_thousand_digits_and_not_one_more() {
    let (nines, zeros) = ("9".repeat(1_000), "0".repeat(2_000));
    for kept in [
        "-0".to_owned(),
        "0e5".to_owned(),
        "0E5000".to_owned(),
        "-0.0e5000".to_owned(),
        format!("0e{MAX_EXPONENT}"),
        "0e-999".to_owned(),
        "1e999".to_owned(),
        "-1E+999".to_owned(),
        "1e0000000000000000000000000000999".to_owned(),
        "1e-999".to_owned(),
        "123e997".to_owned(),
        "1.5e999".to_owned(),
        "0.001e1002".to_owned(),
        format!("0.{zeros}1e2001"),
        nines.clone(),
        format!("-{nines}"),
        format!("{nines}e-999"),
        format!("{}.5", &nines[1..]),
        format!("0.{}", &nines[1..]),
        format!("1{}e-999", &zeros[..999]),
    ] {
        assert_kept(kept);
    }
    for refused in [
        "1e1000".to_owned(),
        "1e-1000".to_owned(),
        "0e-1000".to_owned(),
        "0.0e-999".to_owned(),
        "12e999".to_owned(),
        "0.001e1003".to_owned(),
        "1e131071".to_owned(),
        "1e99999999999999999999999999".to_owned(),
        "0e99999999999999999999999999".to_owned(),
        format!("0e{}", MAX_EXPONENT + 1),
        format!("{nines}9"),
        format!("{nines}.0"),
        format!("0.{nines}"),
        format!("{nines}e1"),
        format!("{nines}e-1000"),
        format!("0.{zeros}"),
    ] {
        assert_refused(format!("[{refused}]"), Kind::TooManyDigits, 1);
        assert_refused(&refused, Kind::TooManyDigits, 0);
    }
    // A prefix of a number that is too long is not reported before its end is known.
    assert_refused(format!("{nines}9x"), Kind::TooManyDigits, 0);
}
