//! A PostgreSQL client for the monoio runtime on io_uring.
//!
//! ```text
//!   Connection ── Pipeline, Flight, CopyIn, Statement, CancelToken  operations (conn, pipeline, flight, copy_in)
//!       │             connect: hosts, addresses, log-in           (connect, resolve, passfile)
//!       │                      the session's settings and kind    (session_settings, session_kind)
//!      Link                                                       one operation at a time (link)
//!       │
//!      Wire ──────────────── Deadline                             driver: bytes from socket to core (wire, deadline)
//!       │    │    │
//!    Socket  │    core: ReadBuffer ► Backend ► Session, exchanges the protocol without I/O (core)
//!       │   Tls   │                                               plain text in, records out, and back (tls)
//!    io_uring   types: Param, Row, BinaryCopy                     values (types)
//!
//!   Config ◄── settings ◄── URL, environment                      settings (config_url, env, options)
//! ```
//!
//! # What it does
//! - Unix sockets and TCP; TLS 1.2 and 1.3 according to `sslmode`, with server and client certificates; the
//!   authentication methods trust, password, MD5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS; several hosts and
//!   `target_session_attrs`.
//! - Simple queries; prepared and unnamed statements with parameters and results in binary format; pipelines; COPY FROM
//!   STDIN; notices, notifications and run-time parameters; cancel requests; deadlines for all operations.
//! - URLs, libpq's environment variables and `~/.pgpass`, read as libpq reads them.
//!
//! # What it promises
//! - No bytes from a server cause a panic. [`core::limits`] bounds the memory that they occupy, except for the requested
//!   rows.
//! - Every operation with a deadline ends: with its result, with an error, or with [`Error::Timeout`] soon after its
//!   deadline. The deadline shuts the socket down, so the connection is broken afterwards. An operation without a
//!   deadline may wait forever, but the kernel ends a TCP connection whose peer has been silent for about a minute
//!   ([`TcpOptions`]).
//! - After an error of the server, the connection can be used. After a failure of the connection, every operation
//!   returns [`Error::Closed`].
//! - Decisions need only the [`SqlState`] of an error, never its text.
//! - A connection that must be encrypted is encrypted before anything except the TLS request is sent. Bytes that arrive
//!   unencrypted before that are refused. A password in clear is sent through TLS or a unix socket only.
//! - Whoever connects chooses the session's `search_path`. With [`SearchPath::System`] no name in a statement means what
//!   another role has created.
//! - A COPY of any size needs a constant amount of memory: [`CopyIn::write`] returns when the kernel has taken all
//!   data.
//! - The look-up of a host name does not block the calling thread.
//!
//! # What it refuses
//! - SCRAM with a server that does not prove its identity, SASL mechanisms other than SCRAM, and GSSAPI.
//! - A server certificate that is itself a certificate authority's, or that contains its host name only as common name.
//! - COPY TO, and any COPY outside of [`Connection::copy_in`] and [`Flight::copy_in`]. Either one closes the connection.
//! - Use from several threads. A connection stays on the thread, and in the runtime, that opened it.
//!
//! # How it differs from libpq
//! - `sslmode=allow` means `prefer`. `prefer` continues without encryption if the server says that it has no TLS, but
//!   not if TLS fails. It never verifies a certificate.
//! - A file that `sslrootcert` names must exist, with `require`, too.
//! - A password in clear is not sent over unencrypted TCP.
//! - `connect_timeout` applies to all hosts together and is 10 s by default. Keep-alive and `tcp_user_timeout` are on
//!   by default.
//! - An unknown variable or parameter that determines where to connect or whom to trust is an error.
//!
//! # Example
//! ```
//! use forebay_pgwire::{BinaryCopy, Config, Connection, Error, Param, SearchPath};
//!
//! async fn store(config: &Config, payloads: &[&[u8]]) -> Result<u64, Error> {
//!     let mut conn = Connection::connect(config, SearchPath::System).await?;
//!     conn.simple("BEGIN").await?;
//!     let rows = conn.query_once("SELECT id FROM shop.topics WHERE name = $1", &[Param::Text("orders")]).await?;
//!     let Some(topic) = rows.first() else { return Ok(0) };
//!     let topic_id = topic.get_i64(0)?;
//!
//!     let mut encoder = BinaryCopy::start();
//!     let mut copy = conn.copy_in("COPY shop.messages (topic_id, payload) FROM STDIN (FORMAT binary)").await?;
//!     for payload in payloads {
//!         encoder.row(2);
//!         encoder.i64(topic_id);
//!         encoder.jsonb(payload);
//!         if encoder.bytes().len() > 256 * 1024 {
//!             copy.write(encoder.bytes()).await?;
//!             encoder.clear();
//!         }
//!     }
//!     let row_count = encoder.finish()?;
//!     copy.write(encoder.bytes()).await?;
//!     let stored = copy.finish().await?;
//!     assert_eq!(row_count, stored);
//!     conn.simple("COMMIT").await?;
//!     Ok(stored)
//! }
//!
//! # let cluster = forebay_cluster::TestCluster::start_without_fsync().unwrap();
//! # cluster.psql("CREATE SCHEMA shop; CREATE TABLE shop.messages (topic_id bigint, payload jsonb)").unwrap();
//! # cluster.psql("CREATE TABLE shop.topics AS SELECT 7::bigint AS id, 'orders' AS name").unwrap();
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
mod link;
mod options;
mod passfile;
mod pipeline;
mod request;
mod resolve;
mod session_kind;
mod session_settings;
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
pub use options::{ChannelBinding, RootCert, SearchPath, SslMode, TargetSession, TcpOptions, TlsOptions};
pub use pipeline::{Pipeline, PipelineOutcome};
pub use sqlstate::{SqlClass, SqlState};
pub use statement::Statement;
pub use tls::TlsRecords;
pub use types::oid::{self, Oid};
pub use types::{BinaryCopy, Column, Format, Param, Row};
