//! From `--sync` to the sync method of the log: what the file system supports, and what `auto` measures and keeps.
//!
//! `wal/sync-method` is one line, `direct` or `fdatasync`. With any other content the method is measured again.

use super::Sync;
use forebay_wal::{
    error::{LogError, is_no_room},
    probe::{self, DirectIo, MEASURE_BUDGET, Measurement},
    storage::{Disk, Storage},
};
use std::io;

/// The file in the log's directory in which `auto` keeps the method.
const FILE: &str = "sync-method";

/// The method for the log in `wal`. It is never [`Sync::Auto`], and never weaker than the setting. The caller must hold the data directory's lock.
///
/// # Errors
/// [`LogError::Io`] when the directory cannot be written to, or the method that `auto` kept cannot be read.
pub fn resolve(setting: Sync, wal: &Disk) -> Result<Sync, LogError> {
    match setting {
        Sync::Auto => auto(wal),
        Sync::Direct => direct_or_fdatasync(wal),
        Sync::Fdatasync | Sync::None => Ok(setting),
    }
}

fn direct_or_fdatasync(wal: &Disk) -> Result<Sync, LogError> {
    match probe::probe_direct_io(wal)? {
        DirectIo::Supported => Ok(Sync::Direct),
        DirectIo::Unsupported(error) => {
            tracing::warn!(%error, dir = %wal.dir().path().display(), "the file system refuses O_DIRECT: fdatasync is used instead");
            Ok(Sync::Fdatasync)
        }
        DirectIo::Unknown(error) => {
            tracing::warn!(%error, "the disk is too full to test O_DIRECT: it is used untested");
            Ok(Sync::Direct)
        }
    }
}

fn auto(wal: &Disk) -> Result<Sync, LogError> {
    let kept = read(wal)?;
    if let Some(kept) = kept {
        tracing::info!(method = kept.name(), "sync method as measured at an earlier start");
        return resolve(kept, wal);
    }
    let chosen = match direct_or_fdatasync(wal)? {
        Sync::Direct => match probe::measure(wal, MEASURE_BUDGET)? {
            Some(measured) => chosen_by(&measured),
            None => {
                tracing::warn!(
                    "the disk is too slow or too full to measure: direct is used, and the next start measures"
                );
                return Ok(Sync::Direct);
            }
        },
        only => only,
    };
    match keep(wal, chosen) {
        Err(error) if error.is_no_room() => {
            tracing::warn!(%error, "the disk is too full to keep the sync method: the next start measures it again");
        }
        kept => kept?,
    }
    Ok(chosen)
}

fn chosen_by(measured: &Measurement) -> Sync {
    let chosen = Sync::from(measured.faster_method());
    let Measurement { direct, fdatasync } = measured;
    tracing::info!(
        method = chosen.name(),
        direct_4k_us = direct.block.as_micros() as u64,
        direct_64k_us = direct.large.as_micros() as u64,
        fdatasync_4k_us = fdatasync.block.as_micros() as u64,
        fdatasync_64k_us = fdatasync.large.as_micros() as u64,
        "sync method measured; the times are medians"
    );
    chosen
}

/// The method that an earlier start kept; `None` if there is none, or the file's content names none.
fn read(wal: &Disk) -> Result<Option<Sync>, LogError> {
    let path = wal.dir().path().join(FILE);
    match wal.read_small(&path) {
        Ok(content) => {
            let kept = parse(&content);
            if kept.is_none() {
                tracing::warn!(path = %path.display(), "the file names no durable sync method: it is measured again");
            }
            Ok(kept)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LogError::Io { action: "read", path, source }),
    }
}

/// The durable method that the file's content names. `none` is not durable; only the setting itself can choose it.
fn parse(content: &[u8]) -> Option<Sync> {
    let name = content.strip_suffix(b"\n")?;
    [Sync::Direct, Sync::Fdatasync].into_iter().find(|method| method.name().as_bytes() == name)
}

/// Keeps the method for later starts. The file is written whole or not at all.
fn keep(wal: &Disk, method: Sync) -> Result<(), LogError> {
    let path = wal.dir().path().join(FILE);
    match wal.dir().write_whole(FILE, format!("{}\n", method.name()).as_bytes()) {
        Err(error) if is_no_room(&error) => {
            tracing::warn!(%error, "the sync method is not kept: the next start measures again");
            Ok(())
        }
        kept => kept.map_err(|source| LogError::Io { action: "write", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_names_a_durable_method_is_read() {
        assert_eq!(parse(b"direct\n"), Some(Sync::Direct));
        assert_eq!(parse(b"fdatasync\n"), Some(Sync::Fdatasync));
        for content in
            ["", "\n", "direct", "none\n", "auto\n", "Direct\n", "direct \n", "direct\ndirect\n", "dir\0ct\n"]
        {
            assert_eq!(parse(content.as_bytes()), None, "{content:?}");
        }
        assert_eq!(parse(b"\xff\n"), None);
    }

    #[test]
    fn what_is_kept_is_read_again_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Disk::at(dir.path()).unwrap();
        assert_eq!(read(&wal).unwrap(), None);
        for method in [Sync::Fdatasync, Sync::Direct, Sync::Fdatasync] {
            keep(&wal, method).unwrap();
            assert_eq!(read(&wal).unwrap(), Some(method));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        assert_eq!(resolve(Sync::Auto, &wal).unwrap(), Sync::Fdatasync);
    }

    #[test]
    fn a_kept_method_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(matches!(resolve(Sync::Auto, &Disk::at(dir.path()).unwrap()), Err(LogError::Io { .. })));
    }

    #[test]
    fn what_is_asked_for_in_so_many_words_is_neither_measured_nor_kept() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Disk::at(dir.path()).unwrap();
        for setting in [Sync::Fdatasync, Sync::None] {
            assert_eq!(resolve(setting, &wal).unwrap(), setting);
        }
        assert!(matches!(resolve(Sync::Direct, &wal).unwrap(), Sync::Direct | Sync::Fdatasync));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
