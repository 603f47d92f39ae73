//! Finding PostgreSQL's server binaries.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::ClusterError;
use crate::limits::{MAX_MAJOR, MIN_MAJOR};

/// The environment variable that names the directory of the binaries and overrides every other place.
pub const BINDIR_VARIABLE: &str = "FOREBAY_PG_BINDIR";

/// A directory of PostgreSQL server binaries, and their version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
    version: String,
}

impl Binaries {
    /// The directory that holds `postgres`, `initdb` and, with most packages, `psql`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Major version, [`MIN_MAJOR`] to [`MAX_MAJOR`].
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Full version as `postgres --version` states it, such as `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Path of one of the binaries, such as `psql`. Not checked to exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Finds the newest usable server binaries: in `FOREBAY_PG_BINDIR` if that is set (then nowhere else), else in the
/// places of the distributions' packages, else on `PATH`.
///
/// # Errors
/// [`ClusterError::BinariesNotFound`], or [`ClusterError::UnsupportedVersion`] if there are only ones of other versions.
pub fn find_binaries() -> Result<Binaries, ClusterError> {
    newest(&find_all()?)
}

/// As [`find_binaries`], but of the major version that made an existing data directory.
pub(crate) fn find_binaries_of(data_major: u32) -> Result<Binaries, ClusterError> {
    let found = find_all()?;
    found.iter().find(|b| b.major == data_major).cloned().ok_or_else(|| ClusterError::VersionMismatch {
        data_major,
        found_majors: found.iter().map(|b| b.major).collect(),
    })
}

fn newest(found: &[Binaries]) -> Result<Binaries, ClusterError> {
    // Reversed, since of equals the last counts as the greatest, and the first place is the preferred one.
    // `find_all` never returns an empty list; saying so in a type would only move this line.
    found.iter().rev().max_by_key(|b| b.major).cloned().ok_or(ClusterError::BinariesNotFound { searched: Vec::new() })
}

/// All usable binaries; at least one.
fn find_all() -> Result<Vec<Binaries>, ClusterError> {
    let searched = places();
    let mut found = Vec::new();
    let mut unsupported = None;
    for place in &searched {
        // A directory on PATH may hold links to some of the binaries; the others are where they lead.
        let real = fs::canonicalize(place.join("postgres")).ok();
        let Some(dir) = real.as_deref().and_then(Path::parent).filter(|dir| dir.join("initdb").is_file()) else {
            continue;
        };
        match inspect(dir) {
            Ok(binaries) => found.push(binaries),
            Err(error) => unsupported = Some(error),
        }
    }
    if found.is_empty() {
        return Err(unsupported.unwrap_or(ClusterError::BinariesNotFound { searched }));
    }
    Ok(found)
}

/// Where binaries may be, the preferred place first.
fn places() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os(BINDIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        return vec![PathBuf::from(dir)];
    }
    let mut places = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let mut names: Vec<(u32, PathBuf)> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((number, entry.path().join("bin")))
            })
            .collect();
        names.sort();
        places.extend(names.into_iter().rev().map(|(_, dir)| dir));
    }
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths).filter(|dir| dir.is_absolute()));
    places
}

/// Asks the binary in `dir` for its version.
fn inspect(dir: &Path) -> Result<Binaries, ClusterError> {
    let binary = dir.join("postgres");
    let output = Command::new(&binary)
        .arg("--version")
        .output()
        .map_err(|source| ClusterError::io("running", &binary, source))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match parse_version(&said) {
        Some((major, version)) if (MIN_MAJOR..=MAX_MAJOR).contains(&major) => {
            Ok(Binaries { dir: dir.to_owned(), major, version })
        }
        _ => Err(ClusterError::UnsupportedVersion { binary, found: said }),
    }
}

/// `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)` is `(15, "15.13")`.
fn parse_version(said: &str) -> Option<(u32, String)> {
    let version = said.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_server_says() {
        let said = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)";
        assert_eq!(parse_version(said), Some((15, "15.13".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some((18, "18beta1".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24"), Some((9, "9.6.24".to_owned())));
        assert_eq!(parse_version("something else 15"), None);
        assert_eq!(parse_version("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn the_newest_of_several_versions_is_taken() {
        let of = |dir, major: u32| Binaries { dir: PathBuf::from(dir), major, version: major.to_string() };
        let found = [of("/a", 13), of("/b", 17), of("/c", 17), of("/d", 15)];
        assert_eq!(newest(&found).unwrap(), found[1], "the first of the newest");
    }

    #[test]
    fn a_directory_whose_postgres_is_of_another_version_is_refused_with_what_it_said() {
        let dir = env::temp_dir().join(format!("forebay-binaries-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let script = dir.join("postgres");
        fs::write(&script, "#!/bin/sh\necho 'postgres (PostgreSQL) 12.4'\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = inspect(&dir).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(
            matches!(error, ClusterError::UnsupportedVersion { ref found, .. } if found.contains("12.4")),
            "{error}"
        );
    }
}
