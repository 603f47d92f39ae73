//! A PostgreSQL client for the monoio runtime on io_uring.
//!
//! ```text
//!   Connection ── Pipeline, Flight, CopyIn, Statement, CancelToken  operations (conn, pipeline, flight, copy_in, notify)
//!       │             connect: hosts, addresses, log-in           (connect, resolve, passfile, session_kind)
//!      Wire ──────────────── Deadline                             driver: bytes between both sides (wire, deadline)
//!       │    │    │
//!    Socket  │    core: ReadBuffer ► Backend ► Session, exchanges the protocol without I/O (core)
//!       │   Tls   │                                               records in, bytes out, and back (tls)
//!    io_uring   types: Param, Row, BinaryCopy                     values (types)
//!
//!   Config ◄── settings ◄── address, environment                  where, as whom, how (config_url, env, options)
//! ```
//!
//! # What it does
//! - Unix sockets and TCP; TLS 1.2 and 1.3 by `sslmode`, with certificates on both sides; trust, cleartext, MD5,
//!   SCRAM-SHA-256 and SCRAM-SHA-256-PLUS; several hosts and `target_session_attrs`.
//! - Simple queries; prepared and unnamed statements with parameters and results in binary; pipelines; COPY FROM STDIN;
//!   notices, notifications and parameters; cancelling; deadlines for every operation.
//! - Addresses, libpq's variables and `~/.pgpass`, as libpq reads them.
//!
//! # What it promises
//! - No bytes of a server make it panic, and none make it keep more than [`core::limits`] says, besides the rows that
//!   were asked for.
//! - An operation ends: with its result, an error, or [`Error::Timeout`] soon after its deadline. The deadline shuts
//!   the socket down, so the connection is broken afterwards, and says so. Without a deadline it waits for ever, but
//!   for a TCP peer that has gone silent, which the kernel notices after about a minute ([`TcpOptions`]).
//! - After an error of the server the connection is in step and usable; after a failure of the connection every
//!   operation gives [`Error::Closed`].
//! - Decisions can be made by [`SqlState`]; no text has to be read.
//! - A connection that has to be encrypted is so before anything is said but the wish for it, and bytes slipped in
//!   before do not count. A password leaves in clear through TLS or a unix socket only.
//! - A COPY of any size passes through memory of one size: [`CopyIn::write`] returns when the kernel has taken all.
//! - The thread is not held up by the look-up of a name, which is made beside it.
//!
//! # What it refuses
//! - A SCRAM server that does not prove itself, SASL mechanisms other than SCRAM, GSSAPI.
//! - A server's certificate that is an authority's own, or that names its host as common name only.
//! - COPY TO, and COPY outside of [`Connection::copy_in`]: the connection is given up.
//! - Threads: a connection stays on the thread, and in the runtime, that opened it.
//!
//! # Where it departs from libpq
//! - `sslmode=allow` is `prefer`. `prefer` goes on in the open where the server says that it has no TLS, not where TLS
//!   fails, and never looks at a certificate.
//! - A file that `sslrootcert` names has to be there, with `require` as well.
//! - A password in clear is not sent over TCP in the open.
//! - `connect_timeout` is for all hosts together, 10 s by default; keep-alive and `tcp_user_timeout` are on.
//! - A variable or parameter that it does not know and that says where to connect or whom to trust is an error.
//!
//! # Example
//! ```
//! use forebay_pgwire::{BinaryCopy, Config, Connection, Error, Param};
//!
//! async fn store(config: &Config, payloads: &[&[u8]]) -> Result<u64, Error> {
//!     let mut conn = Connection::connect(config).await?;
//!     conn.simple("BEGIN").await?;
//!     let rows = conn.query_once("SELECT id FROM topics WHERE name = $1", &[Param::Text("orders")]).await?;
//!     let Some(topic) = rows.first() else { return Ok(0) };
//!     let topic_id = topic.get_i64(0)?;
//!
//!     let mut encoder = BinaryCopy::start();
//!     let mut copy = conn.copy_in("COPY messages (topic_id, payload) FROM STDIN (FORMAT binary)").await?;
//!     for payload in payloads {
//!         encoder.row(2);
//!         encoder.i64(topic_id);
//!         encoder.jsonb(payload);
//!         if encoder.bytes().len() > 256 * 1024 {
//!             copy.write(encoder.bytes()).await?;
//!             encoder.clear();
//!         }
//!     }
//!     let sent = encoder.finish()?;
//!     copy.write(encoder.bytes()).await?;
//!     let stored = copy.finish().await?;
//!     assert_eq!(sent, stored);
//!     conn.simple("COMMIT").await?;
//!     Ok(stored)
//! }
//!
//! # let cluster = forebay_cluster::TestCluster::start_without_fsync().unwrap();
//! # cluster.psql("CREATE TABLE topics (id bigint, name text); INSERT INTO topics VALUES (7, 'orders')").unwrap();
//! # cluster.psql("CREATE TABLE messages (topic_id bigint, payload jsonb)").unwrap();
//! # let url = cluster.url();
//! // For example postgres://forebay@db.example/queue?sslmode=verify-full&sslrootcert=/etc/ssl/private-ca.pem
//! let config = Config::from_url_and_env(&url, |name| std::env::var(name).ok())?;
//! let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
//! let stored = runtime.block_on(store(&config, &[br#"{"total": 1}"#, br#"{"total": 2}"#]))?;
//! assert_eq!(stored, 2);
//! # Ok::<(), Error>(())
//! ```
#![forbid(unsafe_code)]

mod config;
mod config_url;
mod conn;
mod connect;
mod copy_in;
pub mod core;
mod db_error;
mod deadline;
mod env;
mod error;
mod flight;
mod notify;
mod options;
mod passfile;
mod pipeline;
mod request;
mod resolve;
mod session_kind;
mod settings;
mod socket;
mod sqlstate;
mod statement;
mod tls;
pub mod types;
mod wire;

pub use config::{Config, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, DEFAULT_SOCKET_DIR, Endpoint, Host};
pub use conn::Connection;
pub use connect::CancelToken;
pub use copy_in::CopyIn;
pub use core::{CommandTag, Failure, Notification, QueryResult, StatementResult, TransactionStatus};
pub use db_error::{DbError, Severity};
pub use error::{
    AuthError, CertificateProblem, ColumnError, ColumnProblem, ConfigError, Error, PassFileWarning, ProtocolError,
    TlsError,
};
pub use flight::Flight;
pub use options::{ChannelBinding, RootCert, SslMode, TargetSession, TcpOptions, TlsOptions};
pub use pipeline::{Pipeline, PipelineOutcome};
pub use sqlstate::{SqlClass, SqlState};
pub use statement::Statement;
pub use types::oid::{self, Oid};
pub use types::{BinaryCopy, Column, Format, Param, Row};
