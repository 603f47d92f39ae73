//! Tests on real PostgreSQL servers, each on a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod crash;
mod life;
mod places;
mod support;
