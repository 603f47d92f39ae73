//! What a token says.

use crate::{
    access::{
        TokenError,
        scope::{Scope, Scopes},
    },
    limits::PRODUCER_SUB_BYTES_MAX,
};
use serde_json::Value;

/// What may stand before a scope, to tell it from a scope of another service.
const SCOPE_PREFIX: &str = "forebay:";

/// The claims that the daemon reads, beside those that are checked with the signature.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Claims {
    exp: Value,
    #[serde(default)]
    sub: Value,
    /// RFC 8693 section 4.2.
    #[serde(default)]
    scope: Value,
    /// The same, as several identity services write it.
    #[serde(default)]
    scp: Value,
    /// Roles, as Queen's tokens have them.
    #[serde(default)]
    role: Value,
    #[serde(default)]
    roles: Value,
}

impl Claims {
    /// When it expires, in seconds since 1970.
    pub(super) fn expires_s(&self) -> Option<u64> {
        self.exp.as_u64().or_else(|| self.exp.as_f64().map(|seconds| seconds as u64))
    }

    /// Whom it stands for, if it says so.
    ///
    /// # Errors
    /// [`TokenError::Subject`] when that cannot be kept with a message.
    pub(super) fn subject(&self) -> Result<Option<Box<str>>, TokenError> {
        match &self.sub {
            Value::Null => Ok(None),
            Value::String(subject) if subject.len() <= PRODUCER_SUB_BYTES_MAX && !subject.contains('\0') => {
                Ok((!subject.is_empty()).then(|| subject.as_str().into()))
            }
            _ => Err(TokenError::Subject),
        }
    }

    /// The scopes that it names, and those that its roles stand for.
    pub(super) fn scopes(&self) -> Scopes {
        let mut scopes = Scopes::NONE;
        for word in words(&self.scope).chain(words(&self.scp)) {
            if let Some(scope) = Scope::by_name(word.strip_prefix(SCOPE_PREFIX).unwrap_or(word)) {
                scopes.add(scope);
            }
        }
        for role in words(&self.role).chain(words(&self.roles)) {
            scopes_of_role(role).iter().for_each(|scope| scopes.add(*scope));
        }
        scopes
    }
}

/// In Queen `read-only` allows to read what is stored, which no scope allows here.
fn scopes_of_role(role: &str) -> &'static [Scope] {
    match role {
        "admin" => &[Scope::Push, Scope::Pop, Scope::Admin],
        "read-write" => &[Scope::Push, Scope::Pop],
        _ => &[],
    }
}

/// The words of a text, or of a list of texts.
fn words(value: &Value) -> impl Iterator<Item = &str> {
    let texts = match value {
        Value::Array(texts) => texts.as_slice(),
        one => std::slice::from_ref(one),
    };
    texts.iter().filter_map(Value::as_str).flat_map(str::split_ascii_whitespace)
}
