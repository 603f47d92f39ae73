//! A private PostgreSQL server: found, made, started, watched, adopted again and stopped.
//!
//! The daemon runs one as `--postgres embedded`, and every test that needs PostgreSQL runs its own, with the same code.
//! Plain blocking code on the standard library: callers that must not block call it from a thread of their own.
//!
//! ```text
//!   TestCluster   Watch            a cluster for one test; a thread that keeps one running
//!        └────┬────┘
//!          Cluster                 open, start, stop, is_alive, url
//!             │
//!      start     init              adopt or launch, and wait; initdb, whole or not at all
//!        └────┬────┘
//!   launch  process  wire          as whom and with what rights; pid file; "do you accept?"
//!   layout  settings  account      paths; configuration files; the unprivileged account
//!   binaries                       which PostgreSQL
//! ```
//!
//! # What it promises
//! - A cluster is reached through a unix socket in a directory of mode 0700, and nowhere else, unless TCP was asked for.
//! - PostgreSQL never runs as root: it runs as the account that owns the cluster (`postgres` or `nobody` if we are root).
//! - A data directory appears under its name only when `initdb` has finished; an interrupted one is made again.
//! - `fsync` stays on, whatever else the settings say, unless they say that.
//! - The server outlives the process that started it, which may be killed with -9, and is adopted by the next one.
//!   There is never a second server on one data directory.
//! - Every wait is bounded, and an error carries the end of the server's log where that says why.
//!
//! # What it refuses
//! - Versions other than [`MIN_MAJOR`] to [`MAX_MAJOR`], and a data directory made by another major version.
//! - A socket directory in a shared place that is not the account's own and private.
//! - To touch a cluster it did not make: a data directory without `PG_VERSION` is an error, not something to repair.
//!
//! # Files below the directory of a cluster
//! | name | content |
//! |---|---|
//! | `pgdata/` | PostgreSQL's data directory; the account's |
//! | `pgdata.init-*` | the same, unfinished |
//! | `run/` | the socket; the account's. In `/tmp` if its path would exceed 107 bytes or holds a comma |
//! | `forebay.conf`, `pg_hba.conf` | settings and access rules, rewritten at each start |
//! | `server.log`, `server.log.1` | what the server wrote, at most 16 MiB each |
//! | `start.lock` | held by the process that makes or starts the cluster |

mod account;
mod binaries;
mod cluster;
mod error;
mod init;
mod launch;
mod layout;
mod limits;
mod process;
mod settings;
mod start;
mod test_cluster;
mod watch;
mod wire;

pub use binaries::{BINDIR_VARIABLE, Binaries, find_binaries};
pub use cluster::{Cluster, ClusterConfig, StopMode};
pub use error::ClusterError;
pub use launch::LentCapability;
pub use limits::{DEFAULT_PORT, MAX_MAJOR, MAX_SOCKET_PATH_BYTES, MIN_MAJOR};
pub use test_cluster::{TestCluster, TestOptions};
pub use watch::Watch;
