//! Finding PostgreSQL's server binaries.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::error::ClusterError;
use crate::limits::{MAX_MAJOR, MIN_MAJOR};

/// The environment variable that names the directory of the binaries. If it is set, no other directory is searched.
pub const BINDIR_VARIABLE: &str = "FOREBAY_PG_BINDIR";

/// A directory of PostgreSQL server binaries, and their version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
    version: String,
}

impl Binaries {
    /// The directory that holds `postgres`, `initdb` and, in most packages, `psql`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Major version, [`MIN_MAJOR`] to [`MAX_MAJOR`].
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Full version as `postgres --version` prints it, such as `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Path of one of the binaries, such as `psql`. It may not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Finds the newest usable server binaries. Searches `FOREBAY_PG_BINDIR` alone if that is set, otherwise the directories
/// of the distributions' packages and `PATH`.
///
/// # Errors
/// [`ClusterError::BinariesNotFound`], or [`ClusterError::UnsupportedVersion`] if all that were found are of other
/// versions.
pub fn find_binaries() -> Result<Binaries, ClusterError> {
    Ok(newest(&find_all()?))
}

/// Finds binaries of the major version that made an existing data directory.
///
/// # Errors
/// As [`find_binaries`]; [`ClusterError::VersionMismatch`] if that version is not installed.
pub(crate) fn find_binaries_of(data_major: u32) -> Result<Binaries, ClusterError> {
    let found = find_all()?;
    found.iter().find(|b| b.major == data_major).cloned().ok_or_else(|| ClusterError::VersionMismatch {
        data_major,
        found_majors: found.iter().map(|b| b.major).collect(),
    })
}

/// The newest of `found`, which must not be empty; of equally new ones, the first.
fn newest(found: &[Binaries]) -> Binaries {
    // Reversed, because `max_by_key` returns the last of equal elements.
    let newest = found.iter().rev().max_by_key(|b| b.major).cloned();
    newest.unwrap_or_else(|| unreachable!("find_all returns an error rather than an empty list"))
}

/// All usable binaries, at least one, the preferred directory first.
fn find_all() -> Result<Vec<Binaries>, ClusterError> {
    let searched = search_path();
    let account = Account::of_a_new_cluster()?;
    let mut found = Vec::new();
    let mut unsupported = None;
    for place in &searched {
        // A directory on PATH may hold links to only some of the binaries, so the links are followed. A path that does
        // not resolve holds no binary.
        let real = fs::canonicalize(place.join("postgres")).ok();
        let Some(dir) = real.as_deref().and_then(Path::parent).filter(|dir| dir.join("initdb").is_file()) else {
            continue;
        };
        match inspect(dir, &account) {
            Ok(binaries) => found.push(binaries),
            Err(error) => unsupported = Some(error),
        }
    }
    if found.is_empty() {
        return Err(unsupported.unwrap_or(ClusterError::BinariesNotFound { searched }));
    }
    Ok(found)
}

/// The directories to search, the preferred one first.
fn search_path() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os(BINDIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        return vec![PathBuf::from(dir)];
    }
    let mut dirs = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        // A directory that cannot be listed is one that holds no packages.
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((number, entry.path().join("bin")))
            })
            .collect();
        versions.sort();
        dirs.extend(versions.into_iter().rev().map(|(_, dir)| dir));
    }
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths).filter(|dir| dir.is_absolute()));
    dirs
}

/// Runs `postgres --version` in `dir`, as the account that would run the server.
fn inspect(dir: &Path, account: &Account) -> Result<Binaries, ClusterError> {
    let binary = dir.join("postgres");
    let mut command = Command::new(&binary);
    if account.switched {
        command.uid(account.uid).gid(account.gid).current_dir("/");
    }
    let output = command.arg("--version").output().map_err(|source| ClusterError::io("running", &binary, source))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match parse_version(&printed) {
        Some((major, version)) if (MIN_MAJOR..=MAX_MAJOR).contains(&major) => {
            Ok(Binaries { dir: dir.to_owned(), major, version })
        }
        _ => Err(ClusterError::UnsupportedVersion { binary, found: printed }),
    }
}

/// Major and full version: `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)` gives `(15, "15.13")`.
fn parse_version(printed: &str) -> Option<(u32, String)> {
    let version = printed.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_output_of_the_server() {
        let printed = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)";
        assert_eq!(parse_version(printed), Some((15, "15.13".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some((18, "18beta1".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24"), Some((9, "9.6.24".to_owned())));
        assert_eq!(parse_version("something else 15"), None);
        assert_eq!(parse_version("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn the_newest_of_several_versions_is_chosen() {
        let of = |dir, major: u32| Binaries { dir: PathBuf::from(dir), major, version: major.to_string() };
        let found = [of("/a", 13), of("/b", 17), of("/c", 17), of("/d", 15)];
        assert_eq!(newest(&found), found[1], "the first of the newest");
    }

    #[test]
    fn a_directory_with_an_unsupported_version_is_refused_with_the_version_in_the_error() {
        let dir = env::temp_dir().join(format!("forebay-binaries-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let script = dir.join("postgres");
        fs::write(&script, "#!/bin/sh\necho 'postgres (PostgreSQL) 12.4'\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = inspect(&dir, &Account::of_a_new_cluster().unwrap()).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(
            matches!(error, ClusterError::UnsupportedVersion { ref found, .. } if found.contains("12.4")),
            "{error}"
        );
    }
}
