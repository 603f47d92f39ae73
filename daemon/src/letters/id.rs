//! What names a dead letter.

use std::str::FromStr;

/// What names a letter: a number in the table, or `f` and its record's number in the files of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LetterId {
    /// In PostgreSQL's table.
    Table(i64),
    /// In a file.
    File(u64),
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter's id is a number, or f and a number")]
pub struct InvalidLetterId;

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(id) => id.fmt(f),
            Self::File(number) => write!(f, "f{number}"),
        }
    }
}

impl FromStr for LetterId {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, InvalidLetterId> {
        let id = match text.strip_prefix('f') {
            Some(number) => number.parse().ok().map(Self::File),
            None => text.parse().ok().filter(|id| *id > 0).map(Self::Table),
        };
        id.ok_or(InvalidLetterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        for id in [LetterId::Table(1), LetterId::Table(i64::MAX), LetterId::File(0), LetterId::File(u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "f", "0", "-1", "f-1", "x1", "1f", "99999999999999999999"] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }
}
