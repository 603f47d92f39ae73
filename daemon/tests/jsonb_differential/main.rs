//! The edge accepts a document exactly if `::jsonb` does, except for limits that are stricter on purpose. A real
//! PostgreSQL judges more than a hundred thousand documents.
//!
//! A failed run prints its seed and is repeated with `FOREBAY_TEST_SEED=N`.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod documents;

use common::{random::Random, test_seed};
use documents::Documents;
use forebay::json::{JsonErrorKind, MAX_DEPTH, MAX_NUMBER_DIGITS, validate};
use forebay_cluster::TestCluster;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Write,
    process::{Command, Stdio},
};

/// The number of documents.
const DOCUMENTS: usize = 120_000;

/// The number of parallel sessions that judge them.
const SESSIONS: usize = 2;

/// Judges a document: `kept`, or the SQLSTATE of the refusal. For a number, the result is the number of its digits in
/// the notation of `jsonb`.
const JUDGE: &str = r"
    SET client_min_messages = warning;
    CREATE FUNCTION pg_temp.judge(document bytea) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE kept jsonb;
    BEGIN
        kept := convert_from(document, 'UTF8')::jsonb;
        IF jsonb_typeof(kept) = 'number' THEN
            RETURN 'digits ' || length(translate(kept::text, '-.', ''));
        END IF;
        RETURN 'kept';
    EXCEPTION WHEN OTHERS THEN
        RETURN SQLSTATE;
    END $$;
    CREATE TEMP TABLE documents (number int, document bytea);
    COPY documents FROM STDIN;
";

/// PostgreSQL's verdict on a document.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    /// A number with this many digits.
    Number(u64),
    Refused(String),
}

/// The SQLSTATEs that refuse a document for its content: not JSON, `\u0000`, not UTF-8, a number out of range, too
/// deep.
const FOR_WHAT_IT_IS: [&str; 5] = ["22P02", "22P05", "22021", "22003", "54001"];

/// Lets PostgreSQL judge documents in one session.
fn judge(cluster: &TestCluster, documents: &[Vec<u8>]) -> Vec<Verdict> {
    let psql = cluster.binaries().path("psql");
    let mut child = Command::new(psql)
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"])
        .arg(cluster.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut script = JUDGE.as_bytes().to_vec();
    for (number, document) in documents.iter().enumerate() {
        write!(script, "{number}\t\\\\x").unwrap();
        for byte in document {
            write!(script, "{byte:02x}").unwrap();
        }
        script.push(b'\n');
    }
    script.extend_from_slice(b"\\.\nSELECT pg_temp.judge(document) FROM documents ORDER BY number;\n");
    // psql reads its whole input before it prints anything.
    child.stdin.take().unwrap().write_all(&script).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<Verdict> = text.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), documents.len());
    verdicts
}

fn verdict(line: &str) -> Verdict {
    match line.strip_prefix("digits ") {
        Some(digits) => Verdict::Number(digits.parse().unwrap()),
        None if line == "kept" => Verdict::Kept,
        None => Verdict::Refused(line.to_owned()),
    }
}

/// The nesting depth of a valid document.
fn depth(document: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = document.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// Why the two verdicts differ beyond what is allowed, if they do. If a number is too long, `number` is PostgreSQL's
/// verdict on the number alone: in the document, a later value of the same key may replace it.
fn disagreement(document: &[u8], verdict: &Verdict, number: Option<&Verdict>) -> Option<String> {
    match (validate(document), verdict) {
        (_, Verdict::Refused(sqlstate)) if !FOR_WHAT_IT_IS.contains(&sqlstate.as_str()) => {
            Some(format!("refused with {sqlstate}"))
        }
        (Ok(()), Verdict::Kept) | (Err(_), Verdict::Refused(_)) => None,
        (Ok(()), Verdict::Number(digits)) => {
            (*digits > MAX_NUMBER_DIGITS).then(|| format!("kept here with {digits} digits"))
        }
        (Ok(()), Verdict::Refused(sqlstate)) => Some(format!("kept here, refused there with {sqlstate}")),
        (Err(error), kept) => {
            let is_stricter_on_purpose = match error.kind {
                JsonErrorKind::TooManyDigits => {
                    matches!(number, Some(Verdict::Number(digits)) if *digits > MAX_NUMBER_DIGITS)
                }
                JsonErrorKind::TooDeep => depth(document) > MAX_DEPTH,
                _ => false,
            };
            (!is_stricter_on_purpose).then(|| format!("refused here ({error}), there {kept:?}"))
        }
    }
}

/// The number whose length causes the refusal.
fn too_long_number(document: &[u8]) -> Option<Vec<u8>> {
    let error = validate(document).err().filter(|error| error.kind == JsonErrorKind::TooManyDigits)?;
    let is_of_it = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    Some(document[error.offset..].iter().take_while(is_of_it).copied().collect())
}

fn judge_all(cluster: &TestCluster, documents: &[Vec<u8>]) -> Vec<Verdict> {
    let parts = documents.chunks(documents.len().div_ceil(SESSIONS).max(1));
    std::thread::scope(|scope| {
        let judging: Vec<_> = parts.map(|part| scope.spawn(move || judge(cluster, part))).collect();
        judging.into_iter().flat_map(|judged| judged.join().unwrap()).collect()
    })
}

fn check(documents: &[Vec<u8>]) {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let verdicts = judge_all(&cluster, documents);
    let (places, numbers): (Vec<usize>, Vec<Vec<u8>>) = documents
        .iter()
        .enumerate()
        .filter_map(|(place, document)| too_long_number(document).map(|number| (place, number)))
        .unzip();
    let numbers: HashMap<usize, Verdict> = places.into_iter().zip(judge_all(&cluster, &numbers)).collect();
    let mut disagreements = Vec::new();
    for (place, (document, verdict)) in documents.iter().zip(&verdicts).enumerate() {
        if let Some(why) = disagreement(document, verdict, numbers.get(&place)) {
            let shown = String::from_utf8_lossy(&document[..document.len().min(300)]);
            disagreements.push(format!("{why}: {shown:?}"));
        }
    }
    let shown = disagreements.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(disagreements.is_empty(), "{} documents are judged differently, as\n{shown}", disagreements.len());
}

#[test]
fn a_hundred_thousand_documents_are_kept_here_exactly_if_jsonb_keeps_them_save_for_the_stricter_limits() {
    let mut documents = Documents::new(Random::new(test_seed()));
    let documents: Vec<Vec<u8>> = (0..DOCUMENTS).map(|_| documents.next()).collect();
    // Every kind of fault occurs, and a good part of the documents is valid.
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut kinds = HashSet::new();
    for document in &documents {
        let kind = validate(document).err().map(|error| error.kind);
        kinds.insert(kind);
        *count.entry(format!("{kind:?}")).or_default() += 1;
    }
    println!("{count:?}");
    let kept = count["None"];
    assert!(kept > DOCUMENTS / 5 && kept < DOCUMENTS * 4 / 5, "{kept} of {DOCUMENTS} are kept");
    assert_eq!(kinds.len(), 17, "16 kinds of errors, and none: {kinds:?}");
    check(&documents);
}

#[test]
fn every_document_of_four_bytes_that_mean_something_is_kept_here_exactly_if_jsonb_keeps_it() {
    const BYTES: &[u8] = b"{}[]\",:01-.e\\ntu \xc3\xa9\0";
    let mut documents = vec![Vec::new()];
    let mut last = documents.clone();
    for _ in 0..4 {
        let longer = |document: &Vec<u8>| {
            let document = document.clone();
            BYTES.iter().map(move |byte| [&document[..], &[*byte]].concat())
        };
        last = last.iter().flat_map(longer).collect();
        // Every other one of the longest documents, by a rule that does not depend on their order.
        if last.len() > 100_000 {
            last.retain(|document| document.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 2 == 0);
        }
        documents.extend_from_slice(&last);
    }
    assert!(documents.len() > 70_000, "{}", documents.len());
    check(&documents);
}
