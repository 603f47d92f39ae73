//! Bearer tokens: how they are made, and the hash that is kept of them.
//!
//! A token is 256 random bits, which nobody finds by trying. A slow hash protects passwords that people choose; here it would
//! only make each request slower. So a token is hashed once, by BLAKE3.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::{Choice, ConstantTimeEq};

/// What every token begins with, so that a published token is recognized by scanners for secrets.
pub const PREFIX: &str = "fb_";

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;

/// What stands before a hash in the tokens file.
const HASH_PREFIX: &str = "blake3:";

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// Makes a token.
///
/// # Errors
/// [`NoRandomness`].
pub fn make() -> Result<String, NoRandomness> {
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The hash of a token's text.
#[derive(Clone, Copy, Debug)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of what a client presents, whatever it is.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }

    /// Reads what [`Display`](std::fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hash = blake3::Hash::from_hex(text.strip_prefix(HASH_PREFIX)?).ok()?;
        Some(Self(*hash.as_bytes()))
    }

    /// A hash that no known token has.
    #[must_use]
    pub const fn of_no_token() -> Self {
        Self([0; 32])
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    #[must_use]
    pub fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// The part of it that serves as the key of a table. The whole hash is compared afterwards.
    #[must_use]
    pub fn short(&self) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0[..16]);
        short
    }
}

impl std::fmt::Display for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{HASH_PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_made_of_what_a_header_can_hold() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert_ne!(one, other);
        for token in [one, other] {
            assert_eq!(token.len(), PREFIX.len() + 43);
            assert!(token.starts_with(PREFIX));
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        }
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is_one() {
        let hash = TokenHash::of("fb_x");
        let text = hash.to_string();
        assert!(bool::from(TokenHash::parse(&text).unwrap().is(&hash)));
        assert!(!bool::from(TokenHash::of("fb_y").is(&hash)));
        for text in
            ["", "blake3:", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.replace("blake3", "md5")]
        {
            assert!(TokenHash::parse(text).is_none(), "{text}");
        }
    }
}
