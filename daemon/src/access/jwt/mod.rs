//! JSON Web Tokens: whose they are, whether they hold, and what they are for.
//!
//! A key serves one algorithm, the one that it was given for, so a token cannot talk the daemon into another: a public key is
//! never a secret, and `none` is no algorithm. Signatures are checked by `ring`, which TLS is built on as well.

mod claims;
mod keys;
mod on_ring;

#[cfg(test)]
mod tests;

use super::grant::{Grant, Rights};
use crate::config::JwtConfig;
use crate::{
    private_files,
    private_files::{Guard, of_path},
};
use claims::Claims;
use jsonwebtoken::{Validation, errors::ErrorKind};
use keys::Keys;

/// Least bytes of a shared secret: as many as HS256 signs with (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Keys, and what a token must say besides being signed with one of them.
#[derive(Debug)]
pub struct Jwt {
    keys: Keys,
    rules: JwtConfig,
}

/// A token that holds.
#[derive(Debug)]
pub struct Verified {
    /// What it grants.
    pub grant: Grant,
    /// Until when, in seconds since 1970, the leeway included.
    pub until_s: u64,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn load(config: &JwtConfig) -> Result<Self, String> {
        on_ring::install();
        let mut keys = Keys::default();
        if let Some(secret) = &config.secret {
            check_secret(secret.bytes()).map_err(|what| format!("FOREBAY_JWT_SECRET {what}"))?;
            keys.add_secret(secret.bytes());
        }
        if let Some(path) = &config.secret_file {
            let text = private_files::read(path, Guard::Reading)?;
            // The end of the line is the editor's.
            let secret = text.trim_end_matches(['\r', '\n']).as_bytes();
            check_secret(secret).map_err(|what| of_path(path, &what))?;
            keys.add_secret(secret);
        }
        if let Some(path) = &config.jwks_file {
            keys.add_set(&private_files::read(path, Guard::Writing)?).map_err(|error| of_path(path, &error))?;
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
    /// Why it is not taken, for whoever sent it.
    pub fn verify(&self, token: &str) -> Result<Verified, &'static str> {
        const INVALID: &str = "the token is not valid";
        let header = jsonwebtoken::decode_header(token).map_err(|_| INVALID)?;
        // What it says must be understood is not (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(INVALID);
        }
        let key = self.keys.find(header.alg, header.kid.as_deref()).ok_or(INVALID)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation(key)).map_err(|error| {
            // These are looked at behind the signature only, so they tell a stranger nothing.
            match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token does not hold yet",
                ErrorKind::InvalidIssuer => "the token is of another issuer",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::MissingRequiredClaim(_) => {
                    "the token lacks a claim: exp, or iss or aud where they are asked for"
                }
                _ => INVALID,
            }
        })?;
        let until_s = data.claims.expires_s().ok_or(INVALID)?.saturating_add(self.rules.leeway.as_secs());
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

fn check_secret(secret: &[u8]) -> Result<(), String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!("has {} bytes; HS256 needs at least {SECRET_BYTES_MIN}", secret.len()));
    }
    Ok(())
}
