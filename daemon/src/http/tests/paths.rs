use std::borrow::Cow;

use proptest::prelude::*;

use super::{head, post};
use crate::http::{
    ErrorCode,
    path::{decode, query_pairs, segments},
};

fn decoded(path: &str) -> Vec<String> {
    segments(path).map(|segment| segment.unwrap().into_owned()).collect()
}

#[test]
fn a_path_is_cut_at_its_slashes_and_then_decoded() {
    assert_eq!(decoded("/"), [""]);
    assert_eq!(decoded("/push/q"), ["push", "q"]);
    assert_eq!(decoded("/push/a%2Fb/"), ["push", "a/b", ""]);
    assert_eq!(decoded("//a+b"), ["", "a+b"]);
    assert!(matches!(decode("plain"), Ok(Cow::Borrowed("plain"))));
}

#[test]
fn case_74_odd_queue_names_in_a_path_are_decoded_as_they_were_meant() {
    let long = "é".repeat(300);
    for (segment, name) in [
        ("%22a%22%27b%27", "\"a\"'b'"),
        ("a%00b", "a\0b"),
        (&"%c3%A9".repeat(300), long.as_str()),
        ("%F0%9F%98%80", "😀"),
        ("😀", "😀"),
        ("..%2f%2E%2e%2Fetc", "../../etc"),
        ("..", ".."),
        ("%2e%2e", ".."),
        ("%25%32%35", "%25"),
        ("a%0d%0aX:%20y", "a\r\nX: y"),
        ("%2B+", "++"),
    ] {
        assert_eq!(decoded(&format!("/push/{segment}/p")), ["push", name, "p"]);
    }
    // Dots are not walked: the segments stay what the client wrote.
    assert_eq!(decoded("/push/../health"), ["push", "..", "health"]);
    // And such a name never passes for another route's head.
    let text = post("").replace("/push/q", "/push/..%2Fq%00");
    assert_eq!(head(&text).path, "/push/..%2Fq%00");
}

#[test]
fn a_percent_sign_that_encodes_nothing_is_refused_and_the_connection_kept() {
    for text in ["%", "%a", "a%4", "%zz", "%4g", "%%41", "%+1", "%c3", "%ff", "%ed%a0%80", "%c0%80"] {
        let refusal = decode(text).unwrap_err();
        assert_eq!((refusal.status, refusal.code, refusal.close), (400, ErrorCode::MalformedRequest, false), "{text}");
        assert!(segments(&format!("/push/{text}")).any(|segment| segment.is_err()));
        assert!(query_pairs(&format!("a=1&b={text}")).any(|pair| pair.is_err()));
        assert!(query_pairs(&format!("{text}=1")).any(|pair| pair.is_err()));
    }
    let refusal = decode(&"%😀".repeat(1_000)).unwrap_err();
    assert!(refusal.message.len() < 500);
}

#[test]
fn a_query_is_cut_into_decoded_pairs() {
    let pairs = |query: &str| {
        let pairs: Vec<_> = query_pairs(query).map(|pair| pair.unwrap()).collect();
        pairs.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect::<Vec<_>>()
    };
    let expected = [("bufferMs", "100"), ("wait", ""), ("a b", "c d+e&="), ("x", "=y"), ("", "z")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pairs("bufferMs=100&wait&&a+b=c%20d%2Be%26%3D&x==y&=z"), expected);
    assert_eq!(pairs(""), []);
    let (name, value) = query_pairs("a=b").next().unwrap().unwrap();
    assert!(matches!((name, value), (Cow::Borrowed("a"), Cow::Borrowed("b"))));
}

proptest! {
    #[test]
    fn any_name_that_is_percent_encoded_comes_back(name in any::<String>()) {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert_eq!(decode(&encoded).unwrap(), name.as_str());
        let path = format!("/{encoded}");
        prop_assert_eq!(decoded(&path), [name.clone()]);
        let pair = query_pairs(&format!("k{encoded}={encoded}")).next().unwrap().unwrap().1.into_owned();
        prop_assert_eq!(pair, name);
    }

    #[test]
    fn no_text_makes_decoding_panic(text in "[%a-f0-9+&=/é]{0,20}") {
        for segment in segments(&text) {
            prop_assert!(segment.is_ok_and(|decoded| decoded.len() <= text.len()) || text.contains('%'));
        }
        prop_assert!(query_pairs(&text).count() <= text.len());
    }
}
