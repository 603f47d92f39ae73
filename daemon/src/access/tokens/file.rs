//! The tokens file: TOML with a table `[[token]]` for each token.

use crate::{
    access::{
        rate::{BURST_MAX, RATE_MAX},
        scope::{Scope, Scopes},
        token::TokenHash,
    },
    private_files,
    private_files::{FileError, Guard},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, path::Path};

/// Longest name of a token, in bytes.
pub const NAME_BYTES_MAX: usize = 100;

/// Longest prefix of queues, in bytes: as long as a queue's name.
pub const QUEUE_PREFIX_BYTES_MAX: usize = 255;

/// What is wrong with a token's table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// `hash` is none.
    #[error("hash must be blake3: and 64 hex digits")]
    Hash,
    /// Another table has the same hash.
    #[error("its hash stands here twice")]
    HashTwice,
    /// `name` is too long.
    #[error("name has more than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// `scopes` is empty.
    #[error("scopes must name at least one of push, pop and admin")]
    NoScopes,
    /// A token of an administrator has a prefix.
    #[error("admin reaches every queue, so it does not go with queue-prefix")]
    AdminWithPrefix,
    /// `queue-prefix` is empty, too long, or has U+0000.
    #[error("queue-prefix must have 1 to {QUEUE_PREFIX_BYTES_MAX} bytes, and no U+0000")]
    QueuePrefix,
    /// `burst` stands without `rate`.
    #[error("burst goes with rate")]
    BurstWithoutRate,
    /// `rate` is out of its range.
    #[error("rate must be 1 to {RATE_MAX} messages a second")]
    Rate,
    /// `burst` is out of its range.
    #[error("burst must be 1 to {BURST_MAX} messages")]
    Burst,
}

/// What is wrong with a tokens file.
#[derive(Debug, thiserror::Error)]
pub enum TokensFileError {
    /// It is not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no TOML, or has other keys or types.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// One of its tables is wrong.
    #[error("token {number}: {error}")]
    Row {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        error: RowError,
    },
}

/// A token as it is stored.
#[derive(Debug)]
pub struct Row {
    /// Its name, for people.
    pub name: Option<String>,
    /// Its hash.
    pub hash: TokenHash,
    /// Its scopes; at least one.
    pub scopes: Scopes,
    /// The prefix of the queues that it may push to.
    pub queue_prefix: Option<String>,
    /// Its rate, if it is limited.
    pub rate: Option<RowRate>,
}

/// How many messages a token may push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRate {
    /// In the long run, in messages a second.
    pub messages_per_s: u64,
    /// At once after a quiet time, in messages.
    pub burst: u64,
}

/// The file as TOML.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) token: Vec<Table>,
}

/// A token's table.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: Option<String>,
    pub(super) hash: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) queue_prefix: Option<String>,
    pub(super) rate: Option<u64>,
    pub(super) burst: Option<u64>,
    /// For people; the daemon does not read it.
    pub(super) created: Option<String>,
}

/// Reads the tokens of a file.
///
/// # Errors
/// [`TokensFileError`].
pub fn read(path: &Path) -> Result<Vec<Row>, TokensFileError> {
    parse(&private_files::read(path, Guard::Writing)?)
}

/// Reads the file's text.
///
/// # Errors
/// [`TokensFileError`].
pub fn parse(text: &str) -> Result<Vec<Row>, TokensFileError> {
    let document: Document = toml::from_str(text)?;
    let mut hashes = HashSet::new();
    let rows = document.token.into_iter().enumerate().map(|(index, table)| {
        row(table, &mut hashes).map_err(|error| TokensFileError::Row { number: index + 1, error })
    });
    rows.collect()
}

fn row(table: Table, hashes: &mut HashSet<[u8; 16]>) -> Result<Row, RowError> {
    let Table { name, hash, scopes, queue_prefix, rate, burst, .. } = table;
    let hash = TokenHash::parse(&hash).ok_or(RowError::Hash)?;
    if !hashes.insert(hash.short()) {
        return Err(RowError::HashTwice);
    }
    if name.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(RowError::NameTooLong);
    }
    let scopes: Scopes = scopes.into_iter().collect();
    check_rights(scopes, queue_prefix.as_deref())?;
    Ok(Row { name, hash, scopes, queue_prefix, rate: check_rate(rate, burst)? })
}

/// Checks what a token allows.
///
/// # Errors
/// [`RowError`].
pub fn check_rights(scopes: Scopes, queue_prefix: Option<&str>) -> Result<(), RowError> {
    if scopes.is_empty() {
        return Err(RowError::NoScopes);
    }
    let Some(prefix) = queue_prefix else { return Ok(()) };
    if scopes.has(Scope::Admin) {
        return Err(RowError::AdminWithPrefix);
    }
    if prefix.is_empty() || prefix.len() > QUEUE_PREFIX_BYTES_MAX || prefix.contains('\0') {
        return Err(RowError::QueuePrefix);
    }
    Ok(())
}

/// Checks a rate and its burst, which defaults to the messages of one second.
///
/// # Errors
/// [`RowError`].
pub fn check_rate(rate: Option<u64>, burst: Option<u64>) -> Result<Option<RowRate>, RowError> {
    match (rate, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(RowError::BurstWithoutRate),
        (Some(rate), _) if !(1..=RATE_MAX).contains(&rate) => Err(RowError::Rate),
        (Some(_), Some(burst)) if !(1..=BURST_MAX).contains(&burst) => Err(RowError::Burst),
        (Some(messages_per_s), burst) => Ok(Some(RowRate { messages_per_s, burst: burst.unwrap_or(messages_per_s) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        TokenHash::of("fb_x").to_string()
    }

    #[test]
    fn a_file_without_tokens_is_one_that_lets_nobody_in() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# none yet\n").unwrap().is_empty());
    }

    #[test]
    fn a_token_is_read_with_all_that_can_be_said_of_it() {
        let text = format!(
            "[[token]]\nname = \"n\"\nhash = \"{}\"\nscopes = [\"push\", \"pop\"]\nqueue-prefix = \"a.\"\nrate = 7\n\
             burst = 9\ncreated = \"2026-01-01T00:00:00Z\"\n",
            hash()
        );
        let row = parse(&text).unwrap().remove(0);
        assert_eq!((row.name.as_deref(), row.queue_prefix.as_deref()), (Some("n"), Some("a.")));
        assert!(row.scopes.has(Scope::Push) && row.scopes.has(Scope::Pop) && !row.scopes.has(Scope::Admin));
        assert_eq!(row.rate, Some(RowRate { messages_per_s: 7, burst: 9 }));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        let hash = hash();
        for (token, complaint) in [
            ("scopes = [\"push\"]".to_owned(), "hash"),
            (format!("hash = \"{hash}\""), "scopes"),
            (format!("hash = \"{hash}\"\nscopes = []"), "at least one"),
            (format!("hash = \"{hash}\"\nscopes = [\"root\"]"), "root"),
            (format!("hash = \"{}\"\nscopes = [\"push\"]", &hash[1..]), "64 hex digits"),
            (format!("hash = \"{hash}\"\nscopes = [\"push\"]\nrate = 0"), "rate must be"),
            (format!("hash = \"{hash}\"\nscopes = [\"push\"]\nburst = 1"), "goes with rate"),
            (format!("hash = \"{hash}\"\nscopes = [\"push\"]\nqueue_prefix = \"x\""), "queue_prefix"),
            (format!("hash = \"{hash}\"\nscopes = [\"push\"]\nqueue-prefix = \"\""), "1 to 255"),
            (format!("hash = \"{hash}\"\nscopes = [\"admin\"]\nqueue-prefix = \"x\""), "every queue"),
            (
                format!("hash = \"{hash}\"\nscopes = [\"push\"]\n[[token]]\nhash = \"{hash}\"\nscopes = [\"pop\"]"),
                "twice",
            ),
        ] {
            let error = parse(&format!("[[token]]\n{token}\n")).unwrap_err().to_string();
            assert!(error.contains(complaint), "{token}: {error}");
        }
    }
}
