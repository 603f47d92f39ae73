//! The account that PostgreSQL runs as.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use forebay_os::dir::Dir;
use forebay_os::rights::{self, Ids};
use rustix::process::{Gid, Uid};

use crate::error::{ClusterError, IoContext};
use crate::layout::PGDATA;

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
    /// If `pgdata` exists in the directory of a cluster, its owner, so that a cluster keeps its account. Otherwise this process's own account; but
    /// PostgreSQL refuses to run as root, so for root it is `postgres`, else `nobody`.
    ///
    /// # Errors
    /// [`ClusterError::WrongOwner`] if `pgdata` belongs to root or, unless we are root, to another account;
    /// [`ClusterError::NoAccount`] if root finds neither account; [`ClusterError::Io`] if
    /// the owner cannot be determined.
    pub(crate) fn choose(root: &Dir) -> Result<Self, ClusterError> {
        let pgdata = root.path().join(PGDATA);
        let owner = match root.stat(PGDATA) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            stat => stat.map(|stat| Some((stat.st_uid, stat.st_gid))).context("looking at", &pgdata)?,
        };
        Self::of_owner(owner, &pgdata)
    }

    /// The account for a new cluster.
    ///
    /// # Errors
    /// [`ClusterError::NoAccount`].
    pub(crate) fn of_a_new_cluster() -> Result<Self, ClusterError> {
        Self::of_owner(None, Path::new(PGDATA))
    }

    fn of_owner(owner: Option<(u32, u32)>, pgdata: &Path) -> Result<Self, ClusterError> {
        let euid = rustix::process::geteuid().as_raw();
        let egid = rustix::process::getegid().as_raw();
        let passwd = read_passwd();
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

    /// Makes the account the owner of a file or directory. Does nothing if the account is this process's own.
    pub(crate) fn give(&self, file: impl std::os::fd::AsFd, path: &Path) -> Result<(), ClusterError> {
        if self.switched {
            let given = rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            given.map_err(io::Error::from).context("changing the owner of", path)?;
        }
        Ok(())
    }

    /// Does `work` with the account's rights and no others. What the account owns is used so: it could have put something
    /// there that leads root astray.
    ///
    /// # Errors
    /// Those of the system when this process may not act as the account.
    pub(crate) fn act<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.switched { rights::as_account(Ids { uid: self.uid, gid: self.gid }, work) } else { Ok(work()) }
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
        assert_ne!(Account::of_a_new_cluster().unwrap().uid, 0);
        // PostgreSQL cannot run as root, whichever account the test runs as.
        let of_root = Account::of_owner(Some((0, 0)), Path::new("/"));
        assert!(matches!(of_root, Err(ClusterError::WrongOwner { owner_uid: 0, .. })));
    }
}
