//! The order in which a round looks at the log: the counter of numbers first, then each lane's durable end.
//!
//! It is a function of its own, so that `daemon/tests/order_loom.rs` can walk every interleaving of this code.

/// Reads the counter, **then** the ends. A round takes the records below both.
///
/// Suppose that m2 was sent after m1 was answered. If m2 is below the counter, m1 was durable before the counter was read, so it
/// is before the end that is read afterwards. In the other order both could become durable after an end is read and before the
/// counter is: m2 would be below the counter, and m1 behind its lane's end.
pub fn snapshot<E>(counter: impl FnOnce() -> u64, ends: impl FnOnce() -> E) -> (u64, E) {
    let below = counter();
    (below, ends())
}
