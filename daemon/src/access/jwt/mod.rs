//! JSON Web Tokens: who issued them, whether they are valid, and what they allow.
//!
//! A key serves one algorithm, the one that it was given for, so a token cannot choose another: a public key is never a shared
//! secret, and `none` is no algorithm. `ring` checks the signatures, as it does for TLS.

mod claims;
mod keys;
mod on_ring;

#[cfg(test)]
mod tests;

pub use keys::JwksError;

use super::{
    TokenError,
    grant::{Grant, Rights},
};
use crate::{
    config::{JWT_SECRET_VARIABLE, JwtConfig},
    private_files,
    private_files::{AtPath, FileError, Guard},
};
use claims::Claims;
use jsonwebtoken::{Validation, errors::ErrorKind};
use keys::Keys;
use std::path::Path;

/// Least bytes of a shared secret: as many as HS256 signs with (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Why a shared secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is too short to be safe.
    #[error("the secret has {bytes} bytes; HS256 needs at least {SECRET_BYTES_MIN}")]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// Its file is not read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why JWTs cannot be checked as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The secret in the environment.
    #[error("{JWT_SECRET_VARIABLE}: {0}")]
    SecretVariable(SecretError),
    /// The file of the secret.
    #[error(transparent)]
    SecretFile(AtPath<SecretError>),
    /// The file of the public keys.
    #[error(transparent)]
    Jwks(AtPath<JwksError>),
}

/// Keys, and what a token must say besides being signed with one of them.
#[derive(Debug)]
pub struct Jwt {
    keys: Keys,
    rules: JwtConfig,
}

/// A valid token.
#[derive(Debug)]
pub struct Verified {
    /// What it grants.
    pub grant: Grant,
    /// When it expires, in seconds since 1970, the leeway included.
    pub until_s: u64,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn load(config: &JwtConfig) -> Result<Self, JwtError> {
        on_ring::install();
        let mut keys = Keys::default();
        if let Some(secret) = &config.secret {
            check_secret(secret.bytes()).map_err(JwtError::SecretVariable)?;
            keys.add_secret(secret.bytes());
        }
        if let Some(path) = &config.secret_file {
            let secret = read_secret(path).map_err(AtPath::new(path)).map_err(JwtError::SecretFile)?;
            keys.add_secret(&secret);
        }
        if let Some(path) = &config.jwks_file {
            let text = private_files::read(path, Guard::Writing).map_err(JwksError::from);
            let added = text.and_then(|text| keys.add_set(&text));
            added.map_err(AtPath::new(path)).map_err(JwtError::Jwks)?;
        }
        Ok(Self { keys, rules: config.clone() })
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// What this token grants.
    ///
    /// # Errors
    /// [`TokenError`]: why it is not accepted.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // `crit` lists extensions that must be understood, and none is (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let key = self.keys.find(header.alg, header.kid.as_deref()).ok_or(TokenError::Invalid)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation(key)).map_err(|error| {
            // The library checks claims only after the signature, so they tell a stranger nothing.
            match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYetValid,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::MissingRequiredClaim(_) => TokenError::MissingClaim,
                _ => TokenError::Invalid,
            }
        })?;
        let expires_s = data.claims.expires_s().ok_or(TokenError::Invalid)?;
        let until_s = expires_s.saturating_add(self.rules.leeway.as_secs());
        let scopes = data.claims.scopes();
        let subject = data.claims.subject()?;
        Ok(Verified { grant: Grant::of(Rights { scopes, subject, ..Rights::default() }), until_s })
    }

    fn validation(&self, key: &keys::Key) -> Validation {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.rules.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.rules.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.rules.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let text = private_files::read(path, Guard::Reading)?;
    // Editors end the last line.
    let secret = text.trim_end_matches(['\r', '\n']).as_bytes();
    check_secret(secret)?;
    Ok(secret.to_vec())
}

fn check_secret(secret: &[u8]) -> Result<(), SecretError> {
    let bytes = secret.len();
    if bytes < SECRET_BYTES_MIN { Err(SecretError::TooShort { bytes }) } else { Ok(()) }
}
