//! A flag by which one thread takes back what it has asked of another.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a request was given up by whoever made it. It is set once, by any thread, and its clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Gives the request up. What was sent to PostgreSQL already is carried out.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request was given up.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
