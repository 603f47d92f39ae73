//! The tokens file: TOML, a table `[[token]]` for each.

use crate::{
    access::{
        rate::{BURST_MAX, RATE_MAX},
        scope::{Scope, Scopes},
        token::TokenHash,
    },
    private_files,
    private_files::{Guard, of_path},
};
use std::{collections::HashSet, path::Path};

/// Bytes of a token's name at most.
pub const NAME_BYTES_MAX: usize = 100;

/// A token as it is kept.
#[derive(Debug)]
pub struct Row {
    /// What it is called, for people.
    pub name: Option<String>,
    /// Its hash.
    pub hash: TokenHash,
    /// What it is for; at least one.
    pub scopes: Scopes,
    /// What the names of queues must begin with that it pushes to.
    pub queue_prefix: Option<String>,
    /// How fast.
    pub rate: Option<RowRate>,
}

/// How many messages a token may push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRate {
    /// For long.
    pub messages_per_s: u64,
    /// At once, after quiet.
    pub burst: u64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<Written>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    name: Option<String>,
    hash: String,
    scopes: Vec<Scope>,
    queue_prefix: Option<String>,
    rate: Option<u64>,
    burst: Option<u64>,
    /// For people.
    #[serde(rename = "created")]
    _created: Option<String>,
}

/// Reads the tokens of a file.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(path: &Path) -> Result<Vec<Row>, String> {
    parse(&private_files::read(path, Guard::Writing)?).map_err(|error| of_path(path, &error))
}

/// Reads the file's text.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> Result<Vec<Row>, String> {
    let content: Content = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut hashes = HashSet::new();
    let mut rows = Vec::with_capacity(content.token.len());
    for (index, written) in content.token.into_iter().enumerate() {
        let of_token = |what: &str| format!("token {}: {what}", index + 1);
        let hash = TokenHash::parse(&written.hash).ok_or_else(|| of_token("hash must be blake3: and 64 hex digits"))?;
        if !hashes.insert(hash.short()) {
            return Err(of_token("its hash stands here twice"));
        }
        rows.push(check(written, hash).map_err(|what| of_token(&what))?);
    }
    Ok(rows)
}

fn check(written: Written, hash: TokenHash) -> Result<Row, String> {
    let Written { name, scopes, queue_prefix, rate, burst, .. } = written;
    if name.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(format!("name has more than {NAME_BYTES_MAX} bytes"));
    }
    let scopes: Scopes = scopes.into_iter().collect();
    check_rights(scopes, queue_prefix.as_deref())?;
    Ok(Row { name, hash, scopes, queue_prefix, rate: check_rate(rate, burst)? })
}

/// Checks what a token may be for.
///
/// # Errors
/// What is wrong, in words.
pub fn check_rights(scopes: Scopes, queue_prefix: Option<&str>) -> Result<(), String> {
    if scopes.is_empty() {
        return Err("scopes must name at least one of push, pop and admin".into());
    }
    let Some(prefix) = queue_prefix else { return Ok(()) };
    if scopes.has(Scope::Admin) {
        return Err("admin reaches every queue, so it does not go with queue-prefix".into());
    }
    if prefix.is_empty() || prefix.len() > 255 || prefix.contains('\0') {
        return Err("queue-prefix must have 1 to 255 bytes, and no U+0000".into());
    }
    Ok(())
}

/// A rate and its burst, which is a second's worth where nothing else is said.
///
/// # Errors
/// What is wrong, in words.
pub fn check_rate(rate: Option<u64>, burst: Option<u64>) -> Result<Option<RowRate>, String> {
    match (rate, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("burst goes with rate".into()),
        (Some(rate), _) if !(1..=RATE_MAX).contains(&rate) => {
            Err(format!("rate must be 1 to {RATE_MAX} messages a second"))
        }
        (Some(_), Some(burst)) if !(1..=BURST_MAX).contains(&burst) => {
            Err(format!("burst must be 1 to {BURST_MAX} messages"))
        }
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
            let error = parse(&format!("[[token]]\n{token}\n")).unwrap_err();
            assert!(error.contains(complaint), "{token}: {error}");
        }
    }
}
