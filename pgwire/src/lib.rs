//! A PostgreSQL client for the monoio runtime on io_uring.
//!
//! ```text
//!   Connection ── Pipeline, CopyIn, Statement, CancelToken        operations (conn, pipeline, copy_in, connect)
//!       │
//!      Wire ──────────────── Deadline                             driver: bytes between both sides (wire, deadline)
//!       │         │
//!    Socket     core: ReadBuffer ► Backend ► Session, exchanges   the protocol without I/O (core)
//!       │         │
//!    io_uring   types: Param, Row, BinaryCopy                     values (types)
//! ```
//!
//! # What it does
//! Unix sockets and TCP; trust, cleartext, MD5 and SCRAM-SHA-256; simple queries; prepared and unnamed statements with
//! parameters and results in binary; pipelines; COPY FROM STDIN; cancelling; deadlines for every operation.
//!
//! # What it promises
//! - No bytes of a server make it panic, and none make it keep more than [`core::limits`] says, besides the rows that
//!   were asked for.
//! - An operation ends: with its result, an error, or [`Error::Timeout`] soon after its deadline. The deadline shuts
//!   the socket down, so the connection is broken afterwards, and says so. Without a deadline it waits for ever, but
//!   for a TCP peer that has gone silent, which the kernel notices after about a minute.
//! - After an error of the server the connection is in step and usable; after a failure of the connection every
//!   operation gives [`Error::Closed`].
//! - Decisions can be made by [`SqlState`]; no text has to be read.
//!
//! # What it refuses
//! - TLS, for now: `sslmode=require` and stricter are an error, not an open connection.
//! - A SCRAM server that does not prove itself, SASL mechanisms other than SCRAM-SHA-256, GSSAPI.
//! - COPY TO, and COPY outside of [`Connection::copy_in`]: the connection is given up.
//! - Threads: a connection stays on the thread, and in the runtime, that opened it.
//!
//! # Example
//! ```no_run
//! use forebay_pgwire::{BinaryCopy, Config, Connection, Error, Param};
//!
//! async fn store(payloads: &[&[u8]]) -> Result<u64, Error> {
//!     let config = Config::from_url("postgres://forebay@/queue?host=/run/postgresql&application_name=forebay")?;
//!     let mut conn = Connection::connect(&config).await?;
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
pub use options::{ChannelBinding, RootCert, SslMode, TargetSession, TcpOptions, TlsOptions};
pub use pipeline::{Pipeline, PipelineOutcome};
pub use sqlstate::{SqlClass, SqlState};
pub use statement::Statement;
pub use types::oid::{self, Oid};
pub use types::{BinaryCopy, Column, Format, Param, Row};
