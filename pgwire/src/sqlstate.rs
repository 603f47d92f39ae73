//! SQLSTATE codes. Decisions about the server's errors depend on these codes, never on the text of a message.
//!
//! Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".

use std::fmt;

/// A SQLSTATE: five characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

/// The class of a SQLSTATE: its first two characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlClass([u8; 2]);

macro_rules! codes {
    ($kind:ident: $($name:ident = $code:literal, $doc:literal;)*) => {
        impl $kind {
            $(
                #[doc = $doc]
                pub const $name: $kind = $kind(checked($code));
            )*
        }
    };
}

codes! { SqlState:
    CONNECTION_FAILURE = b"08006", "The connection failed.";
    PROTOCOL_VIOLATION = b"08P01", "The client violated the protocol.";
    FEATURE_NOT_SUPPORTED = b"0A000", "The feature is unsupported, or a prepared statement's result type has changed.";
    CARDINALITY_VIOLATION = b"21000", "A subquery returned more than one row.";
    STRING_DATA_RIGHT_TRUNCATION = b"22001", "A text is too long for its column.";
    NUMERIC_VALUE_OUT_OF_RANGE = b"22003", "A number is out of its type's range.";
    CHARACTER_NOT_IN_REPERTOIRE = b"22021", "Bytes are invalid in the database's encoding.";
    INVALID_TEXT_REPRESENTATION = b"22P02", "A text is not a value of its type, or is invalid JSON.";
    INVALID_BINARY_REPRESENTATION = b"22P03", "A binary value has the wrong size or form.";
    BAD_COPY_FILE_FORMAT = b"22P04", "COPY data has the wrong format.";
    UNTRANSLATABLE_CHARACTER = b"22P05", "The database cannot store a character, such as \\u0000 in jsonb.";
    NOT_NULL_VIOLATION = b"23502", "A column that is NOT NULL got a NULL.";
    FOREIGN_KEY_VIOLATION = b"23503", "A foreign key refers to a row that does not exist.";
    UNIQUE_VIOLATION = b"23505", "A unique key exists already.";
    CHECK_VIOLATION = b"23514", "A value violates a CHECK constraint.";
    EXCLUSION_VIOLATION = b"23P01", "A value violates an exclusion constraint.";
    READ_ONLY_SQL_TRANSACTION = b"25006", "A write was tried on a standby or in a read-only transaction.";
    IN_FAILED_SQL_TRANSACTION = b"25P02", "The transaction has failed, and the server accepts only ROLLBACK.";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = b"25P03", "The server ended the session because it was idle in a transaction.";
    INVALID_AUTHORIZATION = b"28000", "The role may not log in from this client.";
    INVALID_PASSWORD = b"28P01", "The password is wrong.";
    INVALID_CATALOG_NAME = b"3D000", "The database does not exist.";
    INVALID_SCHEMA_NAME = b"3F000", "The schema does not exist.";
    SERIALIZATION_FAILURE = b"40001", "The transaction could not be serialized. Repeat it.";
    DEADLOCK_DETECTED = b"40P01", "The transaction was the victim of a deadlock. Repeat it.";
    INSUFFICIENT_PRIVILEGE = b"42501", "The role lacks a privilege.";
    SYNTAX_ERROR = b"42601", "The statement has a syntax error.";
    UNDEFINED_COLUMN = b"42703", "The column does not exist.";
    UNDEFINED_FUNCTION = b"42883", "The function does not exist.";
    UNDEFINED_TABLE = b"42P01", "The table does not exist.";
    DUPLICATE_SCHEMA = b"42P06", "The schema exists already.";
    DUPLICATE_TABLE = b"42P07", "The table exists already.";
    DISK_FULL = b"53100", "The server's disk is full.";
    OUT_OF_MEMORY = b"53200", "The server is out of memory.";
    TOO_MANY_CONNECTIONS = b"53300", "The server has no free connection slot.";
    LOCK_NOT_AVAILABLE = b"55P03", "A lock was not available within `lock_timeout`, or at once with NOWAIT.";
    QUERY_CANCELED = b"57014", "The statement was cancelled or too slow, or the client aborted a COPY.";
    ADMIN_SHUTDOWN = b"57P01", "The server is shutting down, or an administrator ended the session.";
    CRASH_SHUTDOWN = b"57P02", "Another session crashed, and the server restarts.";
    CANNOT_CONNECT_NOW = b"57P03", "The server is starting up, shutting down or recovering.";
    IDLE_SESSION_TIMEOUT = b"57P05", "The server ended the session because it was idle.";
    INTERNAL_ERROR = b"XX000", "An internal error of the server, or an error without a valid code.";
}

codes! { SqlClass:
    CONNECTION_EXCEPTION = b"08", "Connection failures.";
    DATA_EXCEPTION = b"22", "Values that the database cannot store.";
    INTEGRITY_CONSTRAINT_VIOLATION = b"23", "Values that violate a constraint.";
    INVALID_TRANSACTION_STATE = b"25", "Statements that the transaction's state does not allow.";
    INVALID_AUTHORIZATION = b"28", "Refused log-ins.";
    TRANSACTION_ROLLBACK = b"40", "Transactions that were rolled back. Repeat them.";
    SYNTAX_OR_ACCESS = b"42", "Errors in the statement, missing objects, missing privileges.";
    INSUFFICIENT_RESOURCES = b"53", "Resources that the server lacks.";
    PROGRAM_LIMIT_EXCEEDED = b"54", "Limits of the server, such as the size of an index row.";
    OBJECT_NOT_IN_STATE = b"55", "Objects that are locked or not in the required state.";
    OPERATOR_INTERVENTION = b"57", "Interventions by an operator or by the server itself.";
    SYSTEM_ERROR = b"58", "Failures of the server's operating system.";
    INTERNAL_ERROR = b"XX", "Bugs or corruption in the server.";
}

impl SqlState {
    /// The code of these five characters, or `None` if they are not digits and capital letters.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        is_code(&code).then_some(Self(code))
    }

    /// The code's class.
    pub const fn class(self) -> SqlClass {
        SqlClass([self.0[0], self.0[1]])
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        text(&self.0)
    }
}

impl SqlClass {
    /// The two characters.
    pub fn as_str(&self) -> &str {
        text(&self.0)
    }
}

const fn is_code(mut code: &[u8]) -> bool {
    while let [byte, rest @ ..] = code {
        if !byte.is_ascii_digit() && !byte.is_ascii_uppercase() {
            return false;
        }
        code = rest;
    }
    true
}

/// Checks a constant at compile time.
const fn checked<const N: usize>(code: &[u8; N]) -> [u8; N] {
    assert!(is_code(code), "a code consists of digits and capital letters");
    *code
}

fn text(code: &[u8]) -> &str {
    match std::str::from_utf8(code) {
        Ok(text) => text,
        Err(_) => unreachable!("a code consists of digits and capital letters"),
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}

impl fmt::Display for SqlClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlClass({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_tells_its_class() {
        assert_eq!(SqlState::UNIQUE_VIOLATION.class(), SqlClass::INTEGRITY_CONSTRAINT_VIOLATION);
        assert_eq!(SqlState::DEADLOCK_DETECTED.class(), SqlClass::TRANSACTION_ROLLBACK);
        assert_ne!(SqlState::DISK_FULL.class(), SqlClass::OPERATOR_INTERVENTION);
    }

    #[test]
    fn only_five_digits_or_capitals_are_a_code() {
        assert_eq!(SqlState::from_bytes(b"40P01"), Some(SqlState::DEADLOCK_DETECTED));
        for wrong in [&b"4000"[..], b"400011", b"40p01", b"40 01", b"", b"\xff\xff\xff\xff\xff"] {
            assert_eq!(SqlState::from_bytes(wrong), None);
        }
    }
}
