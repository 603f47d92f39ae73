//! Runs a core: sets it up, and does what is due from time to time.

use super::{
    listener,
    server::{CoreFailed, Server, ServerStart},
    sweep::ConnectionSweep,
    watch::Timeouts,
};
use crate::{
    config::Sync,
    ids::unix_now,
    ingest::{QuietSeal, spawn_log_task},
    limits::SWEEP_INTERVAL,
    panics::panic_if_planted,
    rt,
    state::pulse::Pulse,
};
use forebay_os::rights::keep_only;
use rustix::thread::CapabilitySet;
use std::{rc::Rc, sync::Arc, time::Instant};

/// Runs a core on the calling thread until the daemon shuts down.
///
/// # Errors
/// [`CoreFailed`].
pub fn run(start: ServerStart) -> Result<(), CoreFailed> {
    if let Some(cpu) = start.cpu {
        pin_to(cpu);
    }
    let mut runtime = rt::runtime(start.connections_max)?;
    runtime.block_on(async move {
        let (config, starting, core) = (Arc::clone(&start.config), start.starting.clone(), start.lane.lane());
        let (mailboxes, pulses) = (Arc::clone(&start.mailboxes), Arc::clone(&start.pulses));
        let server = Rc::new(Server::new(start)?);
        spawn_log_task(&server.lane, config.sync != Sync::None)?;
        let receiving = Rc::clone(&server);
        rt::spawn_on_event(Arc::clone(&mailboxes)[core].event(), move || {
            mailboxes[core].take().into_iter().for_each(|letter| receiving.take_in(letter));
            true
        })?;
        let timeouts = Timeouts::new(config.idle_timeout, config.request_timeout);
        rt::spawn(sweep(Rc::clone(&server), timeouts, pulses, core));
        rt::spawn(listener::accept_all(Rc::clone(&server)));
        // Its rings are made.
        keep_only(CapabilitySet::empty())?;
        if starting.send(()).is_err() {
            tracing::debug!("nobody waits for the core to serve");
        }
        drop(starting);
        server.ended().await;
        Ok(())
    })
}

fn pin_to(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "the core thread could not be pinned");
    }
}

/// Ends what takes too long: waits for commits, and what connections do. Seals the lane when nothing was pushed for a moment.
async fn sweep(server: Rc<Server>, timeouts: Timeouts, pulses: Arc<[Pulse]>, core: u16) {
    let mut seal = QuietSeal::default();
    let mut connections = ConnectionSweep::new(timeouts);
    loop {
        rt::sleep(SWEEP_INTERVAL).await;
        pulses[usize::from(core)].beat();
        let now = Instant::now();
        panic_if_planted("core");
        server.give_up_expired(now);
        server.api.set_date(unix_now());
        connections.sweep(&server, now);
        seal.sweep(&server.lane);
        server.lane.end_long_waits();
        server.end_if_done();
    }
}
