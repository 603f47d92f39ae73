//! `postgres://` URLs, as libpq reads them ("Connection URIs" in its documentation).

use std::time::Duration;

use crate::config::{Config, Endpoint, Host};
use crate::error::ConfigError;
use crate::options::{ChannelBinding, RootCert, SslMode, TargetSession, TcpOptions};
use crate::settings::Settings;

/// The settings in a URL.
pub(crate) fn settings(url: &str) -> Result<Settings, ConfigError> {
    let rest =
        url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(ConfigError::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The last `@` counts: passwords often contain one that is not encoded, but host names never do.
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));

    let mut settings = Settings::default();
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    if !user.is_empty() {
        settings.set("user", decode(user, "user")?)?;
    }
    if let Some(password) = password {
        settings.set("password", decode(password, "password")?)?;
    }
    if !database.is_empty() {
        settings.set("dbname", decode(database, "database")?)?;
    }
    set_hosts(hosts, &mut settings)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, "parameter")?, decode(value, "parameter")?);
        if name == "port" && value.is_empty() {
            return Err(ConfigError::Value { name: "port", reason: "must be 1 to 65535" });
        }
        settings.set(&name, value)?;
    }
    Ok(settings)
}

/// Sets the lists of hosts and ports.
fn set_hosts(list: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    if list.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for host_and_port in list.split(',') {
        let (host, port) = split_port(host_and_port)?;
        hosts.push(decode(host, "host")?);
        ports.push(port);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        settings.set("host", hosts.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        settings.set("port", ports.join(","))?;
    }
    Ok(())
}

fn split_port(host_and_port: &str) -> Result<(&str, &str), ConfigError> {
    let Some(bracketed) = host_and_port.strip_prefix('[') else {
        return Ok(host_and_port.rsplit_once(':').unwrap_or((host_and_port, "")));
    };
    let (host, after) =
        bracketed.split_once(']').ok_or(ConfigError::Value { name: "host", reason: "a '[' is not closed" })?;
    match after.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if after.is_empty() => Ok((host, "")),
        None => Err(ConfigError::Value { name: "host", reason: "text after ']'" }),
    }
}

/// Decodes percent-encoding.
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
            (Some(0), Some(0)) => return Err(error("contains a NUL (%00)")),
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

/// The settings as a URL with the password masked.
pub(crate) fn render_masked(config: &Config) -> String {
    let mut url = String::from("postgres://");
    url.push_str(&encode(&config.user));
    if config.password.is_some() {
        url.push_str(":***");
    }
    url.push('@');
    for (index, Endpoint { host, port }) in config.endpoints().enumerate() {
        if index > 0 {
            url.push(',');
        }
        match host {
            Host::Tcp(name) if name.contains(':') => url.push_str(&format!("[{name}]")),
            Host::Tcp(name) => url.push_str(&encode(&name)),
            Host::Unix(dir) => url.push_str(&encode(&dir.to_string_lossy())),
        }
        url.push_str(&format!(":{port}"));
    }
    if let Some(database) = &config.database {
        url.push('/');
        url.push_str(&encode(database));
    }
    let mut separator = '?';
    for (name, value) in parameters(config) {
        url.push_str(&format!("{separator}{name}={}", encode(&value)));
        separator = '&';
    }
    url
}

/// The parameters with the settings that differ from their defaults. The time to connect is always among them.
fn parameters(config: &Config) -> Vec<(&'static str, String)> {
    let seconds = |time: Option<Duration>| time.map_or(0, |time| time.as_secs()).to_string();
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut all = Vec::new();
    all.extend(config.application_name.clone().map(|name| ("application_name", name)));
    all.push(("connect_timeout", seconds(config.connect_timeout)));
    let tls = &config.tls;
    all.extend((tls.mode != SslMode::Prefer).then(|| ("sslmode", tls.mode.to_string())));
    all.extend(tls.root_cert.as_ref().map(|root| match root {
        RootCert::System => ("sslrootcert", "system".to_owned()),
        RootCert::File(file) => ("sslrootcert", path(file)),
    }));
    all.extend(tls.cert.as_deref().map(|file| ("sslcert", path(file))));
    all.extend(tls.key.as_deref().map(|file| ("sslkey", path(file))));
    let binding = tls.channel_binding;
    all.extend((binding != ChannelBinding::Prefer).then(|| ("channel_binding", binding.to_string())));
    all.extend(config.passfile.as_deref().map(|file| ("passfile", path(file))));
    let wanted = config.target_session;
    all.extend((wanted != TargetSession::Any).then(|| ("target_session_attrs", wanted.to_string())));
    let (tcp, default) = (&config.tcp, TcpOptions::default());
    all.extend((!tcp.keepalives).then(|| ("keepalives", "0".to_owned())));
    for (name, set, default) in [
        ("keepalives_idle", tcp.keepalives_idle, default.keepalives_idle),
        ("keepalives_interval", tcp.keepalives_interval, default.keepalives_interval),
    ] {
        all.extend((set != default).then(|| (name, seconds(set))));
    }
    let count = tcp.keepalives_count;
    all.extend((count != default.keepalives_count).then(|| ("keepalives_count", count.unwrap_or(0).to_string())));
    let timeout = tcp.user_timeout.map_or(0, |timeout| timeout.as_millis());
    all.extend((tcp.user_timeout != default.user_timeout).then(|| ("tcp_user_timeout", timeout.to_string())));
    all
}
