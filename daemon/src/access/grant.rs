//! What the sender of a request may do.

use super::{
    rate::Rate,
    scope::{Scope, Scopes},
};
use std::{rc::Rc, sync::Arc, time::Duration};

/// What the sender of a request may do. A clone shares the rights.
#[derive(Clone, Debug, Default)]
pub struct Grant(Option<Rc<Rights>>);

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
