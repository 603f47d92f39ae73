//! A random walk: a log on the simulated disk lives, dies and is recovered, again and again, and the model says what must
//! hold.

use crate::{
    disk::{SimulatedDisk, faults::SyncFailure},
    random::Random,
    script::{Died, SEGMENT_BYTES, Script},
};
use forebay_wal::{segments::PrepareError, storage::Storage};

const LANES_MAX: u64 = 3;
const LIVES: u64 = 6;
const STEPS: u64 = 120;
const CAPACITY_BYTES: usize = 40 * SEGMENT_BYTES as usize;

/// Walks to the end; panics where an invariant is broken.
pub fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut script = new_script(&mut random);
    for _ in 0..LIVES {
        choose_options(&mut script, &mut random);
        // A crash in the midst of recovery, now and then twice.
        while random.once_in(3) {
            script.disk.die_after(1 + random.below(60));
            let survived = script.recover().is_ok();
            script.disk.crash_randomly(&mut random);
            if survived {
                break;
            }
        }
        script.disk.heal();
        script.open();
        match random.below(6) {
            0..3 => script.disk.die_after(1 + random.below(400)),
            3 => script.disk.fail_nth(1 + random.below(400), random.once_in(2)),
            _ => {}
        }
        live(&mut script, &mut random, STEPS);
        // Killed, the process leaves everything to the kernel; with the machine, what is not synced may go.
        script.kill();
        if !random.once_in(3) {
            script.disk.crash_randomly(&mut random);
        }
    }
    script.options.lanes = 1;
    script.options.quota_bytes = u64::MAX;
    script.recover_and_check();
}

/// A log yet to be opened, of a random number of lanes.
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

/// Does something at random, until `steps` are done or the process ends.
pub fn live(script: &mut Script, random: &mut Random, steps: u64) {
    for _ in 0..steps {
        if random.once_in(400) {
            // What stays readable until a crash makes gaps among records that nobody was answered for: case 27 looks at it.
            script.disk.fail_next_sync(SyncFailure::Dropped);
        }
        let lane = random.below(script.lanes.len() as u64) as usize;
        let writable = script.lanes[lane].lane < script.options.lanes;
        let outcome = match random.below(10) {
            0..=3 if writable => {
                // Refused, it is not submitted.
                drop(script.append(lane, &sizes(random)));
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
            _ if writable && random.once_in(3) => {
                // Only an idle lane is sealed; the seal is then written as any group.
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

/// Starts an operation of the lane, or completes the one under way. Now and then a write is short.
fn write(script: &mut Script, random: &mut Random, lane: usize) -> Result<(), Died> {
    let blocks = if random.once_in(8) { 1 + random.below(4) as usize } else { usize::MAX };
    if script.begin(lane, blocks).is_none() {
        script.complete(lane, blocks)?;
    }
    Ok(())
}

fn keep(script: &mut Script) -> Result<(), Died> {
    match script.keep() {
        // A full disk is no end: what waits goes on waiting.
        Ok(()) | Err(PrepareError::Quota) => Ok(()),
        Err(PrepareError::Failed(_)) if script.disk.list(script.layout.root()).is_ok() => Ok(()),
        Err(PrepareError::Failed(_)) => Err(Died),
    }
}
