//! What is wrong with a push, and in which item.

use std::fmt;

use crate::json::JsonError;

/// What kind of fault a push has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushErrorKind {
    /// The body is not JSON.
    MalformedJson,
    /// A payload is JSON that `jsonb` cannot, or shall not, hold.
    PayloadNotStorable,
    /// A field of an item is missing, or against its rule.
    InvalidItem,
    /// The same for what stands beside the items.
    InvalidRequest,
}

/// A push that is refused whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushError {
    /// For programs.
    pub kind: PushErrorKind,
    /// For people: what is wrong and where, as `items[3].payload: missing`.
    pub message: String,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PushError {}

/// What went wrong, before it is known where.
#[derive(Debug)]
pub(super) enum Fault {
    Json(JsonError),
    /// A sentence to put after the place and a colon.
    Rule(&'static str),
    /// The items are missing or no array.
    NoItems,
    /// More items than this.
    TooManyItems(usize),
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// Where the parser is: what it says when something is wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) item: Option<usize>,
    pub(super) field: Option<&'static str>,
}

pub(super) const PAYLOAD: &str = "payload";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.item, self.field) {
            (Some(item), Some(field)) => write!(f, "items[{item}].{field}"),
            (Some(item), None) => write!(f, "items[{item}]"),
            (None, Some(field)) => f.write_str(field),
            (None, None) => f.write_str("malformed request"),
        }
    }
}

impl Place {
    pub(super) fn explain(self, fault: Fault) -> PushError {
        match fault {
            Fault::Json(error) => PushError { kind: self.json_kind(&error), message: self.json_message(&error) },
            Fault::Rule(rule) => {
                let kind = if self.item.is_some() { PushErrorKind::InvalidItem } else { PushErrorKind::InvalidRequest };
                PushError { kind, message: format!("{self}: {rule}") }
            }
            Fault::NoItems => {
                PushError { kind: PushErrorKind::InvalidRequest, message: "items array is required".to_owned() }
            }
            Fault::TooManyItems(max) => PushError {
                kind: PushErrorKind::InvalidRequest,
                message: format!("items: more than {max} in one request"),
            },
        }
    }

    /// What cannot be stored is a payload's fault only where it is the payload.
    fn json_kind(self, error: &JsonError) -> PushErrorKind {
        match (self.item, self.field) {
            (Some(_), Some(PAYLOAD)) if error.kind.is_not_storable() => PushErrorKind::PayloadNotStorable,
            (Some(_), Some(_)) if error.kind.is_not_storable() => PushErrorKind::InvalidItem,
            _ => PushErrorKind::MalformedJson,
        }
    }

    fn json_message(self, error: &JsonError) -> String {
        format!("{self}: {error} of the body")
    }
}
