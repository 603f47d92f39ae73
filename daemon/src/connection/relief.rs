//! Whose request is refused when there is no memory for others: the slowest of those who hold some.

use super::{
    registry::Registry,
    watch::{Slowness, Watch},
};
use crate::{limits::MEMORY_PATIENCE, memory::Budget};
use std::{cmp::Reverse, rc::Rc};

/// Takes memory back, as much as those lack who wait for some, from the slowest of those who hold some. It takes it from clients
/// who are too slow for what they hold; once somebody has waited for long, from the slowest one in any case. A token that
/// holds more than its part comes first. Returns from how many it took some.
pub(super) fn relieve(registry: &Registry, budget: &Budget) -> usize {
    let Some(shortage) = budget.shortage() else { return 0 };
    let holders = registry.holders();
    let is_refused = |watch: &&Rc<Watch>| watch.holding().is_refused();
    let coming: usize = holders.iter().filter(is_refused).map(|watch| watch.holding().bytes()).sum();
    let mut missing = shortage.missing_bytes.saturating_sub(coming);
    let is_patient = u128::from(shortage.wait_ms) < MEMORY_PATIENCE.as_millis();
    let mut candidates: Vec<(Slowness, &Rc<Watch>)> =
        holders.iter().filter(|watch| !is_refused(watch)).filter_map(|watch| Some((slowness(watch)?, watch))).collect();
    candidates.sort_by_key(|(slowness, watch)| {
        let holding = watch.holding();
        (!budget.exceeds_share(holding.owner()), *slowness, Reverse(holding.bytes()))
    });
    let mut taken = 0;
    for (slowness, watch) in candidates {
        if missing == 0 {
            break;
        }
        if slowness < Slowness::ENOUGH || !is_patient && taken == 0 && coming == 0 {
            watch.take_memory_back();
            missing = missing.saturating_sub(watch.holding().bytes());
            taken += 1;
        }
    }
    if taken > 0 {
        budget.wake_all();
    }
    taken
}

/// One that waits for more itself, and whose client could not show yet how fast it is, counts as fast enough.
fn slowness(watch: &Watch) -> Option<Slowness> {
    watch.slowness().or_else(|| watch.holding().waits_for_body().then_some(Slowness::ENOUGH))
}
