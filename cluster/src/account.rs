//! Which account PostgreSQL runs as.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::error::{ClusterError, IoContext};

/// The account the server runs as, and which owns its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// For messages; a number where the account has no name.
    pub(crate) name: String,
    /// True if the account is not the one of this process, which is root then.
    pub(crate) switched: bool,
}

impl Account {
    /// The owner of `pgdata` if that exists, so that a cluster keeps its account. Else this process's own account, or,
    /// as PostgreSQL refuses to run as root, `postgres` or `nobody`.
    pub(crate) fn choose(pgdata: &Path) -> Result<Self, ClusterError> {
        let euid = rustix::process::geteuid().as_raw();
        let egid = rustix::process::getegid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let owner = fs::symlink_metadata(pgdata).ok().map(|meta| (meta.uid(), meta.gid()));
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

    /// Gives `path` to the account; nothing to do where the account is our own.
    pub(crate) fn give(&self, path: &Path) -> Result<(), ClusterError> {
        if self.switched {
            chown(path, Some(self.uid), Some(self.gid)).context("changing the owner of", path)?;
        }
        Ok(())
    }
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
        // The root directory belongs to root: whoever we are, a cluster owned by root has no account to run as.
        assert!(matches!(Account::choose(Path::new("/")), Err(ClusterError::WrongOwner { owner_uid: 0, .. })));
    }
}
