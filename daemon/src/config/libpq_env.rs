//! libpq's environment variables, where nothing of our own says where PostgreSQL is.

use super::ConfigError;
use forebay_pgwire::{Config, Host};

/// The server that the variables name; `None` if there is none of those that name one.
///
/// # Errors
/// [`ConfigError`] for a port that is no number, and for an SSL mode that is not built yet.
pub(super) fn config(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Config>, ConfigError> {
    let names = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"];
    if names.iter().all(|name| variable(name).is_none()) {
        return Ok(None);
    }
    if let Some(mode @ ("require" | "verify-ca" | "verify-full")) = variable("PGSSLMODE").as_deref() {
        return Err(ConfigError(format!("PGSSLMODE={mode}: TLS to PostgreSQL is not built yet")));
    }
    let host = match variable("PGHOST") {
        Some(host) if !host.starts_with('/') => Host::Tcp(host),
        Some(directory) => Host::Unix(directory.into()),
        None => Host::Unix(forebay_pgwire::DEFAULT_SOCKET_DIR.into()),
    };
    let user = variable("PGUSER").or_else(|| variable("USER")).unwrap_or_else(|| "postgres".to_owned());
    let mut config = Config::new(host, user);
    if let Some(port) = variable("PGPORT") {
        config.port = port.parse().map_err(|_| ConfigError(format!("PGPORT={port:?} is no port")))?;
    }
    config.password = variable("PGPASSWORD");
    config.database = variable("PGDATABASE");
    Ok(Some(config))
}
