//! What to do about an error of PostgreSQL: one table, by SQLSTATE, never by words.

use forebay_pgwire::{Error, SqlClass, SqlState};

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The transaction was rolled back through nobody's fault: the same again, at once.
    Again,
    /// A row cannot be stored: find it and set it aside.
    SetAside,
    /// A transaction id was there already: look for those first.
    Probe,
    /// Nothing will change until a person has seen to it: keep all, say so, look again from time to time.
    Pause,
    /// The server or the way to it is in trouble: keep all, connect anew after a while.
    BackOff,
}

/// The constraint whose violation is a duplicate, not a refusal.
const UNIQUE_TRANSACTION: &str = "messages_transaction";

/// The remedy for `error`.
#[must_use]
pub fn remedy(error: &Error) -> Remedy {
    let Some(db) = error.db_error() else {
        return match error {
            Error::Config(_) | Error::Auth(_) | Error::Usage { .. } | Error::Column(_) => Remedy::Pause,
            _ => Remedy::BackOff,
        };
    };
    match db.sqlstate {
        SqlState::UNIQUE_VIOLATION if db.constraint.as_deref() == Some(UNIQUE_TRANSACTION) => Remedy::Probe,
        // The primary key: the partition's counter is behind its rows, as after a restore by hand.
        SqlState::UNIQUE_VIOLATION => Remedy::Pause,
        SqlState::SERIALIZATION_FAILURE
        | SqlState::DEADLOCK_DETECTED
        | SqlState::LOCK_NOT_AVAILABLE
        | SqlState::QUERY_CANCELED => Remedy::Again,
        SqlState::READ_ONLY_SQL_TRANSACTION => Remedy::BackOff,
        SqlState::BAD_COPY_FILE_FORMAT => Remedy::Pause,
        code => match code.class() {
            SqlClass::TRANSACTION_ROLLBACK => Remedy::Again,
            SqlClass::DATA_EXCEPTION | SqlClass::INTEGRITY_CONSTRAINT_VIOLATION | SqlClass::PROGRAM_LIMIT_EXCEEDED => {
                Remedy::SetAside
            }
            SqlClass::CONNECTION_EXCEPTION
            | SqlClass::INSUFFICIENT_RESOURCES
            | SqlClass::OPERATOR_INTERVENTION
            | SqlClass::SYSTEM_ERROR
            | SqlClass::INTERNAL_ERROR
            | SqlClass::INVALID_TRANSACTION_STATE
            | SqlClass::OBJECT_NOT_IN_STATE => Remedy::BackOff,
            SqlClass::INVALID_AUTHORIZATION | SqlClass::SYNTAX_OR_ACCESS => Remedy::Pause,
            // P0001 and the like: a trigger of the user's refuses the row.
            class if class.as_str() == "P0" => Remedy::SetAside,
            _ => Remedy::Pause,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_pgwire::DbError;

    fn of(code: &str) -> Remedy {
        let sqlstate = SqlState::from_bytes(code.as_bytes()).unwrap();
        remedy(&Error::Server(Box::new(DbError { sqlstate, ..DbError::default() })))
    }

    #[test]
    fn case_56_what_passes_by_itself_is_never_set_aside() {
        for code in ["40001", "40P01", "55P03", "57014"] {
            assert_eq!(of(code), Remedy::Again, "{code}");
        }
        for code in ["08006", "57P01", "57P02", "57P03", "53100", "53200", "53300", "25006", "58030", "XX000", "XX001"]
        {
            assert_eq!(of(code), Remedy::BackOff, "{code}");
        }
    }

    #[test]
    fn case_58_a_row_that_cannot_be_stored_is_set_aside() {
        for code in ["22P02", "22P05", "22003", "22021", "54000", "54001", "23514", "P0001"] {
            assert_eq!(of(code), Remedy::SetAside, "{code}");
        }
    }

    #[test]
    fn case_60_a_changed_schema_or_a_missing_right_pauses() {
        for code in ["42P01", "42703", "3F000", "42501", "28P01", "3D000"] {
            assert_eq!(of(code), Remedy::Pause, "{code}");
        }
    }
}
