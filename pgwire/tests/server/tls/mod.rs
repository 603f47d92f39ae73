//! TLS, against a real PostgreSQL server with a private certification authority, and against people in the middle.

mod binding;
mod identities;
mod middle;
mod modes;
mod pki;
mod server;
mod traffic;
