//! The environment of libpq: variables, and files below the home directory.

use std::path::Path;

use crate::config::Config;
use crate::error::Error;
use crate::settings::Settings;

/// The settings, completed from the environment where they leave something out.
pub(crate) fn complete(mut settings: Settings, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    settings.add_variables(variable)?;
    if let Some(home) = variable("HOME").filter(|home| !home.is_empty()) {
        settings.add_home(Path::new(&home));
    }
    if let Some(user) = account() {
        settings.add_user(user);
    }
    Ok(settings.into_config()?)
}

/// The name of the account that the process runs as, if `/etc/passwd` has it.
fn account() -> Option<String> {
    // Without a readable file the account has no name, and the user must be set in another way.
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
