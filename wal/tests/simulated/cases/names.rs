//! Cases 27 to 33: syncs and names.

use super::{after_every_crash, goes_on, recovered_records};
use crate::{
    disk::{
        Fate,
        faults::{EIO, Kind, SyncFailure},
    },
    script::{SEGMENT_BYTES, Script, may_fail},
};
use forebay_wal::{
    group::AppendRefusal,
    limits::{GROUP_BYTES_MAX, QUEUED_BYTES_MAX},
    segments::PrepareError,
};

#[test]
fn case_27_a_sync_that_fails_once_and_then_succeeds_is_never_believed() {
    for how in [SyncFailure::Dropped, SyncFailure::Cached] {
        let life = || {
            let mut script = Script::new(1);
            script.open();
            script.answer(0, &[100]);
            script.append(0, &[5000]).unwrap();
            script.disk.fail_next_sync(how);
            assert!(script.write(0).is_err());
            // The next sync succeeds all the same.
            let path = script.segment(1);
            assert!(script.disk.sync_path(&path).is_ok());
            assert_eq!(script.append(0, &[100]), Err(AppendRefusal::Poisoned));
            assert!(script.begin(0, usize::MAX).is_none());
            assert!(!script.submitted(2).answered);
            script
        };
        after_every_crash(life, goes_on);
        let mut script = life();
        script.kill();
        // After a kill without a crash the kernel may show what it never wrote. Records that nobody was answered for are then
        // read until a crash. After the crash they are missing before later records, and are reported.
        script.model.is_damaged = how == SyncFailure::Cached;
        goes_on(&mut script);
        assert!(recovered_records(&script).starts_with(&[1]));
    }
}

/// Bytes of the segments' files, which count for the quota.
fn segment_bytes_on_disk(script: &Script) -> u64 {
    let is_segment = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "seg");
    script.disk.files().iter().filter(|(path, _)| is_segment(path)).map(|(_, length)| *length as u64).sum()
}

#[test]
fn case_28_a_segment_whose_name_was_not_made_durable_is_not_used_and_is_made_again() {
    let life = || {
        let mut script = Script::opened();
        script.answer(0, &[30_000]);
        script.disk.fail_next(Kind::SyncDir, EIO);
        assert!(matches!(script.keep(), Err(PrepareError::Failed(_))));
        script
    };
    let mut script = life();
    assert_eq!(script.lanes[0].commit.ready_segments(), 0, "it is not used");
    assert_eq!(script.append(0, &[40_000]), Err(AppendRefusal::Busy));
    script.keep().unwrap();
    let counted = script.segments.as_ref().unwrap().total_bytes();
    assert_eq!(counted, segment_bytes_on_disk(&script), "nothing of the attempt that failed counts for the quota");
    script.answer(0, &[40_000]);
    script.crash_all(Fate::Lost);
    goes_on(&mut script);
    after_every_crash(life, goes_on);
}

/// A log that released a drained segment and failed to sync its directory.
fn released_but_not_durably() -> Script {
    let mut script = Script::opened();
    for _ in 0..4 {
        script.answer(0, &[40_000]);
    }
    script.drain(0, usize::MAX).unwrap();
    script.disk.fail_next(Kind::SyncDir, EIO);
    script.release(0).unwrap_err();
    script
}

#[test]
fn case_28_a_release_whose_directory_sync_failed_is_no_loss_and_is_made_durable_later() {
    after_every_crash(released_but_not_durably, goes_on);
    // The freed file gets another header. A crash must not bring that header back under the old name.
    at_every_operation(released_but_not_durably, |script| {
        script.keep().is_ok() && script.append(0, &[40_000]).is_ok() && script.write(0).is_ok()
    });
}

#[test]
fn case_29_a_crash_right_after_a_roll_over_with_the_directory_not_yet_synced_loses_nothing() {
    // The disk fails at each operation that makes the segment and writes to it.
    let life = || {
        let mut script = Script::opened();
        script.answer(0, &[40_000]);
        script
    };
    at_every_operation(life, |script| {
        script.keep().is_ok() && script.append(0, &[40_000]).is_ok() && script.write(0).is_ok()
    });
}

/// Lets the disk die at the first operation of `then`, in another run at the second, and so on to the last. After each run the
/// machine crashes in every way, and the log must continue.
fn at_every_operation(life: impl Fn() -> Script, then: impl Fn(&mut Script) -> bool) {
    for operation in 1.. {
        let mut reached_the_end = true;
        for way in 0..super::CRASHES {
            let mut script = life();
            script.disk.die_after(operation);
            reached_the_end &= then(&mut script);
            super::crash(&mut script, way);
            goes_on(&mut script);
        }
        if reached_the_end {
            return;
        }
    }
}

#[test]
fn case_30_a_removal_that_a_crash_undoes_brings_back_a_drained_segment_and_nothing_is_drained_twice() {
    // The crash keeps so many of the release's changes of names.
    for kept in 0..12 {
        let mut script = Script::opened();
        for _ in 0..6 {
            script.answer(0, &[40_000]);
        }
        script.drain(0, 4).unwrap();
        script.disk.fail_next(Kind::SyncDir, EIO);
        script.release(0).unwrap_err();
        script.crash(kept, |_, _| Fate::Lost);
        script.open();
        // The model panics if a record comes twice or is missing.
        script.drain_all();
        assert_eq!(script.model.waiting(), 0);
        goes_on(&mut script);
    }
    // Without a durable checkpoint: PostgreSQL keeps its commits, and the log keeps what the last durable checkpoint does not
    // cover. Here there is none.
    let mut script = Script::opened();
    for _ in 0..6 {
        script.answer(0, &[40_000]);
    }
    script.crash_all(Fate::Lost);
    script.open();
    assert_eq!(script.release(0).unwrap(), 0, "nothing was drained");
    assert_eq!(recovered_records(&script), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn case_31_a_file_system_that_turns_read_only_still_lets_the_log_be_read_and_drained() {
    let mut script = Script::opened();
    for _ in 0..4 {
        script.answer(0, &[30_000]);
    }
    script.append(0, &[100]).unwrap();
    script.disk.set_read_only(true);
    assert!(script.write(0).is_err());
    assert_eq!(script.append(0, &[100]), Err(AppendRefusal::Poisoned));
    assert!(matches!(script.keep(), Ok(()) | Err(PrepareError::Failed(_))));
    script.drain(0, usize::MAX).unwrap();
    assert_eq!(script.model.waiting(), 0, "all that was answered is drained");
    script.release(0).unwrap_err();
    script.kill();
    script.disk.set_read_only(true);
    // An unfinished tail needs another segment, a finished one does not. Either way nothing is lost.
    may_fail(script.recover());
    script.disk.set_read_only(false);
    script.crash_all(Fate::Lost);
    goes_on(&mut script);
}

#[test]
fn case_32_during_a_sync_of_thirty_seconds_the_lane_collects_within_its_bound_and_answers_nobody() {
    const SEGMENT: u64 = 8 << 20;

    let mut script = Script::new(1);
    script.options.segment_bytes = SEGMENT;
    script.options.quota_bytes = 64 * SEGMENT;
    script.disk.set_capacity(64 * SEGMENT as usize, EIO);
    script.open();
    script.answer(0, &[100]);
    script.append(0, &[100]).unwrap();
    script.begin(0, usize::MAX);
    let (mut refused, mut last) = (0, 2);
    for _second in 0..30 {
        for _ in 0..20 {
            script.keep().unwrap();
            match script.append(0, &[100_000]) {
                Ok(records) => last = records[0],
                Err(AppendRefusal::Busy) => refused += 1,
                Err(refused) => panic!("{refused:?}"),
            }
            let queued = script.lanes[0].commit.queued_bytes();
            assert!(queued <= QUEUED_BYTES_MAX + GROUP_BYTES_MAX, "{queued} bytes wait");
        }
        assert!(script.begin(0, usize::MAX).is_none(), "one write at a time");
        assert_eq!(script.lanes[0].commit.durable_ordinal(), 1, "nobody is answered");
    }
    assert!(refused > 0 && last > 100, "{refused} refused, {last} taken");
    script.complete(0, usize::MAX).unwrap();
    script.write(0).unwrap();
    assert_eq!(script.lanes[0].commit.durable_ordinal(), last);
    script.crash_all(Fate::Lost);
    script.open();
    assert_eq!(script.model.waiting() as u64, last);
    // After a crash during the sync only answered records count.
    script.append(0, &[100]).unwrap();
    script.begin(0, usize::MAX);
    script.crash_all(Fate::Zero);
    script.open();
}

#[test]
fn case_33_when_the_disk_is_gone_every_call_says_so_and_nothing_is_concluded_from_it() {
    let mut script = Script::opened();
    for _ in 0..4 {
        script.answer(0, &[30_000]);
    }
    script.append(0, &[100]).unwrap();
    script.disk.die_after(0);
    script.drain(0, usize::MAX).unwrap_err();
    may_fail(script.release(0).map(|released| assert_eq!(released, 0)));
    assert!(script.write(0).is_err());
    may_fail(script.keep());
    assert_eq!(script.lanes[0].commit.durable_ordinal(), 4);
    script.kill();
    script.disk.die_after(0);
    assert!(script.recover().is_err());
    script.disk.heal();
    script.open();
    script.drain_all();
    assert_eq!(script.model.waiting(), 0);
    goes_on(&mut script);
    assert!(segment_bytes_on_disk(&script) <= 64 * SEGMENT_BYTES);
}
