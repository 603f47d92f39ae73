//! Why a request's token is not accepted.

use crate::http::{ErrorCode, Refusal};

/// Why a request's token is not accepted, as its sender is told. Nothing of it tells a stranger which tokens there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is needed: Authorization: Bearer …")]
    Missing,
    /// `Authorization` has another scheme.
    #[error("the only scheme of Authorization that is supported is Bearer")]
    Scheme,
    /// It is no token of the tokens file, and has not the form of a JWT.
    #[error("the token is not known")]
    Unknown,
    /// A JWT whose form or signature is wrong, or that no key is for.
    #[error("the token is not valid")]
    Invalid,
    /// A JWT whose `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// A JWT whose `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A JWT with another `iss`.
    #[error("the token is of another issuer")]
    Issuer,
    /// A JWT with another `aud`.
    #[error("the token is for another audience")]
    Audience,
    /// A JWT without a claim that it must have.
    #[error("the token lacks a claim: exp, or iss or aud where they are configured")]
    MissingClaim,
    /// A JWT whose `sub` cannot be kept with a message.
    #[error("the token's sub must be a string of at most 255 bytes without U+0000")]
    Subject,
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::new(ErrorCode::Unauthorized, error.to_string())
    }
}
