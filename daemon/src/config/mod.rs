//! Settings: built-in default < TOML file < environment < flag.
//!
//! One table says what there is: [`args::ServeArgs`], read by clap from flags and environment, and by serde from the file.

mod access;
pub mod args;
mod file;
mod libpq_env;
pub mod sync_method;

pub use access::{AccessConfig, JWT_SECRET_VARIABLE, JwtConfig, Secret, TlsConfig};

use crate::http::cors;
use crate::limits::{
    BODY_BYTES_DEFAULT, CONNECTION_TIMEOUT_MIN, DRAIN_CONNECTIONS_MAX, IDLE_TIMEOUT_DEFAULT, POSTGRES_TIMEOUT_MIN,
    REQUEST_TIMEOUT_DEFAULT,
};
use args::ServeArgs;
use forebay_wal::group::SyncMethod;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What is wrong with the settings.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Where PostgreSQL is.
#[derive(Clone, Debug)]
pub enum PostgresTarget {
    /// A private server below the data directory.
    Embedded,
    /// One that somebody else runs.
    External(Box<forebay_pgwire::Config>),
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

/// `--probe-duplicates` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeDuplicates {
    /// after one was met, for a while
    Auto,
    /// before every transaction: spares the work of those that fail where duplicates are common
    Always,
}

impl ProbeDuplicates {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
        }
    }
}

/// `--sync` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// `O_DIRECT` with per-write data sync
    Direct,
    /// buffered, each write synced as fdatasync does
    Fdatasync,
    /// page cache only: survives a crash of the process, not of the machine
    None,
    /// direct, or fdatasync where that is clearly faster on this disk: measured at the first start, then kept
    Auto,
}

impl Sync {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fdatasync => "fdatasync",
            Self::None => "none",
            Self::Auto => "auto",
        }
    }

    /// What the log makes of it. `auto` counts as the default until [`sync_method::resolve`] has replaced it.
    #[must_use]
    pub fn method(self) -> SyncMethod {
        match self {
            Self::Direct | Self::Auto => SyncMethod::Direct,
            Self::Fdatasync => SyncMethod::Fdatasync,
            Self::None => SyncMethod::None,
        }
    }
}

impl From<SyncMethod> for Sync {
    fn from(method: SyncMethod) -> Self {
        match method {
            SyncMethod::Direct => Self::Direct,
            SyncMethod::Fdatasync => Self::Fdatasync,
            SyncMethod::None => Self::None,
        }
    }
}

/// All settings of `serve`, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP address.
    pub listen: SocketAddr,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Where PostgreSQL is.
    pub postgres: PostgresTarget,
    /// Number of core threads; `None`: as many as the process may use.
    pub cores: Option<u16>,
    /// How writes are made durable; a running daemon's says what is really used.
    pub sync: Sync,
    /// The log's quota in bytes; `None`: by the free space.
    pub wal_max_bytes: Option<u64>,
    /// Size of new segments in bytes; `None`: by the quota and the free space.
    pub wal_segment_bytes: Option<u64>,
    /// How long segments are kept after all of them is in PostgreSQL, as long as the quota has room.
    pub retain_drained: Duration,
    /// How long buffered messages may wait for company where a request does not say, in milliseconds.
    pub flush_ms: u32,
    /// How many of them end the wait early.
    pub flush_max: u32,
    /// Whether a push makes its queue.
    pub auto_create_queues: bool,
    /// How long a plain push waits for its commit before it is answered `buffered`.
    pub commit_wait: Duration,
    /// How long PostgreSQL may take over one statement.
    pub postgres_timeout: Duration,
    /// Connections that the drain copies over.
    pub drain_connections: u8,
    /// When the drain looks for transaction ids that are there already before it copies.
    pub probe_duplicates: ProbeDuplicates,
    /// Largest body of a request in bytes.
    pub max_body_bytes: u64,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a head may take, and over which time a body's rate is taken.
    pub request_timeout: Duration,
    /// How long the drain may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Schema in PostgreSQL.
    pub schema: String,
    /// Whether `serve` brings the schema up to date.
    pub migrate: bool,
    /// Whether a non-loopback address is served without access control.
    pub insecure: bool,
    /// Who may do what.
    pub access: AccessConfig,
    /// TLS, if it is spoken.
    pub tls: Option<TlsConfig>,
    /// Origins of web pages that may ask.
    pub cors_origins: Vec<String>,
    /// What is logged, in the syntax of `tracing`'s `EnvFilter`.
    pub log: String,
    /// How it is written; `None`: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Resolves flags and environment (`args`), the file they name, and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`], with the way out.
    pub fn resolve(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => file::read(path)?,
            None => ServeArgs::default(),
        };
        macro_rules! setting {
            ($name:ident) => {
                args.$name.clone().or(file.$name.clone())
            };
        }
        let config = Self {
            listen: setting!(listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], args::PORT_DEFAULT))),
            data_dir: setting!(data_dir).unwrap_or_else(|| PathBuf::from("./forebay-data")),
            postgres: postgres_target(setting!(postgres))?,
            cores: setting!(cores),
            sync: setting!(sync).unwrap_or(Sync::Direct),
            wal_max_bytes: setting!(wal_max_bytes).map(|size| size.0),
            wal_segment_bytes: setting!(wal_segment_bytes).map(|size| size.0),
            retain_drained: setting!(retain_drained).map_or(Duration::ZERO, |retention| retention.0),
            flush_ms: setting!(flush_ms).unwrap_or(100),
            flush_max: setting!(flush_max).unwrap_or(100),
            auto_create_queues: setting!(auto_create_queues).unwrap_or(true),
            commit_wait: Duration::from_millis(setting!(commit_wait_ms).unwrap_or(2000)),
            postgres_timeout: Duration::from_millis(setting!(postgres_timeout_ms).unwrap_or(60_000).into()),
            drain_connections: setting!(drain_connections).unwrap_or(1),
            probe_duplicates: setting!(probe_duplicates).unwrap_or(ProbeDuplicates::Auto),
            max_body_bytes: setting!(max_body_bytes).map_or(BODY_BYTES_DEFAULT, |size| size.0),
            idle_timeout: setting!(idle_timeout).map_or(IDLE_TIMEOUT_DEFAULT, |timeout| timeout.0),
            request_timeout: setting!(request_timeout).map_or(REQUEST_TIMEOUT_DEFAULT, |timeout| timeout.0),
            shutdown_grace: setting!(shutdown_grace).map_or(Duration::from_secs(5), |grace| grace.0),
            schema: setting!(schema).unwrap_or_else(|| "forebay".to_owned()),
            migrate: setting!(migrate).unwrap_or(true),
            insecure: setting!(insecure).unwrap_or(false),
            access: access::access(&args, &file, |name| std::env::var(name).ok())?,
            tls: access::tls(&args, &file)?,
            cors_origins: setting!(cors_origin).unwrap_or_default(),
            log: setting!(log).unwrap_or_else(|| "info".to_owned()),
            log_format: setting!(log_format),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |what: String| Err(ConfigError(what));
        access::check_reach(self.listen, self.insecure, &self.access, self.tls.as_ref())?;
        self.cors_origins.iter().try_for_each(|origin| cors::check_origin(origin)).map_err(ConfigError)?;
        if self.cores == Some(0) {
            return fail("--cores must be at least 1".into());
        }
        if self.postgres_timeout < POSTGRES_TIMEOUT_MIN {
            return fail(format!("--postgres-timeout-ms must be at least {}", POSTGRES_TIMEOUT_MIN.as_millis()));
        }
        if !(1..=DRAIN_CONNECTIONS_MAX).contains(&self.drain_connections) {
            return fail(format!("--drain-connections must be 1 to {DRAIN_CONNECTIONS_MAX}"));
        }
        if self.flush_max == 0 {
            return fail("--flush-max must be at least 1".into());
        }
        if self.schema.is_empty() || self.schema.len() > 63 || self.schema.contains(['\0', '"']) {
            return fail(format!("--schema {:?} is no name of 1 to 63 bytes without quotes", self.schema));
        }
        for (name, timeout) in [("idle", self.idle_timeout), ("request", self.request_timeout)] {
            if timeout < CONNECTION_TIMEOUT_MIN {
                return fail(format!("--{name}-timeout must be at least {} ms", CONNECTION_TIMEOUT_MIN.as_millis()));
            }
        }
        if self.max_body_bytes < 1024 {
            return fail("--max-body-bytes must be at least 1024".into());
        }
        Ok(())
    }

    /// The settings as TOML, secrets masked.
    #[must_use]
    pub fn print(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let postgres = match &self.postgres {
            PostgresTarget::Embedded => "embedded".to_owned(),
            PostgresTarget::External(config) => config.masked_url(),
        };
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let mut line = |name: &str, value: Option<String>| {
            // Writing to a string does not fail.
            let written = match value {
                Some(value) => writeln!(out, "{name} = {value}"),
                None => writeln!(out, "# {name} = chosen at start"),
            };
            debug_assert!(written.is_ok());
        };
        line("listen", Some(text(&self.listen.to_string())));
        line("data-dir", Some(text(&self.data_dir.to_string_lossy())));
        line("postgres", Some(text(&postgres)));
        line("cores", self.cores.map(|cores| cores.to_string()));
        line("sync", Some(text(self.sync.name())));
        line("wal-max-bytes", self.wal_max_bytes.map(|bytes| bytes.to_string()));
        line("wal-segment-bytes", self.wal_segment_bytes.map(|bytes| bytes.to_string()));
        line("retain-drained", Some(text(&humantime::format_duration(self.retain_drained).to_string())));
        line("flush-ms", Some(self.flush_ms.to_string()));
        line("flush-max", Some(self.flush_max.to_string()));
        line("auto-create-queues", Some(self.auto_create_queues.to_string()));
        line("commit-wait-ms", Some(self.commit_wait.as_millis().to_string()));
        line("postgres-timeout-ms", Some(self.postgres_timeout.as_millis().to_string()));
        line("drain-connections", Some(self.drain_connections.to_string()));
        line("probe-duplicates", Some(text(self.probe_duplicates.name())));
        line("max-body-bytes", Some(self.max_body_bytes.to_string()));
        line("idle-timeout", Some(text(&humantime::format_duration(self.idle_timeout).to_string())));
        line("request-timeout", Some(text(&humantime::format_duration(self.request_timeout).to_string())));
        line("shutdown-grace", Some(text(&humantime::format_duration(self.shutdown_grace).to_string())));
        line("schema", Some(text(&self.schema)));
        line("migrate", Some(self.migrate.to_string()));
        line("insecure", Some(self.insecure.to_string()));
        access::lines(self).into_iter().for_each(|(name, value)| line(name, Some(value)));
        line("log", Some(text(&self.log)));
        line("log-format", self.log_format.map(|format| text(&format!("{format:?}").to_lowercase())));
        out
    }
}

/// `FOREBAY_POSTGRES` (or its flag, or the file), else `DATABASE_URL`, else libpq's variables, else the private one.
fn postgres_target(setting: Option<String>) -> Result<PostgresTarget, ConfigError> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match setting.or_else(|| environment("DATABASE_URL")) {
        Some(target) if target == "embedded" => Ok(PostgresTarget::Embedded),
        Some(url) => {
            // What the address leaves out is libpq's environment's to say: a password, certificates, the mode of TLS.
            let config = forebay_pgwire::Config::from_url_and_env(&url, environment)
                .map_err(|error| ConfigError(error.to_string()))?;
            Ok(PostgresTarget::External(Box::new(config)))
        }
        None => match libpq_env::config(environment)? {
            Some(config) => Ok(PostgresTarget::External(Box::new(config))),
            None => Ok(PostgresTarget::Embedded),
        },
    }
}

#[cfg(test)]
mod tests;
