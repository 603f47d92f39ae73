//! Which PostgreSQL the settings and the environment name.

use super::{ConfigError, libpq_env};
use serde::{Serialize, Serializer};

/// Where PostgreSQL is.
#[derive(Clone, Debug)]
pub enum PostgresTarget {
    /// A private server below the data directory.
    Embedded,
    /// A server that somebody else runs.
    External(Box<forebay_pgwire::Config>),
}

impl PostgresTarget {
    /// `FOREBAY_POSTGRES` (or its flag, or the file), else `DATABASE_URL`, else libpq's variables, else the private server.
    ///
    /// # Errors
    /// [`ConfigError::Postgres`] for a URL or a variable that is wrong or not supported.
    pub(super) fn resolve(setting: Option<String>) -> Result<Self, ConfigError> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match setting.or_else(|| environment("DATABASE_URL")) {
            Some(target) if target == "embedded" => Ok(Self::Embedded),
            Some(url) => {
                // libpq's variables supply what the URL leaves out: a password, certificates, the mode of TLS.
                let config = forebay_pgwire::Config::from_url_and_env(&url, environment)?;
                Ok(Self::External(Box::new(config)))
            }
            None => match libpq_env::config(environment)? {
                Some(config) => Ok(Self::External(Box::new(config))),
                None => Ok(Self::Embedded),
            },
        }
    }
}

impl Serialize for PostgresTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Embedded => serializer.serialize_str("embedded"),
            Self::External(config) => serializer.serialize_str(&config.masked_url()),
        }
    }
}
