//! Every limit of this crate, with its reason.

use std::time::Duration;

/// Oldest PostgreSQL major version accepted: the oldest that has what the schema needs, and the oldest that the contract
/// names.
pub const MIN_MAJOR: u32 = 13;

/// Newest PostgreSQL major version accepted: the newest known to behave as this crate expects.
pub const MAX_MAJOR: u32 = 18;

const _: () = assert!(MIN_MAJOR <= MAX_MAJOR);

/// Longest path of a unix socket, in bytes: `sun_path` has 108, of which the last is the terminating zero (unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The port in the socket's name if none is configured. Clusters may share it, because each has a directory of its own.
pub const DEFAULT_PORT: u16 = 5432;

/// How long a start is retried after an unclean end. The children of a killed postmaster stay attached to its shared
/// memory until they notice its death, and PostgreSQL refuses to start meanwhile.
pub(crate) const UNCLEAN_RETRY: Duration = Duration::from_secs(10);

/// How long a start may take in all. Crash recovery replays up to `max_wal_size` of WAL, which takes minutes.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a stop may take if the caller gives no limit. Most of it is the shutdown checkpoint.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a log-in may take before the server counts as not accepting connections.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `CREATE DATABASE` may take: it copies a template of about 8 MB and runs a checkpoint.
pub(crate) const CREATE_DATABASE_TIMEOUT: Duration = Duration::from_secs(120);

const _: () = assert!(PING_TIMEOUT.as_millis() < CREATE_DATABASE_TIMEOUT.as_millis());

/// Entries of the ring for one log-in: the fewest that monoio allows. A connection needs two.
pub(crate) const RING_ENTRIES: u32 = 256;

/// Shortest pause between two polls of a starting or stopping server.
pub(crate) const POLL_MIN: Duration = Duration::from_millis(5);
/// Longest such pause. Not shorter, because each poll of a server in recovery adds a line to its log.
pub(crate) const POLL_MAX: Duration = Duration::from_millis(250);

/// How often the watch checks whether the server runs.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_millis(200);

/// Shortest pause between two restarts by the watch.
pub(crate) const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest such pause: a server whose fault is repaired runs again soon after.
pub(crate) const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How many restarts in a row must fail until the watch logs an error. Fewer may be transient.
pub(crate) const RESTART_FAILURES_BEFORE_ERROR: u32 = 5;

/// How many checks in a row must find the server running without its socket file until the watch restarts it (5
/// seconds). A server that is restarted by hand lacks its socket for a moment.
pub(crate) const SOCKET_MISSING_CHECKS: u32 = 25;

/// Size in bytes at which the content of the server's log is moved to `server.log.1`. At most twice this is kept.
pub(crate) const LOG_MAX_BYTES: u64 = 16 << 20;

/// The watch checks the log's size in one of this many checks (once a minute).
pub(crate) const LOG_SIZE_CHECKS: u32 = 300;

/// Bytes that a helper may say: paths, and an error with the end of the server's log.
pub(crate) const HELPER_TEXT_MAX_BYTES: u64 = 256 << 10;

/// Bytes that are read of a configuration file to see whether it is as it should be. What is longer is written anew.
pub(crate) const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// Bytes that are read of a small file of PostgreSQL's, such as its pid file: they have some dozens.
pub(crate) const SMALL_FILE_MAX_BYTES: u64 = 64 << 10;

/// How many of the last lines of the server's log an error contains: enough for PostgreSQL's reason and its context.
pub(crate) const LOG_TAIL_LINES: usize = 20;
/// How many bytes at the end of the log are read for these lines.
pub(crate) const LOG_TAIL_BYTES: u64 = 16 << 10;

const _: () = assert!(LOG_TAIL_BYTES < LOG_MAX_BYTES);

/// Age below which a test directory without an owner is not removed: its owner may be about to lock it.
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
