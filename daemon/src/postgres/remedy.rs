//! What to do about an error of PostgreSQL: one table, by SQLSTATE, never by words.

use forebay_pgwire::{DbError, Error, SqlState, TlsError};

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

impl Remedy {
    /// In a word, as `docs/postgresql.md` has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::SetAside => "set aside",
            Self::Probe => "probe",
            Self::Pause => "pause",
            Self::BackOff => "connect anew",
        }
    }
}

/// The constraint whose violation is a duplicate, not a refusal.
const UNIQUE_TRANSACTION: &str = "messages_transaction";

/// The constraint whose violation says that a partition's counter is behind its rows.
const PRIMARY_KEY: &str = "messages_pkey";

/// The table: codes of five characters, and classes of two for all codes that are not named. All classes that PostgreSQL has
/// are in it (source: its `errcodes.txt`, PostgreSQL 13 to 18).
pub const TABLE: [(&str, Remedy); 49] = [
    // Whether it committed is not known: the checkpoint is read again.
    ("40003", Remedy::BackOff),
    ("40", Remedy::Again),
    ("55P03", Remedy::Again),
    ("57014", Remedy::Again),
    ("72", Remedy::Again),
    ("08", Remedy::BackOff),
    ("25", Remedy::BackOff),
    // Somebody let go of our prepared statements.
    ("26", Remedy::BackOff),
    ("3B", Remedy::BackOff),
    ("53", Remedy::BackOff),
    ("55", Remedy::BackOff),
    ("57", Remedy::BackOff),
    ("58", Remedy::BackOff),
    ("F0", Remedy::BackOff),
    ("XX", Remedy::BackOff),
    // What a row leads to by itself, or through a trigger of the user's in whatever language.
    ("01", Remedy::SetAside),
    ("02", Remedy::SetAside),
    ("09", Remedy::SetAside),
    ("20", Remedy::SetAside),
    ("21", Remedy::SetAside),
    ("22", Remedy::SetAside),
    ("23", Remedy::SetAside),
    ("27", Remedy::SetAside),
    ("2F", Remedy::SetAside),
    ("38", Remedy::SetAside),
    ("39", Remedy::SetAside),
    ("44", Remedy::SetAside),
    ("54", Remedy::SetAside),
    ("P0", Remedy::SetAside),
    // COPY data out of step is nobody's row.
    ("22P04", Remedy::Pause),
    // The primary key: the partition's counter is behind its rows, as after a restore by hand.
    ("23505", Remedy::Pause),
    ("00", Remedy::Pause),
    ("03", Remedy::Pause),
    ("0A", Remedy::Pause),
    ("0B", Remedy::Pause),
    ("0F", Remedy::Pause),
    ("0L", Remedy::Pause),
    ("0P", Remedy::Pause),
    ("0Z", Remedy::Pause),
    ("10", Remedy::Pause),
    ("24", Remedy::Pause),
    ("28", Remedy::Pause),
    ("2B", Remedy::Pause),
    ("2D", Remedy::Pause),
    ("34", Remedy::Pause),
    ("3D", Remedy::Pause),
    ("3F", Remedy::Pause),
    ("42", Remedy::Pause),
    ("HV", Remedy::Pause),
];

/// The remedy for a class that PostgreSQL does not have: only a trigger of the user's raises it.
const OWN_CLASS: Remedy = Remedy::SetAside;

/// The remedy for `error`. [`Remedy::SetAside`] holds for a row only: elsewhere nobody knows which, so it is a
/// [`Remedy::Pause`].
#[must_use]
pub fn remedy(error: &Error) -> Remedy {
    let Some(db) = error.db_error() else {
        return match error {
            Error::Config(_) | Error::Auth(_) | Error::Usage { .. } | Error::Column(_) => Remedy::Pause,
            Error::Tls(error) => tls_remedy(error),
            _ => Remedy::BackOff,
        };
    };
    if db.sqlstate == SqlState::UNIQUE_VIOLATION && is_own_constraint(db, UNIQUE_TRANSACTION) {
        return Remedy::Probe;
    }
    let find = |code: &str| TABLE.iter().find(|(of, _)| *of == code).map(|(_, remedy)| *remedy);
    find(db.sqlstate.as_str()).or_else(|| find(db.sqlstate.class().as_str())).unwrap_or(OWN_CLASS)
}

/// Whether an error that rows met, as they were copied or committed, may be the fault of one of them. Its SQLSTATE does not
/// tell: a trigger raises whatever it likes.
#[must_use]
pub fn may_be_about_a_row(error: &Error) -> bool {
    let is_about_rows = |db: &DbError| !is_own_constraint(db, PRIMARY_KEY);
    error.db_error().is_some_and(is_about_rows) && !error.ends_connection() && remedy(error) != Remedy::Probe
}

/// Whether a statement itself violated this constraint of ours. A trigger can meet one of the same name in another table, or raise
/// what it likes; but then its function comes first in the context.
fn is_own_constraint(db: &DbError, name: &str) -> bool {
    let is_direct = db.context.as_deref().is_none_or(|context| context.starts_with("COPY messages,"));
    is_direct && db.constraint.as_deref() == Some(name)
}

/// Certificates are mended by a person, and so is a server that has no TLS, or none that we have; the rest is the way's.
fn tls_remedy(error: &TlsError) -> Remedy {
    match error {
        TlsError::Refused { .. }
        | TlsError::Certificate { .. }
        | TlsError::Alert { of_certificate: true, .. }
        | TlsError::NothingInCommon { .. } => Remedy::Pause,
        _ => Remedy::BackOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_pgwire::{CertificateProblem, ConfigError, SslMode};

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
        // The last two: a trigger in another language, and a code that somebody thought of.
        for code in ["22P02", "22P05", "22003", "22021", "54000", "54001", "23514", "P0001", "38000", "APP01"] {
            assert_eq!(of(code), Remedy::SetAside, "{code}");
        }
    }

    #[test]
    fn a_repeated_transaction_id_is_looked_for_and_another_unique_violation_pauses() {
        let sqlstate = SqlState::UNIQUE_VIOLATION;
        let violated = |constraint: &str| {
            let constraint = Some(constraint.to_owned());
            remedy(&Error::Server(Box::new(DbError { sqlstate, constraint, ..DbError::default() })))
        };
        assert_eq!(violated("messages_transaction"), Remedy::Probe);
        assert_eq!(violated("messages_pkey"), Remedy::Pause);
    }

    #[test]
    fn case_60_a_certificate_or_a_server_without_tls_pauses_and_an_encrypted_connection_that_breaks_is_made_anew() {
        use CertificateProblem::{Expired, NotYetValid, Other, UnknownIssuer, WrongName};
        let of_tls = |error: TlsError| remedy(&Error::Tls(error));
        for problem in [UnknownIssuer, Expired, NotYetValid, WrongName, Other] {
            assert_eq!(of_tls(TlsError::Certificate { problem, detail: String::new() }), Remedy::Pause, "{problem:?}");
        }
        let alert = |of_certificate| TlsError::Alert { alert: String::new(), of_certificate };
        assert_eq!(of_tls(TlsError::Refused { mode: SslMode::VerifyFull }), Remedy::Pause);
        assert_eq!(of_tls(alert(true)), Remedy::Pause);
        assert_eq!(of_tls(TlsError::NothingInCommon { reason: String::new() }), Remedy::Pause);
        let file = ConfigError::File { path: "/gone".into(), reason: String::new() };
        assert_eq!(remedy(&Error::Config(file)), Remedy::Pause);
        assert_eq!(of_tls(alert(false)), Remedy::BackOff);
        assert_eq!(of_tls(TlsError::Failed { reason: String::new() }), Remedy::BackOff);
        let source = std::io::ErrorKind::ConnectionReset.into();
        assert_eq!(remedy(&Error::Io { during: "a flight", source }), Remedy::BackOff);
    }

    #[test]
    fn every_class_is_in_the_table_once() {
        /// Of the sections of `errcodes.txt`, PostgreSQL 18.
        const CLASSES: &str = "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F \
                               40 42 44 53 54 55 57 58 72 F0 HV P0 XX";
        for class in CLASSES.split_whitespace() {
            assert_eq!(TABLE.iter().filter(|(of, _)| *of == class).count(), 1, "{class}");
        }
        let mut codes: Vec<&str> = TABLE.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
        for code in codes {
            let is_class = CLASSES.split_whitespace().any(|class| class == code);
            assert!(is_class || SqlState::from_bytes(code.as_bytes()).is_some(), "{code}");
        }
    }

    #[test]
    fn case_60_a_changed_schema_or_a_missing_right_pauses() {
        for code in ["42P01", "42703", "3F000", "42501", "28P01", "3D000"] {
            assert_eq!(of(code), Remedy::Pause, "{code}");
        }
    }
}
