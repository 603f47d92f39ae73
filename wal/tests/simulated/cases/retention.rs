//! Retained segments on a disk that is too small for them, and in crashes.

use super::{SECTOR_BYTES, after_every_crash, goes_on};
use crate::{
    disk::faults::ENOSPC,
    script::{SEGMENT_BYTES, Script},
};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A log that fills a disk of six segments with retained ones, many times over. It refuses nothing.
fn life() -> Script {
    let mut script = Script::opened();
    script.disk.set_capacity(6 * SEGMENT_BYTES as usize + SECTOR_BYTES, ENOSPC);
    script.segments.as_mut().unwrap().set_retention(DAY);
    for _ in 0..60 {
        script.answer(0, &[30_000]);
        script.drain_all();
        script.keep().unwrap();
    }
    let segments = script.segments.as_ref().unwrap();
    assert!(
        segments.early_releases() > 0 && segments.retained_bytes() > 0,
        "{} were given up",
        segments.early_releases()
    );
    script
}

#[test]
fn case_39_on_a_full_disk_what_is_retained_makes_room_before_anything_is_refused() {
    after_every_crash(life, goes_on);
}

#[test]
fn case_38_at_the_quota_what_is_retained_makes_room_before_anything_is_refused() {
    let mut script = Script::new(2);
    script.options.quota_bytes = 8 * SEGMENT_BYTES;
    script.open();
    script.segments.as_mut().unwrap().set_retention(DAY);
    for round in 0..120 {
        script.answer(round % 2, &[30_000]);
        script.drain_all();
        script.keep().unwrap();
        assert!(script.segments.as_ref().unwrap().total_bytes() <= 8 * SEGMENT_BYTES);
    }
    let segments = script.segments.as_ref().unwrap();
    assert!(segments.early_releases() > 0 && segments.retained_bytes() > 0);
    goes_on(&mut script);
}
