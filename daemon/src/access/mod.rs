//! Who may do what: bearer tokens, JSON Web Tokens, and which web pages may ask.
//!
//! A request's token is looked at once its head is there, before its body is read and before anything is done. What it is
//! for ([`Grant`]) is kept with the connection, so that the next request with the same `Authorization` costs a comparison.
//!
//! ```text
//!   Access::check ──> Cache (of the connection) ── the same token, the same generation ──> Grant
//!         │                                                                                 ▲
//!         └─────────> State ──> tokens: by hash ──> jwt: by signature ──────────────────────┘
//!   Access::reload (SIGHUP) puts another State in its place and begins another generation
//! ```
//!
//! Promised: nothing that a request presents is compared with what is kept in a time that depends on where they differ.
//! Refused: files that others may write to, and a reload from a file that cannot be read, which leaves all as it was.

mod gate;
mod grant;
pub mod jwt;
pub mod rate;
mod scope;
pub mod token;
pub mod tokens;

pub use gate::Gate;
pub use grant::Grant;
pub use scope::{Scope, Scopes};

use crate::{
    config::AccessConfig,
    http::{ErrorCode, Refusal},
    ids::unix_now,
};
use jwt::Jwt;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use subtle::ConstantTimeEq;
use tokens::Tokens;

/// What an endpoint asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRequest {
    /// Nothing: everybody may.
    Nothing,
    /// A token, whatever it is for.
    Token,
    /// A token for this.
    Scope(Scope),
}

/// Who may do what in this daemon.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    /// Counts the states, so that a connection sees that what it remembers is of an earlier one.
    generation: AtomicU64,
    state: RwLock<Arc<State>>,
}

/// What is known of tokens.
#[derive(Debug)]
struct State {
    tokens: Option<Tokens>,
    jwt: Option<Jwt>,
}

impl State {
    fn load(config: &AccessConfig, before: Option<&Self>) -> Result<Self, String> {
        let known = before.and_then(|before| before.tokens.as_ref());
        let tokens =
            config.tokens_file.as_ref().map(|path| Ok::<_, String>(Tokens::new(tokens::file::read(path)?, known)));
        let jwt = config.jwt.as_ref().map(Jwt::load);
        Ok(Self { tokens: tokens.transpose()?, jwt: jwt.transpose()? })
    }

    /// What a token grants, and until when, in seconds since 1970.
    fn find(&self, token: &str) -> Result<(Grant, u64), &'static str> {
        if let Some(grant) = self.tokens.as_ref().and_then(|tokens| tokens.find(token)) {
            return Ok((grant, u64::MAX));
        }
        match &self.jwt {
            Some(jwt) if token.contains('.') => jwt.verify(token).map(|verified| (verified.grant, verified.until_s)),
            _ => Err("the token is not known"),
        }
    }

    fn tell(&self, what: &'static str) {
        let tokens = self.tokens.as_ref().map(Tokens::len);
        let jwt_keys = self.jwt.as_ref().map(Jwt::key_count);
        tracing::info!(tokens, jwt_keys, "{what}");
    }
}

/// What a connection remembers of its last token.
#[derive(Debug, Default)]
pub struct Cache {
    generation: u64,
    /// The whole header's value; empty: none.
    authorization: Vec<u8>,
    grant: Grant,
    until_s: u64,
}

impl Cache {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authorization.is_empty()
    }
}

impl Access {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn open(config: &AccessConfig) -> Result<Self, String> {
        let state = State::load(config, None)?;
        if config.is_on() {
            state.tell("access is controlled");
        }
        // 0 is what an unused cache has.
        Ok(Self { config: config.clone(), generation: AtomicU64::new(1), state: RwLock::new(Arc::new(state)) })
    }

    /// Whether anybody needs a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Reads all files again. If one of them is not as it should be, everything stays as it was.
    pub fn reload(&self) {
        if !self.is_on() {
            return;
        }
        let before = self.state();
        match State::load(&self.config, Some(&before)) {
            Ok(state) => {
                state.tell("tokens and keys were read again");
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
                self.generation.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(code = "access_not_reloaded", %error, "tokens and keys stay what they were");
            }
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the sender of a request with this `Authorization` may do, if that is what is asked.
    ///
    /// # Errors
    /// 401 where nobody is known to have sent it, 403 where whoever did may not.
    pub fn check(
        &self,
        cache: &mut Cache,
        authorization: Option<&str>,
        request: AccessRequest,
    ) -> Result<Grant, Refusal> {
        if !self.is_on() || request == AccessRequest::Nothing {
            return Ok(Grant::everything());
        }
        let authorization = authorization.ok_or_else(|| unauthorized("a token is needed: Authorization: Bearer …"))?;
        let grant = self.grant(cache, authorization).map_err(unauthorized)?;
        match request {
            AccessRequest::Scope(scope) if !grant.allows(scope) => Err(Refusal::new(
                ErrorCode::Forbidden,
                format!("the token is not for this: it lacks the scope {}", scope.name()),
            )),
            _ => Ok(grant),
        }
    }

    fn grant(&self, cache: &mut Cache, authorization: &str) -> Result<Grant, &'static str> {
        // Read before the state is: if there is another one meanwhile, what is remembered is believed once too rarely.
        let generation = self.generation.load(Ordering::Acquire);
        // Behind a proxy a connection may be others' too, who must not find the token by trying.
        if cache.generation == generation
            && bool::from(cache.authorization.ct_eq(authorization.as_bytes()))
            && (cache.until_s == u64::MAX || unix_now().as_secs() <= cache.until_s)
        {
            return Ok(cache.grant.clone());
        }
        let (grant, until_s) = self.state().find(bearer(authorization)?)?;
        cache.generation = generation;
        cache.authorization.clear();
        cache.authorization.extend_from_slice(authorization.as_bytes());
        cache.grant = grant.clone();
        cache.until_s = until_s;
        Ok(grant)
    }
}

/// The token of an `Authorization`: behind `Bearer`, in any case of letters, or alone, as Queen takes it too.
fn bearer(authorization: &str) -> Result<&str, &'static str> {
    match authorization.split_once(' ') {
        None => Ok(authorization),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_ascii()),
        Some(_) => Err("the only scheme of Authorization that is understood is Bearer"),
    }
}

fn unauthorized(what: &'static str) -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, what)
}

#[cfg(test)]
mod tests;
