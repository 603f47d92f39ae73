//! The log on a simulated disk with faults: the numbered cases of the list of faults, and two seeded random walks.
//!
//! `FOREBAY_SEEDS` is the number of seeds of each walk (`make soak-log SEEDS=100000`). `FOREBAY_SEED` replays one seed.
//! `FOREBAY_STOP_EARLY` stops at the first seed that fails (`make mutate-log`).
//!
//! ```text
//!   cases        one test a case        walk, damage_walk   random runs
//!     └───────────────┬──────────────────────────┘
//!   script       a log driven step by step, and the model that checks it
//!     └─ disk    files, names, faults, damage
//! ```

// Test helpers may panic.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod damage_walk;
mod disk;
mod memory;
mod random;
mod script;
mod walk;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

/// Seeds of a walk by default.
const SEEDS: u64 = 300;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs `walk` with every seed, or with the one in `FOREBAY_SEED`.
fn walk_through_seeds(name: &str, walk: fn(u64)) {
    if let Some(seed) = variable("FOREBAY_SEED") {
        return walk(seed);
    }
    let seeds = variable("FOREBAY_SEEDS").unwrap_or(SEEDS);
    let stop_early = std::env::var_os("FOREBAY_STOP_EARLY").is_some();
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || stop_early && failed.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| walk(seed))).is_err() {
                        eprintln!("FOREBAY_SEED={seed} failed the {name}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{name}: {} passed, {failed} failed", seeds - failed);
    assert_eq!(failed, 0, "seeds that failed are printed above");
}

#[test]
fn cases_13_to_26_a_random_walk_of_lives_and_damage_loses_what_it_hit_and_nothing_else() {
    walk_through_seeds("walk of damage", damage_walk::run);
}

#[test]
fn cases_1_to_12_27_to_36_a_random_walk_of_lives_crashes_and_recoveries_keeps_every_invariant() {
    walk_through_seeds("walk of crashes", walk::run);
}
