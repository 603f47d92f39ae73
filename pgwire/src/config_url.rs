//! `postgres://` addresses, as libpq reads them ("Connection URIs" in its documentation).

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, DEFAULT_SOCKET_DIR, Host};
use crate::error::ConfigError;

pub(crate) fn parse(url: &str) -> Result<Config, ConfigError> {
    let rest =
        url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(ConfigError::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The last `@`: an unencoded one in a password is common, and a host never has one.
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));

    let mut config = Config::new(Host::Unix(PathBuf::from(DEFAULT_SOCKET_DIR)), "");
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    config.user = decode(user, "user")?;
    config.password = password.map(|password| decode(password, "password")).transpose()?;
    if !database.is_empty() {
        config.database = Some(decode(database, "database")?);
    }
    parse_place(place, &mut config)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set_parameter(&decode(name, "parameter")?, &decode(value, "parameter")?, &mut config)?;
    }
    Ok(config)
}

fn parse_place(place: &str, config: &mut Config) -> Result<(), ConfigError> {
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let (host, after) =
            bracketed.split_once(']').ok_or(ConfigError::Value { name: "host", reason: "a '[' is not closed" })?;
        match after.strip_prefix(':') {
            Some(port) => (host, port),
            None if after.is_empty() => (host, ""),
            None => return Err(ConfigError::Value { name: "host", reason: "text after ']'" }),
        }
    } else {
        place.rsplit_once(':').unwrap_or((place, ""))
    };
    if !host.is_empty() {
        config.host = host_of(&decode(host, "host")?)?;
    }
    if !port.is_empty() {
        config.port = port_of(port)?;
    }
    Ok(())
}

fn set_parameter(name: &str, value: &str, config: &mut Config) -> Result<(), ConfigError> {
    match name {
        "host" => config.host = host_of(value)?,
        "port" => config.port = port_of(value)?,
        "user" => config.user = value.to_owned(),
        "password" => config.password = Some(value.to_owned()),
        "dbname" => config.database = Some(value.to_owned()),
        "application_name" => config.application_name = Some(value.to_owned()),
        "options" => config.options.push(("options".to_owned(), value.to_owned())),
        "connect_timeout" => {
            let seconds: u32 = value.parse().map_err(|_| ConfigError::Value {
                name: "connect_timeout",
                reason: "must be a whole number of seconds, 0 for ever",
            })?;
            config.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        }
        "sslmode" => check_sslmode(value)?,
        _ => return Err(ConfigError::UnknownParameter { name: name.to_owned() }),
    }
    Ok(())
}

fn check_sslmode(mode: &str) -> Result<(), ConfigError> {
    match mode {
        "disable" | "allow" | "prefer" => Ok(()),
        "require" | "verify-ca" | "verify-full" => Err(ConfigError::TlsNotSupported { mode: mode.to_owned() }),
        _ => Err(ConfigError::Value {
            name: "sslmode",
            reason: "must be disable, allow, prefer, require, verify-ca or verify-full",
        }),
    }
}

fn host_of(host: &str) -> Result<Host, ConfigError> {
    if host.starts_with('/') {
        return Ok(Host::Unix(PathBuf::from(host)));
    }
    if host.contains(',') {
        return Err(ConfigError::Value { name: "host", reason: "several hosts are not supported" });
    }
    Ok(Host::Tcp(host.to_owned()))
}

fn port_of(port: &str) -> Result<u16, ConfigError> {
    match port.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConfigError::Value { name: "port", reason: "must be 1 to 65535" }),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str, name: &'static str) -> Result<String, ConfigError> {
    let error = |reason| ConfigError::Value { name, reason };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.split_off(..2).ok_or_else(|| error("a '%' without two digits"))?;
        match (hex(digits[0]), hex(digits[1])) {
            (Some(0), Some(0)) => return Err(error("holds a NUL (%00)")),
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(error("a '%' without two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| error("is not UTF-8 after decoding"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(crate) fn render_masked(config: &Config) -> String {
    let mut url = String::from("postgres://");
    url.push_str(&encode(&config.user));
    if config.password.is_some() {
        url.push_str(":***");
    }
    url.push('@');
    match &config.host {
        Host::Tcp(name) if name.contains(':') => url.push_str(&format!("[{name}]")),
        Host::Tcp(name) => url.push_str(&encode(name)),
        Host::Unix(dir) => url.push_str(&encode(&dir.to_string_lossy())),
    }
    url.push_str(&format!(":{}", config.port));
    if let Some(database) = &config.database {
        url.push('/');
        url.push_str(&encode(database));
    }
    let mut separator = '?';
    let mut parameter = |name: &str, value: &str| {
        url.push_str(&format!("{separator}{name}={}", encode(value)));
        separator = '&';
    };
    if let Some(name) = &config.application_name {
        parameter("application_name", name);
    }
    parameter("connect_timeout", &config.connect_timeout.map_or(0, |timeout| timeout.as_secs()).to_string());
    url
}
