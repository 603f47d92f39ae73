//! Scopes: what a token allows.

/// What an endpoint asks of a token. The names are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Pushing messages.
    Push,
    /// Taking messages, and acknowledging them.
    Pop,
    /// Status, dead letters, and what changes queues.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Push, Self::Pop, Self::Admin];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pop => "pop",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A name that is none of a scope.
#[derive(Debug, thiserror::Error)]
#[error("there are push, pop and admin")]
pub struct NoSuchScope;

impl std::str::FromStr for Scope {
    type Err = NoSuchScope;
    fn from_str(name: &str) -> Result<Self, NoSuchScope> {
        Self::by_name(name).ok_or(NoSuchScope)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn add(&mut self, scope: Scope) {
        self.0 |= 1 << scope as u8;
    }

    /// Whether `scope` is in it.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut set = Self::NONE;
        scopes.into_iter().for_each(|scope| set.add(scope));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added_and_nothing_else() {
        for scope in Scope::ALL {
            let set: Scopes = [scope].into_iter().collect();
            assert!(Scope::ALL.into_iter().all(|other| set.has(other) == (other == scope)));
            assert_eq!(Scope::by_name(scope.name()), Some(scope));
        }
        assert!(Scopes::NONE.is_empty());
        assert_eq!(Scope::by_name("Push"), None);
    }
}
