//! What holds for one document.

mod differential;
mod grammar;
mod lines;
mod storable;

use super::{JsonErrorKind, validate};

/// The kind and place of the error, or nothing where the document is accepted.
fn refusal(document: impl AsRef<[u8]>) -> Option<(JsonErrorKind, usize)> {
    validate(document.as_ref()).err().map(|error| (error.kind, error.offset))
}

#[track_caller]
fn assert_kept(document: impl AsRef<[u8]>) {
    let document = document.as_ref();
    assert_eq!(refusal(document), None, "{}", String::from_utf8_lossy(document));
}

#[track_caller]
fn assert_refused(document: impl AsRef<[u8]>, kind: JsonErrorKind, offset: usize) {
    let document = document.as_ref();
    assert_eq!(refusal(document), Some((kind, offset)), "{}", String::from_utf8_lossy(document));
}
