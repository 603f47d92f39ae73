//! Access control: bearer tokens, JSON Web Tokens, and the origins of web pages.
//!
//! A request's token is checked when its head is complete, before its body is read and before anything is done. The connection
//! keeps what the token allows ([`Grant`]), so the next request with the same `Authorization` costs one comparison.
//!
//! ```text
//!   Access::check ──> Cache (of the connection) ── the same token, the same generation ──> Grant ──> Access::renew
//!         │                                                                                 ▲
//!         └─────────> State ──> tokens: by hash ──> jwt: by signature ──────────────────────┘
//!   Access::reload (SIGHUP) puts another State in its place and begins another generation
//! ```
//!
//! Promised: no comparison of a token with a known one takes a time that depends on where they differ.
//! Refused: files that others may write to. A reload from a file that cannot be read changes nothing.

mod gate;
mod grant;
pub mod jwt;
mod origin;
mod own_hosts;
pub mod rate;
mod scope;
pub mod token;
mod token_error;
pub mod tokens;

pub use gate::{Gate, GateError};
pub use grant::Grant;
pub use origin::{LastHost, OriginCheck};
pub use scope::{NoSuchScope, Scope, Scopes};
pub use token_error::TokenError;

use crate::{
    config::AccessConfig,
    http::{ErrorCode, Refusal},
    private_files::AtPath,
};
use grant::Proof;
use jwt::{Jwt, JwtError};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use tokens::{Tokens, file::TokensFileError};

/// What an endpoint asks of the sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRequest {
    /// Nothing.
    Nothing,
    /// Any valid token.
    Token,
    /// A token with this scope.
    Scope(Scope),
    /// A token with one of these scopes.
    Either(Scope, Scope),
}

/// Why tokens or keys are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The tokens file.
    #[error(transparent)]
    Tokens(AtPath<TokensFileError>),
    /// Secret or public keys of JWTs.
    #[error(transparent)]
    Jwt(#[from] JwtError),
}

/// The daemon's access control, shared by all cores.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    /// Counts the states. A connection's cache is valid for one of them.
    generation: AtomicU64,
    state: RwLock<Arc<State>>,
}

/// The tokens and keys that are known.
#[derive(Debug)]
struct State {
    tokens: Option<Tokens>,
    jwt: Option<Jwt>,
}

impl State {
    fn load(config: &AccessConfig, before: Option<&Self>) -> Result<Self, AccessError> {
        let tokens = match &config.tokens_file {
            Some(path) => {
                let rows = tokens::file::read(path).map_err(AtPath::new(path)).map_err(AccessError::Tokens)?;
                Some(Tokens::new(rows, before.and_then(|before| before.tokens.as_ref())))
            }
            None => None,
        };
        Ok(Self { tokens, jwt: config.jwt.as_ref().map(Jwt::load).transpose()? })
    }

    /// What a token grants, and when that ends, in seconds since 1970.
    fn find(&self, token: &str) -> Result<(Grant, u64), TokenError> {
        if let Some(grant) = self.tokens.as_ref().and_then(|tokens| tokens.find(token)) {
            return Ok((grant, u64::MAX));
        }
        match &self.jwt {
            Some(jwt) if token.contains('.') => jwt.verify(token).map(|verified| (verified.grant, verified.until_s)),
            _ => Err(TokenError::Unknown),
        }
    }

    fn log(&self, what: &'static str) {
        let tokens = self.tokens.as_ref().map(Tokens::len);
        let jwt_keys = self.jwt.as_ref().map(Jwt::key_count);
        tracing::info!(tokens, jwt_keys, "{what}");
    }
}

/// What the last token of a connection grants.
#[derive(Debug, Default)]
pub struct Cache(Grant);

impl Cache {
    /// Whether it holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.authorization().is_none()
    }
}

impl Access {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn open(config: &AccessConfig) -> Result<Self, AccessError> {
        let state = State::load(config, None)?;
        if config.is_on() {
            state.log("access is controlled");
        }
        // An unused cache has generation 0.
        Ok(Self { config: config.clone(), generation: AtomicU64::new(1), state: RwLock::new(Arc::new(state)) })
    }

    /// Whether requests need a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Reads all files again. If one of them is wrong, nothing changes.
    pub fn reload(&self) {
        if !self.is_on() {
            return;
        }
        let before = self.state();
        match State::load(&self.config, Some(&before)) {
            Ok(state) => {
                let state = Arc::new(state);
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&state);
                self.generation.fetch_add(1, Ordering::Release);
                // It is told once it counts.
                state.log("tokens and keys were read again");
            }
            Err(error) => {
                tracing::error!(code = "access_not_reloaded", %error, "tokens and keys stay as they were");
            }
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the sender of a request with this `Authorization` may do.
    ///
    /// # Errors
    /// 401 if the endpoint asks for a token and this is no valid one, 403 if the token lacks the scope.
    pub fn check(
        &self,
        cache: &mut Cache,
        authorization: Option<&str>,
        request: AccessRequest,
    ) -> Result<Grant, Refusal> {
        if !self.is_on() || request == AccessRequest::Nothing {
            return Ok(Grant::everything());
        }
        let authorization = authorization.ok_or(TokenError::Missing)?;
        let grant = self.grant(cache, authorization)?;
        check_scope(&grant, request)?;
        Ok(grant)
    }

    /// Looks again whether what was granted for `request` still is: for whatever goes on after its head was read. It costs next to
    /// nothing unless tokens and keys were read again, or the token has ended.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn renew(&self, grant: &mut Grant, request: AccessRequest) -> Result<(), Refusal> {
        if let Some(renewed) = self.renewed(grant, request)? {
            *grant = renewed;
        }
        Ok(())
    }

    /// As [`renew`](Self::renew). Returns what is granted now, if it was looked for.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn renewed(&self, grant: &Grant, request: AccessRequest) -> Result<Option<Grant>, Refusal> {
        if grant.is_current(self.generation.load(Ordering::Acquire)) {
            return Ok(None);
        }
        let authorization = grant.authorization().ok_or(TokenError::Missing)?;
        let renewed = self.grant(&mut Cache::default(), authorization)?;
        check_scope(&renewed, request)?;
        Ok(Some(renewed))
    }

    /// Whether this `Authorization` shows a valid token. A page of a stranger cannot show one. It can make a browser send Basic
    /// credentials, which are none.
    pub fn is_verified(&self, cache: &mut Cache, authorization: Option<&str>) -> bool {
        self.is_on() && authorization.is_some_and(|authorization| self.grant(cache, authorization).is_ok())
    }

    fn grant(&self, cache: &mut Cache, authorization: &str) -> Result<Grant, TokenError> {
        // Read before the state: if a reload comes between, the grant is stale at once instead of too late.
        let generation = self.generation.load(Ordering::Acquire);
        if cache.0.is_proved_by(authorization, generation) {
            return Ok(cache.0.clone());
        }
        let (grant, until_s) = self.state().find(bearer(authorization)?)?;
        cache.0 = grant.proved(Proof { authorization: authorization.into(), generation, until_s });
        Ok(cache.0.clone())
    }
}

fn check_scope(grant: &Grant, request: AccessRequest) -> Result<(), Refusal> {
    match request {
        AccessRequest::Scope(scope) if !grant.allows(scope) => Err(Refusal::new(
            ErrorCode::Forbidden,
            format!("the token is not for this: it lacks the scope {}", scope.name()),
        )),
        AccessRequest::Either(one, other) if !grant.allows(one) && !grant.allows(other) => {
            let text = format!("the token is not for this: it lacks the scopes {} and {}", one.name(), other.name());
            Err(Refusal::new(ErrorCode::Forbidden, text))
        }
        _ => Ok(()),
    }
}

/// The token of an `Authorization`: after `Bearer` in any case of letters, or alone, as Queen accepts it.
fn bearer(authorization: &str) -> Result<&str, TokenError> {
    match authorization.split_once(' ') {
        None => Ok(authorization),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_ascii()),
        Some(_) => Err(TokenError::Scheme),
    }
}

#[cfg(test)]
mod tests;
