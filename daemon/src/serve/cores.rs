//! The threads of the cores.

use super::{End, ServeError, Views, tell};
use crate::{
    connection::{self, ServerStart},
    limits::CONNECTIONS_PER_CORE_MAX,
    postgres::worker::PgRequests,
    queue::thread::QueueRequests,
    state::{connection_count::ConnectionCount, memory_shortage::MemoryShortage},
};
use forebay_wal::log::Log;
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

/// The cores' threads, and a word from each that serves.
pub(super) struct Cores {
    threads: Vec<JoinHandle<()>>,
    started: Receiver<()>,
}

pub(super) fn start_cores(
    views: &Arc<Views>,
    log: &mut Log,
    (pg_requests, queue_requests): (&PgRequests, &QueueRequests),
    sockets: Vec<OwnedFd>,
    (cpus, connections_max): (&[usize], u64),
    ends: &Sender<End>,
) -> std::io::Result<Cores> {
    let pinned = sockets.len() <= cpus.len();
    let share = connections_max / sockets.len().max(1) as u64;
    let connections_max = share.clamp(1, CONNECTIONS_PER_CORE_MAX.into()) as u32;
    let mut threads = Vec::new();
    let (starting, started) = channel();
    let connections = Arc::new(ConnectionCount::default());
    let memory = Arc::new(MemoryShortage::default());
    for (index, (lane, socket)) in log.lanes.drain(..).zip(sockets).enumerate() {
        let cpu = pinned.then(|| cpus[index]);
        let (pg_requests, queue_requests) = (pg_requests.clone(), queue_requests.clone());
        let (views, connections, memory) = (Arc::clone(views), Arc::clone(&connections), Arc::clone(&memory));
        let (ends, failing, starting) = (ends.clone(), ends.clone(), starting.clone());
        threads.push(std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
            let start = ServerStart {
                config: Arc::clone(&views.config),
                gate: Arc::clone(&views.gate),
                log: Arc::clone(&views.log),
                drain: Arc::clone(&views.drain),
                health: Arc::clone(&views.health),
                mailboxes: Arc::clone(&views.mailboxes),
                pulses: Arc::clone(&views.pulses),
                pg_requests,
                queue_requests,
                connections,
                memory,
                lane,
                socket,
                cpu,
                connections_max,
                on_failure: Box::new(move |failed| tell(&failing, End::Failed(failed.into()))),
                starting,
            };
            if let Err(failed) = connection::run(start) {
                tell(&ends, End::Failed(failed.into()));
            }
        })?);
    }
    Ok(Cores { threads, started })
}

/// Waits until all cores serve, so that nobody is told of the address before they have what they need of the system.
pub(super) fn when_all_serve(cores: Cores, end: &Receiver<End>) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let serving = cores.started.iter().count();
    // One that does not says why.
    if serving < cores.threads.len()
        && let Ok(End::Failed(error)) = end.recv()
    {
        return Err(error);
    }
    Ok(cores.threads)
}
