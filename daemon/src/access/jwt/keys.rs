//! Keys that tokens are signed with.

use crate::private_files::FileError;
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use std::fmt;

/// Why a set of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Its file is not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not a JWKS.
    #[error("it is not a JWKS: {0}")]
    Json(#[from] serde_json::Error),
    /// None of its keys is of a supported kind.
    #[error("it has no key for RS256 (2048 to 8192 bits), ES256 or EdDSA (Ed25519)")]
    NoUsableKey,
}

/// A key, and the one algorithm that it is for.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.algorithm, self.id)
    }
}

#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a shared secret, for HS256.
    pub(super) fn add_secret(&mut self, secret: &[u8]) {
        self.0.push(Key { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) });
    }

    /// Adds the keys of a set (RFC 7517 section 5). Keys of another use or of an unknown kind are left out, as the RFC says.
    ///
    /// # Errors
    /// [`JwksError`] when it is no set, or no key of it can be used.
    pub(super) fn add_set(&mut self, text: &str) -> Result<(), JwksError> {
        let set: Set = serde_json::from_str(text)?;
        let before = self.0.len();
        let all = set.keys.len();
        self.0.extend(set.keys.into_iter().filter_map(key));
        match self.0.len() - before {
            0 => Err(JwksError::NoUsableKey),
            used => {
                if used < all {
                    tracing::warn!(used, left_out = all - used, "some keys of the set cannot be used");
                }
                Ok(())
            }
        }
    }

    /// The key for a token: the one that it names, or the only one of its algorithm if it names none.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&Key> {
        let mut of_algorithm = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            // A shared secret has no name, so its signer may give it any.
            Some(id) => of_algorithm.find(|key| key.id.as_deref() == Some(id) || algorithm == Algorithm::HS256),
            None => {
                let only = of_algorithm.next();
                if of_algorithm.next().is_some() { None } else { only }
            }
        }
    }
}

/// A set is public, so a shared secret in it (kind `oct`) is left out.
fn key(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|r#use| *r#use != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|algorithm| algorithm != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let key = match key.kind() {
        // ring wants numbers without leading zeros, and some issuers write them.
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let (n, e) = (without_zeros(n), without_zeros(e));
            if !(RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&n.len()) {
                return None;
            }
            DecodingKey::from_rsa_raw_components(n, e)
        }
        DecodingKeyKind::SecretOrDer(_) => key,
    };
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

/// Sizes of RSA keys that ring verifies with, in bytes.
const RSA_BYTES_MIN: usize = 2048 / 8;
const RSA_BYTES_MAX: usize = 8192 / 8;

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
