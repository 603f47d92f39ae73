//! What is wrong with a push, and in which item.

use std::fmt;

use crate::json::JsonError;

/// A push that is refused whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushError {
    /// For programs: `malformed_json`, `payload_not_storable`, `invalid_item` or `invalid_request`.
    pub code: &'static str,
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
            Fault::Json(error) => PushError { code: self.json_code(&error), message: self.json_message(&error) },
            Fault::Rule(rule) => {
                let code = if self.item.is_some() { "invalid_item" } else { "invalid_request" };
                PushError { code, message: format!("{self}: {rule}") }
            }
            Fault::NoItems => PushError { code: "invalid_request", message: "items array is required".to_owned() },
            Fault::TooManyItems(max) => {
                PushError { code: "invalid_request", message: format!("items: more than {max} in one request") }
            }
        }
    }

    /// What cannot be stored is a payload's fault only where it is the payload.
    fn json_code(self, error: &JsonError) -> &'static str {
        match (self.item, self.field) {
            (Some(_), Some(PAYLOAD)) => error.code(),
            (Some(_), Some(_)) if error.kind.is_not_storable() => "invalid_item",
            _ => "malformed_json",
        }
    }

    fn json_message(self, error: &JsonError) -> String {
        format!("{self}: {error} of the body")
    }
}
