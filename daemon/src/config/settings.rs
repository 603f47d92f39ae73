//! The settings of `serve`: fields, defaults, limits, and how they are printed.

use super::{
    ConfigError, LogFormat, PostgresTarget, ProbeDuplicates, Sync, access,
    access::{AccessConfig, TlsConfig},
    args::{PORT_DEFAULT, ServeArgs, setting},
    file, printed,
};
use crate::{
    http::{cors, host},
    limits::{
        BODY_BYTES_DEFAULT, BODY_BYTES_MIN, CONNECTION_TIMEOUT_MIN, DRAIN_CONNECTIONS_MAX, IDLE_TIMEOUT_DEFAULT,
        MEMORY_BUDGET_DEFAULT, POSTGRES_TIMEOUT_MIN, REQUEST_TIMEOUT_DEFAULT, memory_budget_min,
    },
    private_files::AtPath,
};
use serde::Serialize;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Longest name of a schema, in bytes: PostgreSQL cuts longer ones.
const SCHEMA_BYTES_MAX: usize = 63;

/// All settings of `serve`, resolved, in the order in which they are printed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// HTTP address.
    pub listen: SocketAddr,
    /// Data directory.
    #[serde(serialize_with = "printed::path")]
    pub data_dir: PathBuf,
    /// Where PostgreSQL is.
    pub postgres: PostgresTarget,
    /// Number of core threads; `None`: as many as the process may use.
    pub cores: Option<u16>,
    /// How writes are made durable. In a running daemon it is the method in use, never [`Sync::Auto`].
    pub sync: Sync,
    /// The log's quota in bytes; `None`: by the free space.
    pub wal_max_bytes: Option<u64>,
    /// Size of new segments in bytes; `None`: by the quota and the free space.
    pub wal_segment_bytes: Option<u64>,
    /// How long a segment is kept after PostgreSQL has all of it, as long as the quota has room.
    #[serde(serialize_with = "printed::duration")]
    pub retain_drained: Duration,
    /// How long buffered messages may wait for others if the request does not say, in milliseconds.
    pub flush_ms: u32,
    /// How many buffered messages end that wait early.
    pub flush_max: u32,
    /// Whether a push creates its queue.
    pub auto_create_queues: bool,
    /// How long a plain push waits for its commit before it is answered `buffered`.
    #[serde(rename = "commit-wait-ms", serialize_with = "printed::milliseconds")]
    pub commit_wait: Duration,
    /// How long PostgreSQL may take for one statement.
    #[serde(rename = "postgres-timeout-ms", serialize_with = "printed::milliseconds")]
    pub postgres_timeout: Duration,
    /// Connections of the drain.
    pub drain_connections: u8,
    /// When the drain looks for existing transaction ids before it copies.
    pub probe_duplicates: ProbeDuplicates,
    /// Largest body of a request in bytes.
    pub max_body_bytes: u64,
    /// What a core holds of bodies and answers on their way, in bytes.
    pub memory_budget: u64,
    /// How long a connection may be idle between requests.
    #[serde(serialize_with = "printed::duration")]
    pub idle_timeout: Duration,
    /// How long a head may take, and the time over which a body's rate is measured.
    #[serde(serialize_with = "printed::duration")]
    pub request_timeout: Duration,
    /// How long the drain may go on after SIGTERM.
    #[serde(serialize_with = "printed::duration")]
    pub shutdown_grace: Duration,
    /// Schema in PostgreSQL.
    pub schema: String,
    /// Role that may own it, beside the daemon's own, those that it is a member of, and superusers.
    pub schema_owner: Option<String>,
    /// Whether `serve` brings the schema up to date.
    pub migrate: bool,
    /// Whether a non-loopback address is served without access control.
    pub insecure: bool,
    /// Tokens and keys.
    #[serde(flatten)]
    pub access: AccessConfig,
    /// TLS, if it is configured.
    #[serde(flatten)]
    pub tls: Option<TlsConfig>,
    /// Origins of web pages that may send requests.
    #[serde(rename = "cors-origin", skip_serializing_if = "Vec::is_empty")]
    pub cors_origins: Vec<String>,
    /// Further names by which the daemon is asked; `*`: any.
    #[serde(rename = "host", skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What is logged, in the syntax of `tracing`'s `EnvFilter`.
    pub log: String,
    /// The format of log lines; `None`: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Resolves flags and environment (`args`), the file they name, and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`], with the way out.
    pub fn resolve(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => file::read(path).map_err(AtPath::new(path))?,
            None => ServeArgs::default(),
        };
        let max_body_bytes = setting!(args, file, max_body_bytes).map_or(BODY_BYTES_DEFAULT, |size| size.0);
        let memory_budget_default = memory_budget_min(max_body_bytes).max(MEMORY_BUDGET_DEFAULT as u64);
        let config = Self {
            listen: setting!(args, file, listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT))),
            data_dir: setting!(args, file, data_dir).unwrap_or_else(|| PathBuf::from("./forebay-data")),
            postgres: PostgresTarget::resolve(setting!(args, file, postgres))?,
            cores: setting!(args, file, cores),
            sync: setting!(args, file, sync).unwrap_or(Sync::Direct),
            wal_max_bytes: setting!(args, file, wal_max_bytes).map(|size| size.0),
            wal_segment_bytes: setting!(args, file, wal_segment_bytes).map(|size| size.0),
            retain_drained: setting!(args, file, retain_drained).map_or(Duration::ZERO, |retention| retention.0),
            flush_ms: setting!(args, file, flush_ms).unwrap_or(100),
            flush_max: setting!(args, file, flush_max).unwrap_or(100),
            auto_create_queues: setting!(args, file, auto_create_queues).unwrap_or(true),
            commit_wait: Duration::from_millis(setting!(args, file, commit_wait_ms).unwrap_or(2000)),
            postgres_timeout: Duration::from_millis(setting!(args, file, postgres_timeout_ms).unwrap_or(60_000).into()),
            drain_connections: setting!(args, file, drain_connections).unwrap_or(1),
            probe_duplicates: setting!(args, file, probe_duplicates).unwrap_or(ProbeDuplicates::Auto),
            max_body_bytes,
            memory_budget: setting!(args, file, memory_budget).map_or(memory_budget_default, |size| size.0),
            idle_timeout: setting!(args, file, idle_timeout).map_or(IDLE_TIMEOUT_DEFAULT, |timeout| timeout.0),
            request_timeout: setting!(args, file, request_timeout).map_or(REQUEST_TIMEOUT_DEFAULT, |timeout| timeout.0),
            shutdown_grace: setting!(args, file, shutdown_grace).map_or(Duration::from_secs(5), |grace| grace.0),
            schema: setting!(args, file, schema).unwrap_or_else(|| "forebay".to_owned()),
            schema_owner: setting!(args, file, schema_owner),
            migrate: setting!(args, file, migrate).unwrap_or(true),
            insecure: setting!(args, file, insecure).unwrap_or(false),
            access: access::access(&args, &file, |name| std::env::var(name).ok())?,
            tls: access::tls(&args, &file)?,
            cors_origins: setting!(args, file, cors_origin).unwrap_or_default(),
            hosts: setting!(args, file, host).unwrap_or_default(),
            log: setting!(args, file, log).unwrap_or_else(|| "info".to_owned()),
            log_format: setting!(args, file, log_format),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        access::check_reach(self.listen, self.insecure, &self.access, self.tls.as_ref())?;
        self.cors_origins.iter().try_for_each(|origin| cors::check_origin(origin))?;
        self.hosts.iter().try_for_each(|name| host::check_host(name))?;
        let is_short = |timeout: Duration| timeout < CONNECTION_TIMEOUT_MIN;
        if self.cores == Some(0) {
            Err(ConfigError::Cores)
        } else if self.postgres_timeout < POSTGRES_TIMEOUT_MIN {
            Err(ConfigError::PostgresTimeout)
        } else if !(1..=DRAIN_CONNECTIONS_MAX).contains(&self.drain_connections) {
            Err(ConfigError::DrainConnections)
        } else if self.flush_max == 0 {
            Err(ConfigError::FlushMax)
        } else if !(1..=SCHEMA_BYTES_MAX).contains(&self.schema.len()) || self.schema.contains(['\0', '"']) {
            Err(ConfigError::Schema(self.schema.clone()))
        } else if is_short(self.idle_timeout) {
            Err(ConfigError::ConnectionTimeout { flag: "idle-timeout" })
        } else if is_short(self.request_timeout) {
            Err(ConfigError::ConnectionTimeout { flag: "request-timeout" })
        } else if self.max_body_bytes < BODY_BYTES_MIN {
            Err(ConfigError::MaxBodyBytes)
        } else if self.memory_budget < memory_budget_min(self.max_body_bytes) {
            let (max_body_bytes, least_bytes) = (self.max_body_bytes, memory_budget_min(self.max_body_bytes));
            Err(ConfigError::MemoryBudget { max_body_bytes, least_bytes })
        } else {
            Ok(())
        }
    }

    /// The settings as TOML, secrets masked. Those that the daemon chooses when it starts come last, as comments.
    ///
    /// # Errors
    /// [`ConfigError::Print`] for what TOML cannot hold.
    pub fn print(&self) -> Result<String, ConfigError> {
        let mut text = toml::to_string(self)?;
        let chosen = [
            ("cores", self.cores.is_none()),
            ("wal-max-bytes", self.wal_max_bytes.is_none()),
            ("wal-segment-bytes", self.wal_segment_bytes.is_none()),
            ("log-format", self.log_format.is_none()),
        ];
        for (name, is_chosen) in chosen {
            if is_chosen {
                text += &format!("# {name} = chosen at start\n");
            }
        }
        Ok(text)
    }
}
