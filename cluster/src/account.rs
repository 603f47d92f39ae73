//! The account that PostgreSQL runs as.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::error::{ClusterError, IoContext};

/// The account that runs the server and owns its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// For messages: the account's name, or its uid if it has none.
    pub(crate) name: String,
    /// Whether the account differs from this process's own. Only root can switch.
    pub(crate) switched: bool,
}

impl Account {
    /// If `pgdata` exists, its owner, so that a cluster keeps its account. Otherwise this process's own account; but
    /// PostgreSQL refuses to run as root, so for root it is `postgres`, else `nobody`.
    ///
    /// # Errors
    /// [`ClusterError::WrongOwner`] if `pgdata` belongs to root or, unless we are root, to another account;
    /// [`ClusterError::NoAccount`] if root finds neither account; [`ClusterError::Io`] if
    /// the owner cannot be determined.
    pub(crate) fn choose(pgdata: &Path) -> Result<Self, ClusterError> {
        let euid = rustix::process::geteuid().as_raw();
        let egid = rustix::process::getegid().as_raw();
        let passwd = read_passwd();
        let owner = match fs::symlink_metadata(pgdata) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            meta => meta.map(|meta| Some((meta.uid(), meta.gid()))).context("looking at", pgdata)?,
        };
        let (uid, gid) = match owner {
            Some((uid, gid)) if uid != 0 && (euid == 0 || uid == euid) => (uid, gid),
            Some((owner_uid, _)) => return Err(ClusterError::WrongOwner { dir: pgdata.to_owned(), owner_uid }),
            None if euid != 0 => (euid, egid),
            None => ["postgres", "nobody"]
                .iter()
                .find_map(|name| Some(by_name(&passwd, name)?).filter(|(uid, _)| *uid != 0))
                .ok_or(ClusterError::NoAccount)?,
        };
        let name = name_of(&passwd, uid).map_or_else(|| uid.to_string(), str::to_owned);
        Ok(Self { uid, gid, name, switched: uid != euid })
    }

    /// Makes the account the owner of `path`. Does nothing if the account is this process's own.
    pub(crate) fn give(&self, path: &Path) -> Result<(), ClusterError> {
        if self.switched {
            chown(path, Some(self.uid), Some(self.gid)).context("changing the owner of", path)?;
        }
        Ok(())
    }
}

/// The text of /etc/passwd; empty if it cannot be read. A missing file is ordinary in a minimal container: accounts then
/// have no names, and the files' owners still tell who they are.
fn read_passwd() -> String {
    let path = "/etc/passwd";
    fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::debug!(path, %error, "cannot read the names of accounts");
        String::new()
    })
}

/// Uid and gid of the account `name` in the text of a passwd(5) file.
fn by_name(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
    let uid = fields.nth(2)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?.split(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:103:,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        assert_eq!(by_name(PASSWD, "postgres"), Some((101, 103)));
        assert_eq!(by_name(PASSWD, "postgre"), None);
        assert_eq!(name_of(PASSWD, 101), Some("postgres"));
        assert_eq!(name_of(PASSWD, 103), None);
    }

    #[test]
    fn postgresql_is_never_run_as_root() {
        let account = Account::choose(Path::new("/nonexistent/pgdata")).unwrap();
        assert_ne!(account.uid, 0);
        // Root owns `/`, and PostgreSQL cannot run as root, whichever account the test runs as.
        assert!(matches!(Account::choose(Path::new("/")), Err(ClusterError::WrongOwner { owner_uid: 0, .. })));
    }
}
