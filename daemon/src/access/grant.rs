//! What the sender of a request may do.

use super::{
    rate::Rate,
    scope::{Scope, Scopes},
};
use crate::ids::unix_now;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use subtle::ConstantTimeEq;

/// What the sender of a request may do. A clone shares the rights.
#[derive(Clone, Debug, Default)]
pub struct Grant(Option<Rc<Rights>>);

/// How the sender proved what it may do, and how long that holds.
#[derive(Default)]
pub(super) struct Proof {
    /// The header's whole value.
    pub(super) authorization: Box<str>,
    /// The state of tokens and keys with which it was checked.
    pub(super) generation: u64,
    /// When the token ends, in seconds since 1970.
    pub(super) until_s: u64,
}

impl Proof {
    /// Whether nothing was taken back since, as far as is known.
    fn holds(&self, generation: u64) -> bool {
        self.generation == generation && (self.until_s == u64::MAX || unix_now().as_secs() <= self.until_s)
    }
}

/// Without the token.
impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { authorization: _, generation, until_s } = self;
        f.debug_struct("Proof").field("generation", generation).field("until_s", until_s).finish_non_exhaustive()
    }
}

/// What is granted where access is controlled.
#[derive(Debug, Default)]
pub(super) struct Rights {
    pub(super) scopes: Scopes,
    /// The prefix of the queues that it is for.
    pub(super) queue_prefix: Option<Arc<str>>,
    /// The rate of messages, shared by all who have the same token.
    pub(super) rate: Option<Arc<Rate>>,
    /// The `sub` of a valid JWT.
    pub(super) subject: Option<Box<str>>,
    /// Filled in where the token was shown.
    pub(super) proof: Proof,
    /// Whose memory a request with it takes.
    pub(super) owner: u64,
}

impl Grant {
    /// Everything, as when access is not controlled.
    #[must_use]
    pub const fn everything() -> Self {
        Self(None)
    }

    pub(super) fn of(rights: Rights) -> Self {
        Self(Some(Rc::new(rights)))
    }

    /// The same, proved so.
    ///
    /// # Panics
    /// If somebody else has it already.
    pub(super) fn proved(mut self, proof: Proof) -> Self {
        let rights = self.0.as_mut().and_then(Rc::get_mut);
        let Some(rights) = rights else { panic!("a grant is proved once, before it is handed out") };
        let mut hasher = DefaultHasher::new();
        match &rights.subject {
            // Whoever gets one token after the other is the same all the same.
            Some(subject) => subject.hash(&mut hasher),
            None => proof.authorization.hash(&mut hasher),
        }
        rights.owner = hasher.finish();
        rights.proof = proof;
        self
    }

    /// Whether it needs no proof, or has one that holds.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.0.as_ref().is_none_or(|rights| rights.proof.holds(generation))
    }

    /// Whether this `Authorization` proves it, still.
    pub(super) fn is_proved_by(&self, authorization: &str, generation: u64) -> bool {
        // A proxy may share a connection among clients, and none of them may find another's token by trying.
        self.0.as_ref().is_some_and(|rights| {
            rights.proof.holds(generation)
                && bool::from(rights.proof.authorization.as_bytes().ct_eq(authorization.as_bytes()))
        })
    }

    /// The `Authorization` that proved it.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.0.as_ref().map(|rights| &*rights.proof.authorization)
    }

    /// Whose memory a request takes: a number for each token, or each subject of JWTs. `None` without access control.
    #[must_use]
    pub fn owner(&self) -> Option<u64> {
        self.0.as_ref().map(|rights| rights.owner)
    }

    /// Whether `scope` is granted.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.0.as_ref().is_none_or(|rights| rights.scopes.has(scope))
    }

    /// Whether messages of this queue are granted.
    #[must_use]
    pub fn allows_queue(&self, queue: &str) -> bool {
        self.queue_prefix().is_none_or(|prefix| queue.starts_with(prefix))
    }

    /// The prefix that the names of queues must have.
    #[must_use]
    pub fn queue_prefix(&self) -> Option<&str> {
        self.0.as_ref()?.queue_prefix.as_deref()
    }

    /// The sender as a JWT's `sub` names it, for `producerSub`; at most 255 bytes.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.as_ref()?.subject.as_deref()
    }

    /// Counts messages that are about to be pushed.
    ///
    /// # Errors
    /// How long to wait if that is too many for now; none of them was counted then.
    pub fn take(&self, messages: u64) -> Result<(), Duration> {
        match self.0.as_ref().and_then(|rights| rights.rate.as_ref()) {
            Some(rate) => rate.take(messages),
            None => Ok(()),
        }
    }

    /// Takes messages off the count that were not pushed after all.
    pub fn give_back(&self, messages: u64) {
        if let Some(rate) = self.0.as_ref().and_then(|rights| rights.rate.as_ref()) {
            rate.give_back(messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_access_control_everything_is_granted() {
        let grant = Grant::everything();
        assert!(Scope::ALL.into_iter().all(|scope| grant.allows(scope)));
        assert!(grant.allows_queue("any") && grant.take(u64::MAX).is_ok() && grant.subject().is_none());
    }

    #[test]
    fn a_prefix_is_the_beginning_of_the_queue_s_name_and_not_more() {
        let grant = Grant::of(Rights { queue_prefix: Some("orders.".into()), ..Rights::default() });
        for queue in ["orders.", "orders.eu", "orders.ü"] {
            assert!(grant.allows_queue(queue), "{queue}");
        }
        for queue in ["orders", "order", "", "Orders.eu", " orders.eu", "x.orders."] {
            assert!(!grant.allows_queue(queue), "{queue}");
        }
        assert!(Scope::ALL.into_iter().all(|scope| !grant.allows(scope)));
    }
}
