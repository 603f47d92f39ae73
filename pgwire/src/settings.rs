//! libpq's keywords, their variables, and their effect on the settings. URLs and the environment are both read into
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, DEFAULT_PORT, DEFAULT_SOCKET_DIR, Endpoint, Host};
use crate::error::ConfigError;
use crate::options::{ChannelBinding, RootCert, SslMode, TargetSession};

/// Each keyword, and its variable if it has one.
const KEYWORDS: [(&str, Option<&str>); 21] = [
    ("host", Some("PGHOST")),
    ("port", Some("PGPORT")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("dbname", Some("PGDATABASE")),
    ("application_name", Some("PGAPPNAME")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("options", Some("PGOPTIONS")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    // Accepted because some URLs always contain it. This client has no GSSAPI encryption.
    ("gssencmode", Some("PGGSSENCMODE")),
];

/// Variables that change where libpq connects or whom it trusts, and that this client does not support. If it ignored
/// them, it might connect to another server than intended, or with weaker security.
const VARIABLES_NOT_SUPPORTED: [&str; 8] = [
    "PGSERVICE",
    "PGHOSTADDR",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLNEGOTIATION",
];

/// Values by keyword. With each value is the name of the parameter or variable that it comes from, for errors.
#[derive(Default)]
pub(crate) struct Settings(BTreeMap<&'static str, (String, &'static str)>);

impl Settings {
    /// Sets a keyword, and replaces an earlier value.
    pub(crate) fn set(&mut self, keyword: &str, value: String) -> Result<(), ConfigError> {
        let known = KEYWORDS.iter().find(|(known, _)| *known == keyword);
        let (keyword, _) = known.ok_or_else(|| ConfigError::UnknownParameter { name: keyword.to_owned() })?;
        self.0.insert(keyword, (value, keyword));
        Ok(())
    }

    /// Sets the keywords that are not set from libpq's variables. An empty variable counts as not set.
    pub(crate) fn add_variables(&mut self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(name) = VARIABLES_NOT_SUPPORTED.into_iter().find(|name| variable(name).is_some()) {
            return Err(ConfigError::VariableNotSupported { name });
        }
        for (keyword, name) in KEYWORDS {
            let Some(name) = name else { continue };
            if let Some(value) = variable(name) {
                self.0.entry(keyword).or_insert((value, name));
            }
        }
        Ok(())
    }

    /// Sets the files that libpq looks for below the home directory, if they exist and no other file is set.
    pub(crate) fn add_home(&mut self, home: &Path) {
        self.0.entry("passfile").or_insert_with(|| (home.join(".pgpass").to_string_lossy().into_owned(), "passfile"));
        let in_home = |name: &str| Some(home.join(".postgresql").join(name)).filter(|path| path.exists());
        for (keyword, name) in
            [("sslrootcert", "root.crt"), ("sslcert", "postgresql.crt"), ("sslkey", "postgresql.key")]
        {
            if let Some(path) = in_home(name) {
                self.0.entry(keyword).or_insert_with(|| (path.to_string_lossy().into_owned(), keyword));
            }
        }
    }

    /// Sets the user if none is set.
    pub(crate) fn add_user(&mut self, user: String) {
        self.0.entry("user").or_insert((user, "user"));
    }

    pub(crate) fn into_config(mut self) -> Result<Config, ConfigError> {
        let mut config = Config::new(Host::Unix(PathBuf::from(DEFAULT_SOCKET_DIR)), "");
        self.take_endpoints(&mut config)?;
        for (keyword, (value, name)) in self.0 {
            apply(keyword, value, name, &mut config)?;
        }
        // As in libpq, `sslrootcert=system` implies the only mode that makes sense with it.
        if config.tls.root_cert == Some(RootCert::System) && config.tls.mode == SslMode::Prefer {
            config.tls.mode = SslMode::VerifyFull;
        }
        Ok(config)
    }

    /// Moves the lists of hosts and ports into the configuration.
    fn take_endpoints(&mut self, config: &mut Config) -> Result<(), ConfigError> {
        let (hosts, _) = self.0.remove("host").unwrap_or_default();
        let (ports, port_name) = self.0.remove("port").unwrap_or((String::new(), "port"));
        let hosts: Vec<&str> = hosts.split(',').collect();
        let ports: Vec<&str> = ports.split(',').collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(ConfigError::Value { name: port_name, reason: "must be one, or one for each host" });
        }
        let port_at = |index: usize| if ports.len() == 1 { ports[0] } else { ports[index] };
        let mut endpoints = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            endpoints.push(Endpoint { host: parse_host(host), port: parse_port(port_at(index), port_name)? });
        }
        let first = endpoints.remove(0);
        (config.host, config.port, config.more_hosts) = (first.host, first.port, endpoints);
        Ok(())
    }
}

/// Applies a keyword other than `host` and `port` to the configuration.
fn apply(keyword: &str, value: String, name: &'static str, config: &mut Config) -> Result<(), ConfigError> {
    match keyword {
        "user" => config.user = value,
        "password" => config.password = Some(value),
        "passfile" => config.passfile = Some(PathBuf::from(value)),
        "dbname" => config.database = Some(value),
        "application_name" => config.application_name = Some(value),
        "options" => config.options.push(("options".to_owned(), value)),
        "connect_timeout" => {
            config.connect_timeout = seconds(&value, name, "must be a whole number of seconds, 0 for no limit")?;
        }
        "sslrootcert" if value == "system" => config.tls.root_cert = Some(RootCert::System),
        "sslrootcert" => config.tls.root_cert = Some(RootCert::File(PathBuf::from(value))),
        "sslcert" => config.tls.cert = Some(PathBuf::from(value)),
        "sslkey" => config.tls.key = Some(PathBuf::from(value)),
        "sslmode" => {
            let reason = "must be disable, allow, prefer, require, verify-ca or verify-full";
            config.tls.mode = SslMode::from_word(&value).ok_or(ConfigError::Value { name, reason })?;
        }
        "channel_binding" => {
            let reason = "must be disable, prefer or require";
            config.tls.channel_binding =
                ChannelBinding::from_word(&value).ok_or(ConfigError::Value { name, reason })?;
        }
        "target_session_attrs" => {
            let reason = "must be any, read-write, read-only, primary or standby";
            config.target_session = TargetSession::from_word(&value).ok_or(ConfigError::Value { name, reason })?;
        }
        "gssencmode" => match value.as_str() {
            "disable" | "prefer" => {}
            _ => {
                return Err(ConfigError::Value { name, reason: "must be disable or prefer: GSSAPI is not supported" });
            }
        },
        _ => return apply_tcp(keyword, &value, name, config),
    }
    Ok(())
}

fn apply_tcp(keyword: &str, value: &str, name: &'static str, config: &mut Config) -> Result<(), ConfigError> {
    let whole_seconds = "must be a whole number of seconds, 0 for the system's value";
    match keyword {
        "keepalives" => {
            config.tcp.keepalives = match value {
                "0" => false,
                "1" => true,
                _ => return Err(ConfigError::Value { name, reason: "must be 0 or 1" }),
            }
        }
        "keepalives_idle" => config.tcp.keepalives_idle = seconds(value, name, whole_seconds)?,
        "keepalives_interval" => config.tcp.keepalives_interval = seconds(value, name, whole_seconds)?,
        "keepalives_count" => {
            let count = number(value, name, "must be a whole number, 0 for the system's value")?;
            config.tcp.keepalives_count = (count > 0).then_some(count);
        }
        "tcp_user_timeout" => {
            let millis = number(value, name, "must be a whole number of milliseconds, 0 for the system's value")?;
            config.tcp.user_timeout = (millis > 0).then(|| Duration::from_millis(millis.into()));
        }
        _ => unreachable!("{keyword} is in KEYWORDS and has no effect"),
    }
    Ok(())
}

fn number(value: &str, name: &'static str, reason: &'static str) -> Result<u32, ConfigError> {
    value.trim().parse().map_err(|_| ConfigError::Value { name, reason })
}

fn seconds(value: &str, name: &'static str, reason: &'static str) -> Result<Option<Duration>, ConfigError> {
    let seconds = number(value, name, reason)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

fn parse_host(host: &str) -> Host {
    match host {
        "" => Host::Unix(PathBuf::from(DEFAULT_SOCKET_DIR)),
        dir if dir.starts_with('/') => Host::Unix(PathBuf::from(dir)),
        name => Host::Tcp(name.to_owned()),
    }
}

fn parse_port(port: &str, name: &'static str) -> Result<u16, ConfigError> {
    match port.trim() {
        "" => Ok(DEFAULT_PORT),
        port => match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(ConfigError::Value { name, reason: "must be 1 to 65535" }),
        },
    }
}
