//! Every limit of this crate, with its reason.

use std::time::Duration;

/// Oldest PostgreSQL major version accepted. 13 is the first with what the schema needs and the oldest the contract names.
pub const MIN_MAJOR: u32 = 13;

/// Newest PostgreSQL major version accepted: the newest one known to behave as this crate expects.
pub const MAX_MAJOR: u32 = 18;

const _: () = assert!(MIN_MAJOR <= MAX_MAJOR);

/// Longest path of a unix socket, in bytes: `sun_path` has 108, the last one is the terminating zero (unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The port in the socket's name where nothing else is asked for. Only a name: every cluster has a directory of its own.
pub const DEFAULT_PORT: u16 = 5432;

/// How long a start is repeated after an unclean end. Children of a postmaster killed with -9 keep its shared memory
/// attached until they notice, and PostgreSQL refuses to start meanwhile.
pub(crate) const UNCLEAN_RETRY: Duration = Duration::from_secs(10);

/// How long a start may take in all. Long, since crash recovery replays up to `max_wal_size` of WAL.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How long an ordered stop may take where the caller does not say. The shutdown checkpoint is the long part.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one exchange on the socket may take before the server counts as not accepting.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `CREATE DATABASE` may take: it copies a template of some 8 MB and runs a checkpoint.
pub(crate) const CREATE_DATABASE_TIMEOUT: Duration = Duration::from_secs(120);

/// Shortest and longest pause between two looks at a starting or stopping server.
pub(crate) const POLL_MIN: Duration = Duration::from_millis(5);
/// See [`POLL_MIN`]. Each look at a server in recovery leaves a line in its log, so not shorter.
pub(crate) const POLL_MAX: Duration = Duration::from_millis(250);

/// How often the watch looks whether the server lives.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_millis(200);

/// Shortest and longest pause between two restarts by the watch.
pub(crate) const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// See [`RESTART_BACKOFF_MIN`].
pub(crate) const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How many restarts in a row may fail before a person is asked for help.
pub(crate) const RESTART_FAILURES_BEFORE_ERROR: u32 = 5;

/// Looks in a row that find the server alive but its socket file gone before the watch restarts it (5 seconds):
/// a server restarted by hand lacks its socket for a moment.
pub(crate) const SOCKET_MISSING_LOOKS: u32 = 25;

/// Size at which the server's log is set aside as `server.log.1`, in bytes. At most twice this is kept.
pub(crate) const LOG_MAX_BYTES: u64 = 16 << 20;

/// How many looks of the watch lie between two looks at the log's size (one minute).
pub(crate) const LOG_CHECK_LOOKS: u32 = 300;

/// How many of the last lines of the server's log an error carries, and at most how many bytes of it are read for them.
pub(crate) const LOG_TAIL_LINES: usize = 20;
/// See [`LOG_TAIL_LINES`].
pub(crate) const LOG_TAIL_BYTES: u64 = 16 << 10;

const _: () = assert!(LOG_TAIL_BYTES < LOG_MAX_BYTES);

/// Age below which a test directory without an owner is left alone: its owner may be about to lock it.
pub(crate) const TEST_SWEEP_MIN_AGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_that_installs_postgresql_accepts_the_same_versions() {
        let script = include_str!("../../scripts/install-deps.sh");
        assert!(script.contains(&format!("\nMIN_MAJOR={MIN_MAJOR}\nMAX_MAJOR={MAX_MAJOR}\n")));
    }
}
