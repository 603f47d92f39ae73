//! What can be wrong with the settings.

use super::JWT_SECRET_VARIABLE;
use crate::{
    http::{cors::NotAnOrigin, host::NotAHost},
    limits::{BODY_BYTES_MIN, CONNECTION_TIMEOUT_MIN, DRAIN_CONNECTIONS_MAX, JWT_LEEWAY_MAX, POSTGRES_TIMEOUT_MIN},
    private_files::AtPath,
};
use std::net::SocketAddr;

/// What is wrong with the file of settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It is not read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no TOML, or a value has another type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// It has a key that is no setting.
    #[error("there is no setting {name:?}{}", suggestion(nearest.as_deref()))]
    UnknownSetting {
        /// The key.
        name: String,
        /// The setting with the most similar name, if one is similar.
        nearest: Option<String>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; is {name:?} meant?"))
}

/// What is wrong with the settings. Each text names the flag and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of settings.
    #[error(transparent)]
    File(#[from] AtPath<ConfigFileError>),
    /// The URL of PostgreSQL, or a variable of libpq.
    #[error(transparent)]
    Postgres(#[from] forebay_pgwire::Error),
    /// Strangers may reach the address, and nothing keeps them out.
    #[error(
        "{0} is not a loopback address: anybody who reaches it could push. Give --tokens-file (forebay token new makes \
         tokens), JWTs (--jwks-file, --jwt-secret-file) or client certificates (--tls-client-ca); or say --insecure if the \
         network around it is trusted"
    )]
    OpenAddress(SocketAddr),
    /// An origin that no browser sends.
    #[error("--cors-origin {0}")]
    Origin(#[from] NotAnOrigin),
    /// A host that no request names.
    #[error("--host {0}")]
    Host(#[from] NotAHost),
    /// `--cores`
    #[error("--cores must be at least 1")]
    Cores,
    /// `--postgres-timeout-ms`
    #[error("--postgres-timeout-ms must be at least {}", POSTGRES_TIMEOUT_MIN.as_millis())]
    PostgresTimeout,
    /// `--drain-connections`
    #[error("--drain-connections must be 1 to {DRAIN_CONNECTIONS_MAX}")]
    DrainConnections,
    /// `--flush-max`
    #[error("--flush-max must be at least 1")]
    FlushMax,
    /// `--schema`
    #[error("--schema {0:?} is not a name of 1 to 63 bytes without quotes")]
    Schema(String),
    /// `--idle-timeout`, `--request-timeout`
    #[error("--{flag} must be at least {} ms", CONNECTION_TIMEOUT_MIN.as_millis())]
    ConnectionTimeout {
        /// Which of them.
        flag: &'static str,
    },
    /// `--max-body-bytes`
    #[error("--max-body-bytes must be at least {BODY_BYTES_MIN}")]
    MaxBodyBytes,
    /// `--memory-budget`
    #[error(
        "--memory-budget must be at least {least_bytes}, so that a body of --max-body-bytes {max_body_bytes} has room"
    )]
    MemoryBudget {
        /// `--max-body-bytes`
        max_body_bytes: u64,
        /// Least value.
        least_bytes: u64,
    },
    /// The secret of JWTs is given twice.
    #[error("{JWT_SECRET_VARIABLE} and --jwt-secret-file exclude each other")]
    JwtSecretTwice,
    /// `--jwt-leeway`
    #[error("--jwt-leeway must be at most {}", humantime::format_duration(JWT_LEEWAY_MAX))]
    JwtLeeway,
    /// Rules for JWTs, and no key to check one with.
    #[error(
        "--jwt-issuer and --jwt-audience say which JWTs are accepted, but there is no key to check them: give --jwks-file, \
         --jwt-secret-file or {JWT_SECRET_VARIABLE}"
    )]
    JwtWithoutKey,
    /// A certificate without a key, or the other way round.
    #[error("TLS needs both --tls-cert and --tls-key")]
    TlsIncomplete,
    /// A setting that TOML cannot hold, such as a number beyond 2^63 - 1.
    #[error("the settings cannot be printed: {0}")]
    Print(#[from] toml::ser::Error),
}
