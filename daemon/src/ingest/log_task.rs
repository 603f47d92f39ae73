//! The tasks that drive a lane: one takes in what the disk completes, the other gives it the next group.

use super::lane_writer::LaneWriter;
use crate::{rt, rt::Turns};
use std::{io, rc::Rc, time::Duration};

/// Starts both on this thread. `pauses`: whether a write takes longer than a pause of the thread, so that pausing pays.
///
/// # Errors
/// When the system has no descriptor left.
pub fn spawn(writer: &Rc<LaneWriter>, pauses: bool) -> io::Result<()> {
    let completing = Rc::clone(writer);
    rt::spawn_on_event(writer.lane().event(), move || {
        completing.on_event();
        true
    })?;
    let turns = Turns::new()?;
    rt::spawn(write_groups(Rc::clone(writer), turns, pauses));
    Ok(())
}

async fn write_groups(writer: Rc<LaneWriter>, mut turns: Turns, pauses: bool) {
    let pause = |duration: Duration| {
        if pauses {
            rt::pause_thread(duration);
        }
    };
    loop {
        writer.write_wanted.notified().await;
        let mut turn = async || turns.turn().await;
        writer.window.pause_early(&mut turn, pause).await;
        let is_waiting = writer.lane().is_waiting();
        if is_waiting {
            writer.window.closed(|| writer.is_large(), turn, pause).await;
            writer.write_group();
        }
    }
}
