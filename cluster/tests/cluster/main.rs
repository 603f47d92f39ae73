//! Tests with real PostgreSQL servers. Each test has a cluster of its own.

#![allow(clippy::unwrap_used, reason = "an error in a helper fails the test")]

mod crash;
mod life;
mod places;
mod role;
mod support;
