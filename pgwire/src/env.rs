//! libpq's environment: its variables, and its files below the home directory.

use std::path::Path;

use crate::config::Config;
use crate::config_url;
use crate::error::Error;
use crate::settings::Settings;

impl Config {
    /// Reads libpq's variables: `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGPASSFILE`, `PGDATABASE`, `PGAPPNAME`,
    /// `PGCONNECT_TIMEOUT`, `PGOPTIONS`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGCHANNELBINDING`,
    /// `PGTARGETSESSIONATTRS`, with the values that the parameters of an address have ([`Config::from_url`]).
    ///
    /// As libpq does, it takes `.pgpass`, `.postgresql/root.crt`, `.postgresql/postgresql.crt` and
    /// `.postgresql/postgresql.key` below `HOME` where they are there and nothing else is named, and where no user is
    /// named, the account that the process runs as.
    ///
    /// `variable` gives a variable's value, for example `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// [`Error::Config`], naming the variable that cannot be read or that this client does not know how to heed.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        complete(Settings::default(), &variable)
    }

    /// Reads an address as [`Config::from_url`], and what it leaves out from the environment as [`Config::from_env`]:
    /// what libpq makes of an address.
    ///
    /// # Errors
    /// As both.
    pub fn from_url_and_env(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        complete(config_url::settings(url)?, &variable)
    }
}

fn complete(mut settings: Settings, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    settings.add_variables(variable)?;
    if let Some(home) = variable("HOME").filter(|home| !home.is_empty()) {
        settings.add_home(Path::new(&home));
    }
    if let Some(user) = account() {
        settings.add_user(user);
    }
    Ok(settings.into_config()?)
}

/// Name of the account that the process runs as, where it is one of `/etc/passwd`.
fn account() -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    name_of(&passwd, rustix::process::geteuid().as_raw())
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let account = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    account.split(':').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nqueue:x:101:103:,,,:/var/lib/queue:/bin/sh\n";
        assert_eq!(name_of(passwd, 101).as_deref(), Some("queue"));
        assert_eq!(name_of(passwd, 103), None);
    }
}
