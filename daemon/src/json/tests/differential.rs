//! Against serde_json, which accepts what RFC 8259 allows.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{JsonErrorKind, MAX_NUMBER_DIGITS, json_string, validate};

/// JSON text of all kinds, valid.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number(),
        string(),
        Just("[]".to_owned()),
        Just("{ }".to_owned()),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        let element = (white_space(), inner, white_space()).prop_map(|(a, value, b)| format!("{a}{value}{b}")).boxed();
        prop_oneof![
            prop::collection::vec(element.clone(), 1..6).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec((white_space(), string(), element), 1..6).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(space, key, value)| format!("{space}{key}{space}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn white_space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{0,3}"]
}

fn number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?"
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z0-9 ,:{}\\[\\]]{0,20}",
        any::<char>().prop_map(|c| {
            let mut out = Vec::new();
            json_string(&mut out, c.encode_utf8(&mut [0; 4]));
            String::from_utf8_lossy(&out[1..out.len() - 1]).into_owned()
        }),
        any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        any::<char>().prop_map(|c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect()),
        "\\\\[\"\\\\/bfnrt]",
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// One byte put in, taken out or replaced, mostly by one that means something in JSON.
fn mutation() -> impl Strategy<Value = (Index, u8, u8)> {
    let byte = prop_oneof![
        3 => prop::sample::select(b"{}[]\",:\\u0dD8eE+-.tfn \n/".to_vec()),
        1 => any::<u8>(),
    ];
    (any::<Index>(), 0..3_u8, byte)
}

fn mutate(document: &mut Vec<u8>, (index, how, byte): (Index, u8, u8)) {
    let at = index.index(document.len() + 1);
    match how {
        0 => document.insert(at, byte),
        1 if at < document.len() => drop(document.remove(at)),
        _ if at < document.len() => document[at] = byte,
        _ => document.push(byte),
    }
}

/// Whether JSON text has a `\u0000`: looked for in the text, since a tree keeps only the last of two equal keys.
fn spells_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        rest = &rest[at..];
        if rest.starts_with(b"\\u0000") {
            return true;
        }
        rest = &rest[2..];
    }
    false
}

/// What must hold between this edge and serde_json for any bytes.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let is_json = serde_json::from_slice::<&RawValue>(bytes).is_ok();
    match validate(bytes) {
        Ok(()) => {
            prop_assert!(is_json);
            // What is kept has no lone surrogate and no NUL. A number may be out of a float's range.
            prop_assert!(!spells_nul(bytes));
            if let Err(error) = serde_json::from_slice::<Value>(bytes) {
                prop_assert!(error.to_string().contains("number out of range"), "{error}");
            }
        }
        Err(error) if error.kind.is_not_storable() => {
            prop_assert!(error.offset <= bytes.len());
            // serde_json makes no value of what is not text; what it makes one of has a NUL or too long a number.
            let is_plain = serde_json::from_slice::<Value>(bytes).is_ok() && !spells_nul(bytes);
            prop_assert!(!is_plain || error.kind == JsonErrorKind::TooManyDigits, "{error}");
        }
        Err(error) => {
            prop_assert!(error.offset <= bytes.len());
            prop_assert!(!is_json, "{error}");
        }
    }
    Ok(())
}

/// The number without an exponent, made the slow way.
fn write_out(integer: &str, fraction: &str, exponent: i64) -> String {
    let mut digits = format!("{integer}{fraction}");
    let mut point = integer.len() as i64 + exponent;
    if point < 1 {
        digits.insert_str(0, &"0".repeat((1 - point) as usize));
        point = 1;
    }
    if point as usize > digits.len() {
        digits.push_str(&"0".repeat(point as usize - digits.len()));
    }
    let (before, after) = digits.split_at(point as usize);
    let before = before.trim_start_matches('0');
    let before = if before.is_empty() { "0" } else { before };
    if after.is_empty() { before.to_owned() } else { format!("{before}.{after}") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_judged_as_serde_json_does(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        agree(&bytes)?;
    }

    #[test]
    fn bytes_that_mean_something_in_json_are_judged_as_serde_json_does(bytes in "[\\[\\]{}\",:\\\\u0d8e+.tfn1 -]{0,12}") {
        agree(bytes.as_bytes())?;
    }

    #[test]
    fn documents_and_their_mutations_are_judged_as_serde_json_does(
        text in document(),
        mutations in prop::collection::vec(mutation(), 0..4),
    ) {
        let mut bytes = text.into_bytes();
        agree(&bytes)?;
        for change in mutations {
            mutate(&mut bytes, change);
            agree(&bytes)?;
        }
    }

    #[test]
    fn a_number_is_kept_exactly_when_its_digits_written_out_are_few_enough(
        integer in prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,3}", "[1-9][0-9]{900,1100}"],
        fraction in prop_oneof![Just(String::new()), "0{0,4}[0-9]{1,4}", "0{0,900}[0-9]{1,300}"],
        exponent in prop_oneof![-30..30_i64, 980..1020_i64, -1020..-980_i64, -3000..3000_i64],
    ) {
        let point = if fraction.is_empty() { "" } else { "." };
        let number = format!("{integer}{point}{fraction}e{exponent}");
        let digits = write_out(&integer, &fraction, exponent).bytes().filter(u8::is_ascii_digit).count();
        prop_assert_eq!(validate(number.as_bytes()).is_ok(), digits as u64 <= MAX_NUMBER_DIGITS, "{}", digits);
        if exponent == 0 {
            let plain = format!("-{integer}{point}{fraction}");
            prop_assert_eq!(validate(plain.as_bytes()).is_ok(), digits as u64 <= MAX_NUMBER_DIGITS);
        }
    }

    #[test]
    fn any_string_that_is_written_is_json_and_reads_back(text in any::<String>()) {
        let mut out = Vec::new();
        json_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
        prop_assert_eq!(validate(&out).is_ok(), !text.contains('\0'));
    }
}
