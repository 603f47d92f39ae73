//! What the daemon takes of the system, and the rights that it gives up after that.

use super::{ServeError, private_postgres, setup};
use crate::{
    access::Gate,
    config::{Config, PostgresTarget},
    connection::listener::bind_all,
    datadir::DataDir,
    limits::CONNECTIONS_PER_CORE_MAX,
    preflight::check_io_uring,
    process::{
        allowed_cpus, make_room_for_descriptors, raise_descriptor_limit, raise_locked_memory_limit,
        survive_file_size_limit,
    },
};
use forebay_cluster::{Helper, find_binaries};
use forebay_os::rights::{keep_only, with_only, without_capabilities};
use rustix::{fs::Mode, thread::CapabilitySet};
use std::{net::SocketAddr, os::fd::OwnedFd};

/// What the daemon takes of the system while it has all its capabilities.
pub(super) struct Taken {
    pub(super) gate: Gate,
    /// The processors that it may use.
    pub(super) cpus: Vec<usize>,
    pub(super) connections_max: u64,
    pub(super) data_dir: DataDir,
    /// One for each core.
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) address: SocketAddr,
    pub(super) helper: Option<Helper>,
}

/// Takes it, and gives all capabilities up but the one that rings need. As root the daemon still may use what belongs to root.
pub(super) fn take(config: &Config) -> Result<Taken, ServeError> {
    // Other accounts may use only what is given to them by name.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_locked_memory_limit();
    // With the capabilities that there are when rings are made.
    with_only(CapabilitySet::IPC_LOCK, || check_io_uring().map_err(setup)).map_err(setup)??;
    let connections_max = raise_descriptor_limit();
    survive_file_size_limit().map_err(setup)?;
    let gate = without_capabilities(|| Gate::open(config).map_err(setup)).map_err(setup)??;
    let cpus = allowed_cpus();
    let cores = config.cores.unwrap_or(cpus.len().clamp(1, usize::from(u16::MAX)) as u16);
    make_room_for_descriptors(connections_max.min(u64::from(cores) * u64::from(CONNECTIONS_PER_CORE_MAX)));
    // Before the address is bound: a socket that shares it would take another daemon's connections.
    let is_embedded = matches!(config.postgres, PostgresTarget::Embedded);
    let data_dir = DataDir::open(&config.data_dir, is_embedded)?;
    if is_embedded {
        find_binaries().map_err(setup)?;
    }
    let (sockets, address) = bind_all(config.listen, usize::from(cores))?;
    let helper = is_embedded.then(|| private_postgres::start_helper(config, &data_dir)).transpose().map_err(setup)?;
    // Memory of rings counts against the limit of locked memory, of all processes of the account together, unless they were made
    // with this.
    keep_only(CapabilitySet::IPC_LOCK).map_err(setup)?;
    Ok(Taken { gate, cpus, connections_max, data_dir, sockets, address, helper })
}
