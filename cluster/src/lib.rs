//! Runs a private PostgreSQL server: finds the binaries, creates the cluster, starts, watches, adopts and stops the
//! server.
//!
//! The daemon runs one for `--postgres embedded`. Each test that needs PostgreSQL runs its own, with the same code. All
//! calls block; callers that must not block use a thread.
//!
//! ```text
//!   TestCluster   Helper           a cluster for one test; a process of its own that keeps a server running
//!        │          Watch            a thread that does
//!        └────┬────┘
//!          Cluster                 open, start, stop, is_alive, url
//!             │
//!      start     init              adopt or launch, then wait; initdb, atomically
//!        └────┬────┘
//!   launch  process  client        account and capability; pid file; log-in and CREATE DATABASE (forebay-pgwire)
//!   layout  settings  account      paths; configuration files; the unprivileged account
//!   binaries                       the installed versions
//! ```
//!
//! # What it promises
//! - A cluster can be reached only through a unix socket in a directory that its account and this process may enter, unless
//!   TCP is configured.
//! - The role that clients use is no superuser, and owns its database. The superuser is `postgres`.
//! - No link is followed below the directory of a cluster. What belongs to the account is used with the account's rights.
//! - PostgreSQL never runs as root. It runs as the account that owns the cluster; if this process is root, that is
//!   `postgres` or `nobody`.
//! - The data directory gets its name only after `initdb` has succeeded. An interrupted `initdb` is repeated.
//! - `fsync` stays on unless the settings switch it off explicitly.
//! - The server survives the process that started it, even if that is killed with SIGKILL. The next process adopts the
//!   server. Two servers never run on one data directory.
//! - Every wait is bounded. If the server's log explains a failure, the error contains its last lines.
//!
//! # What it refuses
//! - Versions other than [`MIN_MAJOR`] to [`MAX_MAJOR`], and a data directory of another major version than the binaries'.
//! - A socket directory in a shared location that is not private to the account.
//! - To change a cluster that it did not create: a data directory without `PG_VERSION` is an error.
//!
//! # Files in the directory of a cluster
//! | name | content |
//! |---|---|
//! | `pgdata/` | PostgreSQL's data directory; belongs to the account |
//! | `pgdata.init-*` | a data directory that `initdb` has not finished |
//! | `run/` | the socket; belongs to the account, and to this process's group if that is root's. In `/tmp` if the path exceeds 107 bytes or contains a comma |
//! | `forebay.conf`, `pg_hba.conf` | settings and access rules, written at each start |
//! | `server.log`, `server.log.1` | the server's log and its predecessor, at most 16 MiB each |
//! | `start.lock` | locked by the process that creates or starts the cluster |

mod account;
mod binaries;
mod client;
mod cluster;
mod error;
mod helper;
mod init;
mod launch;
mod layout;
mod limits;
mod process;
mod settings;
mod start;
mod test_cluster;
mod watch;

pub use binaries::{BINDIR_VARIABLE, Binaries, find_binaries};
pub use cluster::{Cluster, ClusterConfig, StopMode};
pub use error::ClusterError;
pub use helper::{HelpedServer, Helper, HelperError, keep};
pub use limits::{DEFAULT_PORT, MAX_MAJOR, MAX_SOCKET_PATH_BYTES, MIN_MAJOR};
pub use test_cluster::{TestCluster, TestOptions};
pub use watch::Watch;
