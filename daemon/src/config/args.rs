//! The flags of `serve`, their environment variables, and the keys of the file: one list.

use super::{LogFormat, ProbeDuplicates, Sync};
use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

/// Port of the default address.
pub const PORT_DEFAULT: u16 = 6632;

/// The environment variable of the shared secret. The secret has no flag, because other users can read a process's flags.
pub const JWT_SECRET_VARIABLE: &str = "FOREBAY_JWT_SECRET";

/// A setting as the flags or the environment have it, else as the file has it.
macro_rules! setting {
    ($args:expr, $file:expr, $name:ident) => {
        $args.$name.clone().or($file.$name.clone())
    };
}
pub(super) use setting;

/// A number of bytes, written `1048576`, `64MiB` or `2 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A text that is no number of bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}; write a number of bytes, such as 1048576, 64MiB or 2 GB")]
pub struct NotBytes(String);

impl FromStr for Bytes {
    type Err = NotBytes;
    fn from_str(text: &str) -> Result<Self, NotBytes> {
        text.parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(NotBytes)
    }
}

/// A duration, written `5s`, `500ms` or `2min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = humantime::DurationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

/// A number or text, as the file may have it.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The settings of one source. A missing one comes from the next source.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServeArgs {
    /// TOML file with any of these settings, under the names of the flags
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// HTTP address [default: 127.0.0.1:6632]; port 0 takes a free one
    #[arg(long, env = "FOREBAY_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Directory of the log, the lock file and the private PostgreSQL [default: ./forebay-data]
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A postgres:// URL, or `embedded` for a private server [default: DATABASE_URL, else libpq's PG… variables, else
    /// embedded]
    #[arg(long, env = "FOREBAY_POSTGRES", value_name = "URL", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Number of core threads [default: all that the process may use]
    #[arg(long, env = "FOREBAY_CORES", value_name = "N")]
    pub cores: Option<u16>,
    /// How the log makes a push durable [default: direct]
    #[arg(long, env = "FOREBAY_SYNC", value_name = "METHOD")]
    pub sync: Option<Sync>,
    /// Hard quota of the log [default: 80 % of the free space, at most 64 GiB]
    #[arg(long, env = "FOREBAY_WAL_MAX_BYTES", value_name = "BYTES")]
    pub wal_max_bytes: Option<Bytes>,
    /// Size of new segments, a multiple of 1 MiB [default: 32 MiB, less where the quota or the free space is small]
    #[arg(long, env = "FOREBAY_WAL_SEGMENT_BYTES", value_name = "BYTES")]
    pub wal_segment_bytes: Option<Bytes>,
    /// How long a segment is kept after PostgreSQL has all of it, as long as the quota has room [default: 0s]
    #[arg(long, env = "FOREBAY_RETAIN_DRAINED", value_name = "DURATION")]
    pub retain_drained: Option<Span>,
    /// How long buffered messages may wait to share a drain transaction, if the request does not say [default: 100]
    #[arg(long, env = "FOREBAY_FLUSH_MS", value_name = "MS")]
    pub flush_ms: Option<u32>,
    /// Number of buffered messages that ends that wait early [default: 100]
    #[arg(long, env = "FOREBAY_FLUSH_MAX", value_name = "N")]
    pub flush_max: Option<u32>,
    /// Whether a push creates its queue [default: true]
    #[arg(long, env = "FOREBAY_AUTO_CREATE_QUEUES", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub auto_create_queues: Option<bool>,
    /// How long a plain push waits for its commit before it is answered `buffered` [default: 2000]
    #[arg(long, env = "FOREBAY_COMMIT_WAIT_MS", value_name = "MS")]
    pub commit_wait_ms: Option<u64>,
    /// How long PostgreSQL may take for one statement; the daemon closes the connection after half as long again
    /// [default: 60000]
    #[arg(long, env = "FOREBAY_POSTGRES_TIMEOUT_MS", value_name = "MS")]
    pub postgres_timeout_ms: Option<u32>,
    /// Connections of the drain, each with its share of the partitions, 1 to 16 [default: 1]
    #[arg(long, env = "FOREBAY_DRAIN_CONNECTIONS", value_name = "N")]
    pub drain_connections: Option<u8>,
    /// Role that may own the schema, beside the one of --postgres, those that it is a member of, and superusers
    #[arg(long, env = "FOREBAY_SCHEMA_OWNER", value_name = "ROLE")]
    pub schema_owner: Option<String>,
    /// When the drain looks for existing transaction ids before it copies [default: auto]
    #[arg(long, env = "FOREBAY_PROBE_DUPLICATES", value_name = "WHEN")]
    pub probe_duplicates: Option<ProbeDuplicates>,
    /// Largest body of a request [default: 16 MiB]
    #[arg(long, env = "FOREBAY_MAX_BODY_BYTES", value_name = "BYTES")]
    pub max_body_bytes: Option<Bytes>,
    /// What a core holds of bodies and answers on their way [default: 32 MiB, more where --max-body-bytes needs it]
    #[arg(long, env = "FOREBAY_MEMORY_BUDGET", value_name = "BYTES")]
    pub memory_budget: Option<Bytes>,
    /// How long a connection may be idle between requests before it is closed [default: 75s]
    #[arg(long, env = "FOREBAY_IDLE_TIMEOUT", value_name = "DURATION")]
    pub idle_timeout: Option<Span>,
    /// How long a request's head may take; over each such time its body must bring 1 KiB a second [default: 10s]
    #[arg(long, env = "FOREBAY_REQUEST_TIMEOUT", value_name = "DURATION")]
    pub request_timeout: Option<Span>,
    /// How long the drain may go on after SIGTERM [default: 5s]
    #[arg(long, env = "FOREBAY_SHUTDOWN_GRACE", value_name = "DURATION")]
    pub shutdown_grace: Option<Span>,
    /// Schema in PostgreSQL [default: forebay]
    #[arg(long, env = "FOREBAY_SCHEMA", value_name = "NAME")]
    pub schema: Option<String>,
    /// Whether the schema is brought up to date at start [default: true]
    #[arg(long, env = "FOREBAY_MIGRATE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub migrate: Option<bool>,
    /// Bearer tokens, hashed, as `forebay token new` makes them; read again on SIGHUP
    #[arg(long, env = "FOREBAY_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,
    /// Shared secret of JWTs signed by HS256, at least 32 bytes [default: FOREBAY_JWT_SECRET]; read again on SIGHUP
    #[arg(long, env = "FOREBAY_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// Public keys (JWKS) of JWTs signed by RS256, ES256 or EdDSA; read again on SIGHUP
    #[arg(long, env = "FOREBAY_JWKS_FILE", value_name = "FILE")]
    pub jwks_file: Option<PathBuf>,
    /// The `iss` that a JWT must have
    #[arg(long, env = "FOREBAY_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// The `aud` that a JWT must have, or list; without this setting a JWT with an `aud` is refused
    #[arg(long, env = "FOREBAY_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// How far the clocks of the daemon and of a JWT's issuer may differ [default: 60s]
    #[arg(long, env = "FOREBAY_JWT_LEEWAY", value_name = "DURATION")]
    pub jwt_leeway: Option<Span>,
    /// Serve TLS with this certificate chain (PEM), the own certificate first; read again on SIGHUP
    #[arg(long, env = "FOREBAY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM); read again on SIGHUP
    #[arg(long, env = "FOREBAY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Serve only clients with a certificate from one of these authorities (PEM); read again on SIGHUP
    #[arg(long, env = "FOREBAY_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Origins of web pages that may send requests, such as `https://example.org`, or `*` [default: none]
    #[arg(long, env = "FOREBAY_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Option<Vec<String>>,
    /// Further names by which the daemon is asked, without ports, or `*` for any; requests without a token for other names, and
    /// from web pages of other origins, are refused [default: none]
    #[arg(long, env = "FOREBAY_HOST", value_name = "NAME", value_delimiter = ',')]
    pub host: Option<Vec<String>>,
    /// Serve a non-loopback address without access control
    #[arg(long, env = "FOREBAY_INSECURE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,forebay::drain=debug` [default: info]
    #[arg(long, env = "FOREBAY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines are written [default: text on a terminal, else json]
    #[arg(long, env = "FOREBAY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}
