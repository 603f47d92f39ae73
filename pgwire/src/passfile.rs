//! The password file, `~/.pgpass`, as libpq reads it ("The Password File" in its documentation).
//!
//! A line is `host:port:database:user:password`. Each of the first four fields may be `*`. A `\` escapes a `:` or `\`.
//! The first line that matches counts. The host must match the configured name, which is `localhost` for the default
//! socket directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{DEFAULT_SOCKET_DIR, Host};
use crate::core::limits::PASS_FILE_MAX_BYTES;
use crate::error::PassFileWarning;

/// The permission bits that a password file must not have: those of users other than its owner.
const OTHERS: u32 = 0o077;

/// The log-in that needs a password.
pub(crate) struct Login<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// Finds the password for a log-in. `None` if the file does not exist or has no line that matches.
pub(crate) fn find(path: &Path, login: &Login<'_>) -> Result<Option<String>, PassFileWarning> {
    let unreadable = |reason: String| PassFileWarning::Unreadable { path: path.to_owned(), reason };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !metadata.is_file() {
        return Err(PassFileWarning::NotAFile { path: path.to_owned() });
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(PassFileWarning::Permissions { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PASS_FILE_MAX_BYTES + 1).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() as u64 > PASS_FILE_MAX_BYTES => {
            Err(unreadable(format!("it is longer than {PASS_FILE_MAX_BYTES} bytes")))
        }
        Ok(_) => Ok(password_in(&content, login)),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn password_in(content: &[u8], login: &Login<'_>) -> Option<String> {
    let host = match login.host {
        Host::Unix(dir) if dir == Path::new(DEFAULT_SOCKET_DIR) => "localhost".to_owned(),
        Host::Unix(dir) => dir.to_string_lossy().into_owned(),
        Host::Tcp(name) => name.clone(),
    };
    let wanted = [host.as_str(), &login.port.to_string(), login.database, login.user];
    content.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let password = wanted.iter().try_fold(line, |rest, wanted| after_field(rest, wanted.as_bytes()))?;
        // A password that is not UTF-8 cannot be sent, so its line is skipped.
        String::from_utf8(unescape(password)).ok()
    })
}

/// The rest of the line after its first field, if that field matches.
fn after_field<'a>(line: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut line, mut wanted) = (line, wanted);
    loop {
        line = match line {
            [b':', rest @ ..] => return wanted.is_empty().then_some(rest),
            [b'\\', rest @ ..] => rest,
            line => line,
        };
        let (byte, rest) = line.split_first()?;
        wanted = wanted.strip_prefix(std::slice::from_ref(byte))?;
        line = rest;
    }
}

fn unescape(password: &[u8]) -> Vec<u8> {
    let mut bytes = password.iter();
    let mut plain = Vec::with_capacity(password.len());
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn find_in(content: &str, host: &Host, database: &str, user: &str) -> Option<String> {
        password_in(content.as_bytes(), &Login { host, port: 5432, database, user })
    }

    fn tcp(name: &str) -> Host {
        Host::Tcp(name.to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let content = "# h:5432:d:u:a comment\n\nh:5433:d:u:other port\nh:5432:e:u:other database\r\n\
                       h:5432:d:v:other user\nh:*:*:u:first\nh:5432:d:u:second\n*:*:*:*:any\n";
        assert_eq!(find_in(content, &tcp("h"), "d", "u").as_deref(), Some("first"));
        assert_eq!(find_in(content, &tcp("h"), "d", "v").as_deref(), Some("other user"));
        assert_eq!(find_in(content, &tcp("h"), "e", "u").as_deref(), Some("other database"), "without the CR");
        assert_eq!(find_in(content, &tcp("i"), "d", "u").as_deref(), Some("any"));
        assert_eq!(find_in("h:5432:d:u:p", &tcp("hh"), "d", "u"), None, "the whole name has to fit");
        assert_eq!(find_in("hh:5432:d:u:p", &tcp("h"), "d", "u"), None);
        assert_eq!(find_in("h*:5432:d:u:p", &tcp("hh"), "d", "u"), None, "a star stands for a whole field only");
    }

    #[test]
    fn what_is_escaped_is_taken_as_it_is() {
        assert_eq!(find_in(r"\:\:1:5432:a\\b:u:p\:a\\s:s\", &tcp("::1"), r"a\b", "u").as_deref(), Some(r"p:a\s:s\"));
        assert_eq!(find_in(r"\*:5432:d:u:p", &tcp("h"), "d", "u"), None, "a star that is meant as one");
        assert_eq!(find_in(r"\*:5432:d:u:p", &tcp("*"), "d", "u").as_deref(), Some("p"));
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        for line in ["", ":", "h", "h:5432", "h:5432:d:u", r"h:5432:d:u\", "::::", r"\"] {
            assert_eq!(find_in(line, &tcp("h"), "d", "u"), None, "{line}");
        }
    }

    #[test]
    fn the_default_socket_directory_is_localhost_and_another_is_itself() {
        let content = "localhost:5432:d:u:here\n/run/other:5432:d:u:there\n";
        assert_eq!(find_in(content, &Host::Unix(DEFAULT_SOCKET_DIR.into()), "d", "u").as_deref(), Some("here"));
        assert_eq!(find_in(content, &Host::Unix("/run/other".into()), "d", "u").as_deref(), Some("there"));
        assert_eq!(find_in(content, &tcp("localhost"), "d", "u").as_deref(), Some("here"));
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_none_is_not_used_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        let login = Login { host: &tcp("h"), port: 1, database: "d", user: "u" };
        assert_eq!(find(&path, &login), Ok(None), "a file that is not there is nothing to warn of");
        fs::write(&path, "h:1:d:u:secret\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let expected = if used {
                Ok(Some("secret".to_owned()))
            } else {
                Err(PassFileWarning::Permissions { path: path.clone(), mode })
            };
            assert_eq!(find(&path, &login), expected, "{mode:o}");
        }
        assert_eq!(find(dir.path(), &login), Err(PassFileWarning::NotAFile { path: dir.path().to_owned() }));
    }
}
