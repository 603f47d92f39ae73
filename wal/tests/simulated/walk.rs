//! A random walk: a log on the simulated disk runs, crashes and is recovered, again and again. The model checks it.

use crate::{
    disk::{SimulatedDisk, faults::SyncFailure},
    random::Random,
    script::{Died, SEGMENT_BYTES, Script, may_fail},
};
use forebay_wal::{segments::PrepareError, storage::Storage};

const LANES_MAX: u64 = 3;
const LIVES: u64 = 6;
const STEPS: u64 = 120;
const CAPACITY_BYTES: usize = 40 * SEGMENT_BYTES as usize;

/// Runs the walk. Panics if an invariant does not hold.
pub fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut script = new_script(&mut random);
    for life in 0..LIVES {
        choose_options(&mut script, &mut random);
        // A crash during recovery, now and then twice.
        while random.once_in(3) {
            script.disk.die_after(1 + random.below(60));
            let survived = script.recover().is_ok();
            script.disk.crash_randomly(&mut random);
            if survived {
                break;
            }
        }
        script.disk.heal();
        // A log that does not exist yet cannot be made without room.
        if life > 0 && random.once_in(2) {
            choose_room(&script, &mut random);
        }
        script.open();
        match random.below(6) {
            0..3 => script.disk.die_after(1 + random.below(400)),
            3 => script.disk.fail_nth(1 + random.below(400), random.once_in(2)),
            _ => {}
        }
        live(&mut script, &mut random, STEPS);
        // A killed process leaves its writes to the kernel. If the machine crashes, unsynced writes may be lost.
        script.kill();
        if !random.once_in(3) {
            script.disk.crash_randomly(&mut random);
        }
    }
    script.disk.set_room(None);
    script.options.lanes = 1;
    script.options.quota_bytes = u64::MAX;
    script.recover_and_check();
}

/// A log with a random number of lanes, not yet opened.
pub fn new_script(random: &mut Random) -> Script {
    let mut script = Script::new(1);
    script.disk = SimulatedDisk::new(CAPACITY_BYTES);
    choose_options(&mut script, random);
    script
}

fn choose_options(script: &mut Script, random: &mut Random) {
    script.options.lanes = 1 + random.below(LANES_MAX) as u16;
    script.options.quota_bytes = (6 + random.below(20)) * SEGMENT_BYTES;
}

/// Performs random operations until `steps` are done or the process ends.
pub fn live(script: &mut Script, random: &mut Random, steps: u64) {
    for _ in 0..steps {
        if random.once_in(400) {
            // The other kind of failure leaves gaps among records that nobody was answered for. Case 27 covers it.
            script.disk.fail_next_sync(SyncFailure::Dropped);
        }
        if random.once_in(50) {
            choose_room(script, random);
        }
        let lane = random.below(script.lanes.len() as u64) as usize;
        let writable = script.lanes[lane].lane < script.options.lanes;
        let outcome = match random.below(10) {
            0..=3 if writable => {
                may_fail(script.append(lane, &sizes(random)));
                Ok(())
            }
            4..=6 => write(script, random, lane),
            7 => keep(script),
            8 => {
                let count = random.below(20) as usize;
                let drained = script.drain(lane, count);
                drained.and_then(|_| script.release(lane)).map(drop).map_err(|_| Died)
            }
            _ if random.once_in(40) => return,
            _ if random.once_in(2) => settle(script, lane),
            _ if writable && random.once_in(3) => {
                // Only an idle lane takes a seal. It is written like any group.
                script.lanes[lane].commit.seal(script.model.next_number);
                Ok(())
            }
            _ => Ok(()),
        };
        if outcome.is_err() {
            return;
        }
    }
}

/// Sizes of the bodies of a batch.
fn sizes(random: &mut Random) -> Vec<usize> {
    let count = 1 + if random.once_in(3) { random.below(8) } else { 0 };
    let bounds = [10, 300, 5_000, 20_000];
    let mut size = || {
        let bound = bounds[random.below(4) as usize];
        random.below(bound) as usize
    };
    (0..count).map(|_| size()).collect()
}

/// Starts a write of the lane, or completes the one in flight. Now and then it is a short write.
fn write(script: &mut Script, random: &mut Random, lane: usize) -> Result<(), Died> {
    let blocks = if random.once_in(8) { 1 + random.below(4) as usize } else { usize::MAX };
    if script.begin(lane, blocks).is_none() {
        script.complete(lane, blocks)?;
    }
    Ok(())
}

/// Lets the disk take any bytes, or only so many.
fn choose_room(script: &Script, random: &mut Random) {
    let room_bytes = [0, 2 * SEGMENT_BYTES, 40 * SEGMENT_BYTES][random.below(3) as usize];
    script.disk.set_room((!random.once_in(2)).then(|| random.below(room_bytes + 1) as usize));
}

fn settle(script: &mut Script, lane: usize) -> Result<(), Died> {
    match script.settle(lane) {
        Err(error) if !error.is_no_room() && script.disk.list(script.layout.root()).is_err() => Err(Died),
        _ => Ok(()),
    }
}

fn keep(script: &mut Script) -> Result<(), Died> {
    match script.keep() {
        // On a full disk the requests keep waiting.
        Ok(()) | Err(PrepareError::Quota) => Ok(()),
        Err(PrepareError::Failed(_)) if script.disk.list(script.layout.root()).is_ok() => Ok(()),
        Err(PrepareError::Failed(_)) => Err(Died),
    }
}
