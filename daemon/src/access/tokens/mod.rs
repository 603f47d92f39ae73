//! The known bearer tokens, by their hashes.

pub mod append;
pub mod file;

use super::{
    grant::{Grant, Rights},
    rate::Rate,
    scope::Scopes,
    token::TokenHash,
};
use file::Row;
use std::{collections::HashMap, sync::Arc};
use subtle::Choice;

/// A known token.
#[derive(Debug)]
struct Known {
    hash: TokenHash,
    scopes: Scopes,
    queue_prefix: Option<Arc<str>>,
    rate: Option<Arc<Rate>>,
}

/// The known tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    /// By a part of the hash. The table's own hash function has a random key.
    known: HashMap<[u8; 16], Known>,
}

impl Tokens {
    /// The tokens of a file. A token that was known `before` keeps the content of its bucket.
    #[must_use]
    pub fn new(rows: Vec<Row>, before: Option<&Self>) -> Self {
        let known = rows.into_iter().map(|row| {
            let bucket = row.rate.map(|rate| (rate.messages_per_s, rate.burst));
            let kept = before.and_then(|before| before.known.get(&row.hash.short())?.rate.as_ref());
            let rate = bucket.map(|(messages_per_s, burst)| match kept {
                Some(kept) if kept.is(messages_per_s, burst) => Arc::clone(kept),
                _ => Arc::new(Rate::new(messages_per_s, burst)),
            });
            let queue_prefix = row.queue_prefix.map(Arc::from);
            (row.hash.short(), Known { hash: row.hash, scopes: row.scopes, queue_prefix, rate })
        });
        Self { known: known.collect() }
    }

    /// The number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no token is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What this token grants; `None` if it is not known.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<Grant> {
        self.find_by(token, TokenHash::is)
    }

    /// The work is the same for every token, known or not and of any length: one hash, one lookup in the table, one comparison of
    /// whole hashes. The time of a lookup depends on the token's hash and the table's random key, so it tells nothing about
    /// the known hashes.
    fn find_by(&self, token: &str, is: impl FnOnce(&TokenHash, &TokenHash) -> Choice) -> Option<Grant> {
        let hash = TokenHash::of(token);
        let found = self.known.get(&hash.short());
        let is_known = bool::from(is(&hash, &found.map_or(TokenHash::of_no_token(), |known| known.hash)));
        let known = found.filter(|_| is_known)?;
        Some(Grant::of(Rights {
            scopes: known.scopes,
            queue_prefix: known.queue_prefix.clone(),
            rate: known.rate.clone(),
            ..Rights::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scope::Scope, *};

    fn tokens(text: &str, before: Option<&Tokens>) -> Tokens {
        Tokens::new(file::parse(text).unwrap(), before)
    }

    fn row(token: &str, more: &str) -> String {
        format!("[[token]]\nhash = \"{}\"\nscopes = [\"push\"]\n{more}\n", TokenHash::of(token))
    }

    #[test]
    fn a_token_is_found_by_its_text_alone() {
        let tokens = tokens(&(row("fb_one", "queue-prefix = \"a\"") + &row("fb_other", "")), None);
        let grant = tokens.find("fb_one").unwrap();
        assert!(grant.allows(Scope::Push) && !grant.allows(Scope::Admin) && !grant.allows(Scope::Pop));
        assert_eq!(grant.queue_prefix(), Some("a"));
        assert!(tokens.find("fb_other").unwrap().queue_prefix().is_none());
        for token in ["", "fb_", "fb_On", "fb_one ", "fb_onf", "fb_onee"] {
            assert!(tokens.find(token).is_none(), "{token}");
        }
    }

    #[test]
    fn every_token_costs_one_comparison_of_whole_hashes_case_73() {
        let tokens = tokens(&row("fb_one", ""), None);
        for token in ["fb_one", "fb_onf", "", "x", &"fb_".repeat(1000)] {
            let mut compared = 0;
            let found = tokens.find_by(token, |one, other| {
                compared += 1;
                one.is(other)
            });
            assert_eq!((found.is_some(), compared), (token == "fb_one", 1), "{token:.10}");
        }
    }

    #[test]
    fn a_hash_of_which_only_the_first_half_is_right_is_refused() {
        let hash = TokenHash::of("fb_one").to_string();
        let turned = hash[..hash.len() - 1].to_owned() + if hash.ends_with('0') { "1" } else { "0" };
        let tokens = tokens(&format!("[[token]]\nhash = \"{turned}\"\nscopes = [\"push\"]\n"), None);
        assert!(tokens.find("fb_one").is_none());
    }

    #[test]
    fn what_is_in_a_bucket_outlives_the_file_that_it_came_from() {
        let limited = row("fb_one", "rate = 1\nburst = 2");
        let before = tokens(&limited, None);
        before.find("fb_one").unwrap().take(2).unwrap();
        let same = tokens(&limited, Some(&before));
        assert!(same.find("fb_one").unwrap().take(1).is_err());
        let other = tokens(&row("fb_one", "rate = 1\nburst = 3"), Some(&before));
        assert!(other.find("fb_one").unwrap().take(3).is_ok());
    }
}
