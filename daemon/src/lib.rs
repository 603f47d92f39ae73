//! Forebay: a durable, very fast ingestion daemon in front of PostgreSQL.
//!
//! Producers push JSON over HTTP; a push is safe on disk, in a log of its own, before it is answered; a drain COPYs
//! everything into PostgreSQL in bulk, exactly once and in order, through crashes and outages.
//!
//! Where things live, and which module may use which: `docs/architecture.md`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod access;
pub mod api;
pub mod banner;
pub mod command;
pub mod config;
pub mod connection;
pub mod control;
pub mod datadir;
pub mod drain;
pub mod file_system;
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
pub mod panics;
pub mod postgres;
pub mod preflight;
pub mod private_files;
pub mod process;
pub mod queue;
pub mod rt;
pub mod serve;
pub mod state;
pub mod tls;
pub mod watchdog;
