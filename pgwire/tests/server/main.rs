//! The client against a real PostgreSQL server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod auth;
mod copy;
mod deadlines;
mod failures;
mod flights;
mod hosts;
mod notifications;
mod pipelines;
mod queries;
mod session_settings;
mod stream;
mod tls;
mod values;
