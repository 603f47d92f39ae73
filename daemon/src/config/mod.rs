//! Settings: built-in default < TOML file < environment < flag.
//!
//! A setting has four places: its flag in [`args::ServeArgs`], which clap reads from flags and environment and serde from the
//! file; its field in [`Config`], which is printed as it is declared; its default in [`Config::resolve`]; and its row in
//! `docs/operations.md`, which a test holds to the flags.

mod access;
pub mod args;
mod choices;
mod error;
mod file;
mod libpq_env;
mod postgres_target;
mod printed;
mod settings;
pub mod sync_method;

pub use access::{AccessConfig, JwtConfig, Secret, TlsConfig};
pub use args::JWT_SECRET_VARIABLE;
pub use choices::{LogFormat, ProbeDuplicates, Sync};
pub use error::{ConfigError, ConfigFileError};
pub use postgres_target::PostgresTarget;
pub use settings::Config;

#[cfg(test)]
mod tests;
