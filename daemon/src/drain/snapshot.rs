//! In which order a round looks at the log: the counter of numbers first, then each lane's durable end.
//!
//! In a function of its own, so that `daemon/tests/order_loom.rs` walks every interleaving of what stands here.

/// Reads the counter, **then** the ends. A round takes what is below both.
///
/// If m2 was sent after m1 was answered and m2 is below the counter, m1 was durable before the counter was read, and is
/// before the end that is read after it. The other way round m1 may become durable, and m2 after it, between an end that is
/// read and a counter that is read later.
pub fn snapshot<E>(counter: impl FnOnce() -> u64, ends: impl FnOnce() -> E) -> (u64, E) {
    let below = counter();
    (below, ends())
}
