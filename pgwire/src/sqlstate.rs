//! SQLSTATE codes. Decisions about server errors are made by these, never by the text of a message.
//!
//! Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".

use std::fmt;

/// A five-character SQLSTATE.
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
                pub const $name: $kind = $kind(*$code);
            )*
        }
    };
}

codes! { SqlState:
    CONNECTION_FAILURE = b"08006", "The connection failed.";
    PROTOCOL_VIOLATION = b"08P01", "The server could not follow us.";
    FEATURE_NOT_SUPPORTED = b"0A000", "Not supported; also a prepared statement whose result type has changed.";
    CARDINALITY_VIOLATION = b"21000", "More rows than one, where one is allowed.";
    STRING_DATA_RIGHT_TRUNCATION = b"22001", "A text too long for its column.";
    NUMERIC_VALUE_OUT_OF_RANGE = b"22003", "A number that does not fit its type.";
    CHARACTER_NOT_IN_REPERTOIRE = b"22021", "Bytes that are not of the database's encoding.";
    INVALID_TEXT_REPRESENTATION = b"22P02", "A text that is no value of its type; invalid JSON too.";
    INVALID_BINARY_REPRESENTATION = b"22P03", "A binary value of the wrong size or shape.";
    BAD_COPY_FILE_FORMAT = b"22P04", "COPY data out of step.";
    UNTRANSLATABLE_CHARACTER = b"22P05", "A character the database cannot hold, such as \\u0000 in jsonb.";
    NOT_NULL_VIOLATION = b"23502", "A NULL where none is allowed.";
    FOREIGN_KEY_VIOLATION = b"23503", "A reference to a row that is not there.";
    UNIQUE_VIOLATION = b"23505", "A key that is there already.";
    CHECK_VIOLATION = b"23514", "A value a CHECK refuses.";
    EXCLUSION_VIOLATION = b"23P01", "A value an exclusion constraint refuses.";
    READ_ONLY_SQL_TRANSACTION = b"25006", "A write on a standby or in a read-only transaction.";
    IN_FAILED_SQL_TRANSACTION = b"25P02", "The transaction has failed; only ROLLBACK is taken.";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = b"25P03", "The session was ended for idling in a transaction.";
    INVALID_AUTHORIZATION = b"28000", "This role may not log in from here.";
    INVALID_PASSWORD = b"28P01", "The password is wrong.";
    INVALID_CATALOG_NAME = b"3D000", "There is no such database.";
    INVALID_SCHEMA_NAME = b"3F000", "There is no such schema.";
    SERIALIZATION_FAILURE = b"40001", "Serialization failed: repeat the transaction.";
    DEADLOCK_DETECTED = b"40P01", "A deadlock: repeat the transaction.";
    INSUFFICIENT_PRIVILEGE = b"42501", "The role lacks a right.";
    SYNTAX_ERROR = b"42601", "The statement cannot be read.";
    UNDEFINED_COLUMN = b"42703", "There is no such column.";
    UNDEFINED_FUNCTION = b"42883", "There is no such function.";
    UNDEFINED_TABLE = b"42P01", "There is no such table.";
    DUPLICATE_SCHEMA = b"42P06", "The schema is there already.";
    DUPLICATE_TABLE = b"42P07", "The table is there already.";
    DISK_FULL = b"53100", "The server's disk is full.";
    OUT_OF_MEMORY = b"53200", "The server is out of memory.";
    TOO_MANY_CONNECTIONS = b"53300", "The server has no connection left.";
    LOCK_NOT_AVAILABLE = b"55P03", "A lock was not to be had in `lock_timeout`, or with NOWAIT.";
    QUERY_CANCELED = b"57014", "Cancelled, or longer than `statement_timeout`; also a COPY that we ended.";
    ADMIN_SHUTDOWN = b"57P01", "The server shuts down, or an administrator ended the session.";
    CRASH_SHUTDOWN = b"57P02", "Another session crashed, and the server starts anew.";
    CANNOT_CONNECT_NOW = b"57P03", "The server starts up, shuts down or recovers.";
    IDLE_SESSION_TIMEOUT = b"57P05", "The session was ended for idling.";
    INTERNAL_ERROR = b"XX000", "An internal error; also stands in where a server sends no code.";
}

codes! { SqlClass:
    CONNECTION_EXCEPTION = b"08", "The connection.";
    DATA_EXCEPTION = b"22", "A value the database cannot hold.";
    INTEGRITY_CONSTRAINT_VIOLATION = b"23", "A value a constraint refuses.";
    INVALID_TRANSACTION_STATE = b"25", "The transaction's state.";
    INVALID_AUTHORIZATION = b"28", "The log-in.";
    TRANSACTION_ROLLBACK = b"40", "Rolled back: repeat the transaction.";
    SYNTAX_OR_ACCESS = b"42", "The statement, the schema or rights.";
    INSUFFICIENT_RESOURCES = b"53", "The server lacks a resource.";
    PROGRAM_LIMIT_EXCEEDED = b"54", "A limit of the server, such as the size of an index row.";
    OBJECT_NOT_IN_STATE = b"55", "An object in another state, or locked.";
    OPERATOR_INTERVENTION = b"57", "Somebody stepped in.";
    SYSTEM_ERROR = b"58", "The server's system failed.";
    INTERNAL_ERROR = b"XX", "A bug or corruption in the server.";
}

impl SqlState {
    /// A code from its five characters, or `None` if they are not digits and capital letters.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(Self(code))
    }

    /// The code's class.
    pub const fn class(self) -> SqlClass {
        SqlClass([self.0[0], self.0[1]])
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in: `from_bytes` checks, and the constants are.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl SqlClass {
    /// The two characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
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
