//! The content of an ErrorResponse or NoticeResponse.
//!
//! Source of the fields: PostgreSQL documentation, "Error and Notice Message Fields".

use std::fmt;

use crate::core::limits::DIAGNOSTIC_FIELD_MAX_BYTES;
use crate::sqlstate::SqlState;

/// The severity of an error or notice. It comes from the field that is never translated (`V`, PostgreSQL 9.6 and
/// later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// All sessions of the server end.
    Panic,
    /// The session ends.
    Fatal,
    /// The statement failed.
    #[default]
    Error,
    /// A warning.
    Warning,
    /// A notice.
    Notice,
    /// Information that the client asked for.
    Info,
    /// A message for the server's log.
    Log,
    /// A message for debugging.
    Debug,
}

impl Severity {
    /// Whether the server closes the connection after an error of this severity.
    pub fn ends_session(self) -> bool {
        matches!(self, Self::Fatal | Self::Panic)
    }

    fn from_bytes(severity: &[u8]) -> Option<Self> {
        Some(match severity {
            b"PANIC" => Self::Panic,
            b"FATAL" => Self::Fatal,
            b"ERROR" => Self::Error,
            b"WARNING" => Self::Warning,
            b"NOTICE" => Self::Notice,
            b"INFO" => Self::Info,
            b"LOG" => Self::Log,
            b"DEBUG" => Self::Debug,
            _ => return None,
        })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panic => "PANIC",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
        })
    }
}

/// An error or notice of the server.
///
/// Each text is cut off at [`DIAGNOSTIC_FIELD_MAX_BYTES`], and bytes that are not UTF-8 are replaced. `detail` and
/// `context` may contain user data, so do not log them whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{severity} {sqlstate}: {message}{}", HintSuffix(.hint.as_deref()))]
pub struct DbError {
    /// The severity.
    pub severity: Severity,
    /// The code. Decisions depend on this field only.
    pub sqlstate: SqlState,
    /// The message, for people. The server may translate it.
    pub message: String,
    /// Details.
    pub detail: Option<String>,
    /// A suggestion for how to solve the problem.
    pub hint: Option<String>,
    /// The place of the error: a stack of lines, such as the row of a COPY.
    pub context: Option<String>,
    /// The schema that the error concerns.
    pub schema: Option<String>,
    /// The table that the error concerns.
    pub table: Option<String>,
    /// The column that the error concerns.
    pub column: Option<String>,
    /// The violated constraint.
    pub constraint: Option<String>,
    /// The position in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl Default for DbError {
    fn default() -> Self {
        Self {
            severity: Severity::Error,
            sqlstate: SqlState::INTERNAL_ERROR,
            message: String::new(),
            detail: None,
            hint: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
            position: None,
        }
    }
}

impl DbError {
    /// The number, from 1, of the row that made a COPY into this table fail. It comes from the line of the context that
    /// begins with `COPY table, `.
    ///
    /// The server translates that line, but in every language the row's number is the first number after the table's
    /// name. `None` if there is no such line, as after a foreign key violation, a protocol error, or an error in a
    /// statement-level trigger.
    pub fn copy_row(&self, table: &str) -> Option<u64> {
        let context = self.context.as_deref()?;
        context.lines().find_map(|line| {
            let rest = line.strip_prefix("COPY ")?.strip_prefix(table)?.strip_prefix(", ")?;
            let digits_at = rest.find(|c: char| c.is_ascii_digit())?;
            let digits = &rest[digits_at..];
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits[..end].parse().ok()
        })
    }

    pub(crate) fn set_field(&mut self, kind: u8, value: &[u8]) {
        match kind {
            b'V' => self.severity = Severity::from_bytes(value).unwrap_or_default(),
            b'C' => self.sqlstate = SqlState::from_bytes(value).unwrap_or(SqlState::INTERNAL_ERROR),
            b'M' => self.message = bounded_text(value),
            b'D' => self.detail = Some(bounded_text(value)),
            b'H' => self.hint = Some(bounded_text(value)),
            b'W' => self.context = Some(bounded_text(value)),
            b's' => self.schema = Some(bounded_text(value)),
            b't' => self.table = Some(bounded_text(value)),
            b'c' => self.column = Some(bounded_text(value)),
            b'n' => self.constraint = Some(bounded_text(value)),
            // A position that is not a number is as good as none: no decision depends on it.
            b'P' => self.position = std::str::from_utf8(value).ok().and_then(|position| position.parse().ok()),
            // `S` is the translated severity. The other fields are places in the server's source. Servers may add
            // fields.
            _ => {}
        }
    }
}

/// The text, cut off at the limit. A cut inside a character leaves a replacement character at the end.
fn bounded_text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(DIAGNOSTIC_FIELD_MAX_BYTES)]).into_owned()
}

/// The hint as the end of an error's text; nothing if there is none.
struct HintSuffix<'a>(Option<&'a str>);

impl fmt::Display for HintSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_context(context: &str) -> DbError {
        DbError { context: Some(context.to_owned()), ..DbError::default() }
    }

    #[test]
    fn the_row_of_a_refused_copy_is_found_in_any_language_and_below_other_lines() {
        assert_eq!(with_context("COPY m, line 17, column payload").copy_row("m"), Some(17));
        assert_eq!(with_context("JSON data, line 1: {\nCOPY m, Zeile 4, Spalte p: \"9\"").copy_row("m"), Some(4));
        assert_eq!(with_context("COPY t2, line 3").copy_row("t2"), Some(3), "digits in the name are not the row");
    }

    #[test]
    fn a_context_of_another_table_or_kind_names_no_row() {
        assert_eq!(with_context("COPY m, line 17").copy_row("n"), None);
        assert_eq!(with_context("SQL statement \"COPY\" line 3").copy_row("m"), None);
        assert_eq!(with_context("COPY m").copy_row("m"), None);
        assert_eq!(DbError::default().copy_row("m"), None);
    }

    #[test]
    fn an_endless_field_is_cut_and_a_code_that_is_none_becomes_an_internal_error() {
        let mut error = DbError::default();
        error.set_field(b'M', &vec![b'x'; DIAGNOSTIC_FIELD_MAX_BYTES * 3]);
        error.set_field(b'C', b"nonsense");
        error.set_field(b'V', b"FATAL");
        assert_eq!(error.message.len(), DIAGNOSTIC_FIELD_MAX_BYTES);
        assert_eq!(error.sqlstate, SqlState::INTERNAL_ERROR);
        assert!(error.severity.ends_session());
    }
}
