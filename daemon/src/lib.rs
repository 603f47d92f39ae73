//! Forebay: a durable, very fast ingestion daemon in front of PostgreSQL.
//!
//! Producers push JSON over HTTP; a push is safe on disk, in a log of its own, before it is answered; a drain COPYs
//! everything into PostgreSQL in bulk, exactly once and in order, through crashes and outages.
//!
//! ```text
//!   command     the command line                     serve   start, signals, end
//!      config      settings                             datadir   directory, lock, quota
//!   core        one thread a core: listener, connections, its lane of the log
//!      api         paths and what they do            http, json   bytes in, typed results out
//!      access      who may do what                   tls          the port's certificates, and sealed streams
//!      message     a message as a log record
//!   drain       one thread: the log into PostgreSQL  schema       what is in PostgreSQL
//!   postgres    channels to PostgreSQL, and a thread that asks it for the cores
//!   letters     what PostgreSQL refused, in its table and in files
//!   shared, progress, mailbox, state::drain_signal         what threads tell each other
//!   rt          monoio, and all unsafe code of the daemon
//!   limits      every limit, with its reason
//! ```

pub mod access;
pub mod api;
pub mod banner;
pub mod command;
pub mod config;
pub mod connection;
pub mod datadir;
pub mod drain;
pub mod http;
pub mod ids;
pub mod ignore;
pub mod ingest;
pub mod json;
pub mod letters;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod message;
pub mod postgres;
pub mod preflight;
pub mod private_files;
pub mod process;
pub mod rt;
pub mod serve;
pub mod state;
pub mod tls;
pub mod watchdog;
