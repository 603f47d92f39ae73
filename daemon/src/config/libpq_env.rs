//! The server that libpq's environment names, where nothing of our own says where PostgreSQL is.

use super::ConfigError;
use forebay_pgwire::Config;

/// The variables that name a server, and not only how to reach it.
const NAMING: [&str; 4] = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"];

/// The server that the variables name; `None` if there is none of those that name one.
///
/// # Errors
/// [`ConfigError`], naming the variable that cannot be read or heeded.
pub(super) fn config(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Config>, ConfigError> {
    if NAMING.iter().all(|name| variable(name).is_none()) {
        return Ok(None);
    }
    Config::from_env(variable).map(Some).map_err(|error| ConfigError(error.to_string()))
}
