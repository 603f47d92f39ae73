//! The settings of a connection.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config_url;
use crate::env;
use crate::error::{ConfigError, Error};
use crate::options::{RootCert, SslMode, TargetSession, TcpOptions, TlsOptions};
use crate::settings::Settings;

/// The port if none is set.
pub const DEFAULT_PORT: u16 = 5432;

/// The directory of the unix socket if no host is set, as on Debian and its derivatives.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/postgresql";

/// The time to connect and log in if none is set.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or address, over TCP.
    Tcp(String),
    /// The directory that holds the unix socket.
    Unix(PathBuf),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the server listens.
    pub host: Host,
    /// The port, as [`Config::port`].
    pub port: u16,
}

/// How to reach a server, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the server listens.
    pub host: Host,
    /// The port. For a unix socket it is the number in the socket's file name.
    pub port: u16,
    /// Further hosts, tried in order. The next one is tried if the one before cannot be reached, is starting up, or
    /// does not provide the kind of session that [`Config::target_session`] asks for.
    pub more_hosts: Vec<Endpoint>,
    /// The required kind of session.
    pub target_session: TargetSession,
    /// The role to log in as.
    pub user: String,
    /// The role's password.
    pub password: Option<String>,
    /// The password file, such as libpq's `~/.pgpass`. If no password is set, it is read at each connect. A file that
    /// other users may access is ignored; see [`crate::Connection::pass_file_warning`].
    pub passfile: Option<PathBuf>,
    /// The database. If none is set, it is the one with the role's name.
    pub database: Option<String>,
    /// The name that `pg_stat_activity` shows for the session.
    pub application_name: Option<String>,
    /// The time from the look-up of the name to the end of the log-in, for all hosts and all of their addresses
    /// together. (In libpq it applies to each of them.) `None` sets no limit.
    pub connect_timeout: Option<Duration>,
    /// The time for each operation, until [`crate::Connection::set_deadline`] changes it. `None` sets no limit.
    pub statement_deadline: Option<Duration>,
    /// How TCP connections are encrypted.
    pub tls: TlsOptions,
    /// When a TCP connection counts as lost.
    pub tcp: TcpOptions,
    /// Run-time parameters for the start of the session, for example `("lock_timeout", "2s")`. They come from the URL or
    /// the environment. They override what is set for the role and the database.
    pub options: Vec<(String, String)>,
    /// Run-time parameters that are set once the session is open, each to a single value. They override
    /// [`Config::options`].
    pub session_settings: Vec<(String, String)>,
}

impl Config {
    /// A host and a role, and the default for everything else.
    pub fn new(host: Host, user: impl Into<String>) -> Self {
        Self {
            host,
            port: DEFAULT_PORT,
            more_hosts: Vec::new(),
            target_session: TargetSession::Any,
            user: user.into(),
            password: None,
            passfile: None,
            database: None,
            application_name: None,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            statement_deadline: None,
            tls: TlsOptions::default(),
            tcp: TcpOptions::default(),
            options: Vec::new(),
            session_settings: Vec::new(),
        }
    }

    /// Reads `postgres://user:password@host:port/database?parameter=value&…`. Every part is percent-encoded.
    ///
    /// A unix socket is written as `?host=/directory`, or as the percent-encoded directory in place of the host. An
    /// empty host stands for [`DEFAULT_SOCKET_DIR`]. Commas separate several hosts: `a:1,b:2`, or `?host=a,b&port=1,2`.
    ///
    /// Parameters: `host`, `port`, `user`, `password`, `passfile`, `dbname`, `application_name`, `connect_timeout`
    /// (whole seconds, 0 for no limit), `options` (as `-c name=value`), `sslmode`, `sslrootcert` (a file, or `system`),
    /// `sslcert`, `sslkey`, `channel_binding`, `target_session_attrs`, `keepalives`, `keepalives_idle`,
    /// `keepalives_interval`, `keepalives_count`, `tcp_user_timeout`. The fields of [`Config`] explain them. If a
    /// parameter is given more than once, the last one counts.
    ///
    /// This function reads the URL only. [`Config::from_url_and_env`] reads the environment, too, as libpq does. The
    /// URL may lack a user, but [`Config::validate`] and [`crate::Connection::connect`] require one.
    ///
    /// # Errors
    /// [`Error::Config`], which names the part that is wrong. An unknown parameter is an error.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        Ok(config_url::settings(url)?.into_config()?)
    }

    /// Reads libpq's variables: `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGPASSFILE`, `PGDATABASE`, `PGAPPNAME`,
    /// `PGCONNECT_TIMEOUT`, `PGOPTIONS`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGCHANNELBINDING`,
    /// `PGTARGETSESSIONATTRS`. Their values are those of the parameters of a URL ([`Config::from_url`]).
    ///
    /// As libpq does, it uses `.pgpass`, `.postgresql/root.crt`, `.postgresql/postgresql.crt` and
    /// `.postgresql/postgresql.key` below `HOME` if they exist and no other file is set. If no user is set, it uses the
    /// account that the process runs as.
    ///
    /// `variable` returns the value of a variable, for example `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// [`Error::Config`], which names the variable that has an invalid value, or that this client does not support.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        env::complete(Settings::default(), &variable)
    }

    /// Reads a URL as [`Config::from_url`] does, and takes what the URL leaves out from the environment as
    /// [`Config::from_env`] does. libpq reads a URL in this way.
    ///
    /// # Errors
    /// As [`Config::from_url`] and [`Config::from_env`].
    pub fn from_url_and_env(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        env::complete(config_url::settings(url)?, &variable)
    }

    /// The settings as a URL with the password masked, for logs.
    pub fn masked_url(&self) -> String {
        config_url::render_masked(self)
    }

    /// Checks the settings as far as that is possible without the server.
    ///
    /// # Errors
    /// [`Error::Config`], which names the setting that is wrong.
    pub fn validate(&self) -> Result<(), Error> {
        let value_error = |name, reason| Err(ConfigError::Value { name, reason }.into());
        if self.user.is_empty() {
            return Err(ConfigError::UserMissing.into());
        }
        for Endpoint { host, port } in self.endpoints() {
            match host {
                _ if port == 0 => return value_error("port", "must be 1 to 65535"),
                Host::Tcp(name) if name.is_empty() => return value_error("host", "is empty"),
                Host::Tcp(name) if name.contains(',') => return value_error("host", "is one name; see more_hosts"),
                Host::Unix(dir) if !dir.is_absolute() => {
                    return value_error("host", "a socket directory must be absolute");
                }
                _ => {}
            }
        }
        let by_tcp = self.endpoints().any(|endpoint| matches!(endpoint.host, Host::Tcp(_)));
        let TlsOptions { mode, root_cert, cert, key, .. } = &self.tls;
        if !by_tcp || *mode == SslMode::Disable {
            return Ok(());
        }
        match root_cert {
            None if *mode >= SslMode::VerifyCa => return Err(ConfigError::RootCertMissing { mode: *mode }.into()),
            Some(RootCert::System) if *mode != SslMode::VerifyFull => {
                return value_error("sslmode", "must be verify-full with sslrootcert=system");
            }
            _ => {}
        }
        if cert.is_some() != key.is_some() {
            return value_error("sslcert", "and sslkey go together");
        }
        Ok(())
    }

    /// All hosts in order.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let first = Endpoint { host: self.host.clone(), port: self.port };
        std::iter::once(first).chain(self.more_hosts.iter().cloned())
    }

    /// The run-time parameters for the StartupMessage.
    pub(crate) fn startup_parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![("user", self.user.as_str()), ("client_encoding", "UTF8")];
        parameters.extend(self.database.as_deref().map(|database| ("database", database)));
        parameters.extend(self.application_name.as_deref().map(|name| ("application_name", name)));
        parameters.extend(self.options.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        parameters
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.masked_url())
            .field("statement_deadline", &self.statement_deadline)
            .field("options", &self.options)
            .field("session_settings", &self.session_settings)
            .finish()
    }
}

/// The path of the unix socket in its directory.
pub(crate) fn socket_path(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}
