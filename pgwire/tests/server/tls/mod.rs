//! TLS, with a real PostgreSQL server and a private certificate authority, and with attackers in the middle.

mod binding;
mod identities;
mod middle;
mod modes;
mod pki;
mod server;
mod traffic;
