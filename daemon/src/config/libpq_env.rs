//! The server that libpq's environment variables name, if no setting of the daemon names one.

use super::ConfigError;
use forebay_pgwire::Config;

/// The variables that name a server. The others only say how to reach one.
const NAMING: [&str; 4] = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"];

/// The server that the variables name, if any of them does.
///
/// # Errors
/// [`ConfigError`], which names the variable that is wrong or not supported.
pub(super) fn config(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Config>, ConfigError> {
    if NAMING.iter().all(|name| variable(name).is_none()) {
        return Ok(None);
    }
    Ok(Some(Config::from_env(variable)?))
}
