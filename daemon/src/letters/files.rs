//! Dead letters that PostgreSQL's table refuses as well: NDJSON files below the log, one for each drain transaction.
//!
//! A file is durable before its transaction commits. Until that is known its name ends with `.pending`; then with `.ndjson`,
//! or it is gone. The name says which record it begins with, so the checkpoint decides after a crash: what it has not
//! passed is still in the log, comes again, and is judged anew.

use super::DeadLetter;
use forebay_os::dir::Dir;
use rustix::fs::{FlockOperation, OFlags};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    time::{Duration, SystemTime},
};

/// Directory below the log's.
const DIR: &str = "dead-letters";
/// End of the name of a file whose transaction is not known to have committed.
const PENDING: &str = "pending";
/// End of the name of one whose transaction has.
const KEPT: &str = "ndjson";
/// End of the name of one that is being changed.
const TEMPORARY: &str = "tmp";

/// Only the own account may use the directory.
const DIR_MODE: u32 = 0o700;

/// The directory.
#[derive(Clone, Debug)]
pub struct LetterFiles {
    wal: Option<Dir>,
}

/// A file as its name tells: the first of its records, and whose transaction it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    /// Number of its first record.
    pub number: u64,
    /// Lane of that.
    pub lane: u16,
    /// Ordinal of that in its lane.
    pub ordinal: u64,
    /// The drainer of the transaction.
    pub drainer: i32,
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}-lane{}-{}-drainer{}", self.number, self.lane, self.ordinal, self.drainer)
    }
}

impl FileName {
    /// Reads the name of a file that ends with `.{ending}`.
    fn parse(name: &str, ending: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(ending)?.strip_suffix('.')?.splitn(4, '-');
        let number = parts.next()?.parse().ok()?;
        let lane = parts.next()?.strip_prefix("lane")?.parse().ok()?;
        let ordinal = parts.next()?.parse().ok()?;
        let drainer = parts.next()?.strip_prefix("drainer")?.parse().ok()?;
        Some(Self { number, lane, ordinal, drainer })
    }
}

impl LetterFiles {
    /// Those of the log in `wal`.
    #[must_use]
    pub fn below(wal: &Dir) -> Self {
        Self { wal: Some(wal.clone()) }
    }

    /// No files: there is no log here.
    #[must_use]
    pub fn none() -> Self {
        Self { wal: None }
    }

    fn wal(&self) -> io::Result<&Dir> {
        self.wal.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory; `None` before there was a letter.
    fn dir(&self) -> io::Result<Option<Dir>> {
        match self.wal().and_then(|wal| wal.dir(DIR)) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the letters of a transaction that is about to commit. They are durable when this returns, name and all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, name: &FileName, letters: &[DeadLetter]) -> io::Result<()> {
        let dir = self.wal()?.make_dir(DIR, DIR_MODE)?;
        write_lines(dir.recreate_file(path(name, PENDING), OFlags::empty())?, letters)?;
        dir.sync()
    }

    /// The transaction committed.
    ///
    /// # Errors
    /// Those of the file system; [`settle`](Self::settle) makes up for it.
    pub fn keep(&self, name: &FileName) -> io::Result<()> {
        self.wal()?.dir(DIR)?.rename(path(name, PENDING), path(name, KEPT))
    }

    /// The transaction was rolled back.
    ///
    /// # Errors
    /// Those of the file system; [`settle`](Self::settle) makes up for it.
    pub fn discard(&self, name: &FileName) -> io::Result<()> {
        self.wal()?.dir(DIR)?.remove(path(name, PENDING))
    }

    /// Decides about the files whose transactions of `drainer` ended unseen: those whose first record `is_done` are kept. With
    /// `goes_back` those that were kept are removed as well where it is not.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn settle(&self, drainer: i32, goes_back: bool, is_done: impl Fn(u16, u64) -> bool) -> io::Result<()> {
        let Some(dir) = self.dir()? else { return Ok(()) };
        for name in names(&dir, PENDING)?.iter().filter(|name| name.drainer == drainer) {
            if is_done(name.lane, name.ordinal) { self.keep(name)? } else { self.discard(name)? }
        }
        if goes_back {
            let names = names(&dir, KEPT)?;
            let again = names.iter().filter(|name| name.drainer == drainer && !is_done(name.lane, name.ordinal));
            again.into_iter().try_for_each(|name| dir.remove(path(name, KEPT)))?;
        }
        Ok(())
    }

    /// When something in the directory was made, removed or renamed last; `None` while there is no directory.
    #[must_use]
    pub fn changed_at(&self) -> Option<SystemTime> {
        let stat = self.dir().ok()??.stat_self().ok()?;
        let since_1970 = Duration::new(stat.st_mtime.try_into().ok()?, stat.st_mtime_nsec.try_into().ok()?);
        Some(SystemTime::UNIX_EPOCH + since_1970)
    }

    /// Shows the letters in the files that are kept to `see`, one by one: only one of them is in memory. They come by number
    /// within a file, and the files by their first number.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData`, naming file and line, for what is no letter.
    pub fn each(&self, mut see: impl FnMut(DeadLetter)) -> io::Result<()> {
        let Some(dir) = self.dir()? else { return Ok(()) };
        for name in names(&dir, KEPT)? {
            each_of(&dir, &name, &mut see)?;
        }
        Ok(())
    }

    /// How many letters the files have that are kept.
    ///
    /// # Errors
    /// As [`each`](Self::each), here and below.
    pub fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        self.each(|_| count += 1)?;
        Ok(count)
    }

    /// The letters with these numbers, as far as they are there.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn find(&self, numbers: &[u64]) -> io::Result<Vec<DeadLetter>> {
        let mut found = Vec::new();
        self.each(|letter| {
            if letter.number.is_some_and(|number| numbers.contains(&number)) {
                found.push(letter);
            }
        })?;
        Ok(found)
    }

    /// Removes the letter of that number. Returns whether it was there.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn remove(&self, number: u64) -> io::Result<bool> {
        self.change(number, |_| None)
    }

    /// Replaces a letter by what `change` makes of it, or removes it. Returns whether it was there.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn change(&self, number: u64, change: impl FnOnce(DeadLetter) -> Option<DeadLetter>) -> io::Result<bool> {
        let Some(dir) = self.dir()? else { return Ok(false) };
        // Two who change a file at the same time would bring back what the other one removed. The lock is that of one open:
        // the directory is opened for each change.
        rustix::fs::flock(&dir, FlockOperation::LockExclusive)?;
        // The names rise with the numbers, but a later transaction may hold earlier numbers of another lane.
        for name in names(&dir, KEPT)?.iter().filter(|name| name.number <= number) {
            let mut letters = read(&dir, name)?;
            let Some(at) = letters.iter().position(|letter| letter.number == Some(number)) else { continue };
            let letter = letters.remove(at);
            if let Some(changed) = change(letter) {
                letters.insert(at, changed);
            }
            if letters.is_empty() {
                dir.remove(path(name, KEPT))?;
            } else {
                write_lines(dir.recreate_file(path(name, TEMPORARY), OFlags::empty())?, &letters)?;
                dir.rename(path(name, TEMPORARY), path(name, KEPT))?;
            }
            dir.sync()?;
            return Ok(true);
        }
        Ok(false)
    }
}

fn path(name: &FileName, ending: &str) -> String {
    format!("{name}.{ending}")
}

fn names(dir: &Dir, ending: &str) -> io::Result<Vec<FileName>> {
    // A stranger's file is left alone.
    let names = dir.names()?;
    let mut names: Vec<_> =
        names.iter().filter_map(|name| name.to_str().and_then(|name| FileName::parse(name, ending))).collect();
    names.sort_by_key(|name| name.number);
    Ok(names)
}

fn read(dir: &Dir, name: &FileName) -> io::Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    each_of(dir, name, |letter| letters.push(letter))?;
    Ok(letters)
}

fn each_of(dir: &Dir, name: &FileName, mut see: impl FnMut(DeadLetter)) -> io::Result<()> {
    let name = path(name, KEPT);
    let file = match dir.open_file(&name, OFlags::RDONLY) {
        // Its last letter was dealt with since the directory was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let invalid = |error| {
            let path = dir.path().join(&name);
            io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), index + 1))
        };
        see(serde_json::from_str(&line?).map_err(invalid)?);
    }
    Ok(())
}

fn write_lines(file: File, letters: &[DeadLetter]) -> io::Result<()> {
    let mut out = BufWriter::new(&file);
    for letter in letters {
        serde_json::to_writer(&mut out, letter)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    drop(out);
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(number: u64) -> DeadLetter {
        DeadLetter::of(number, 1, format!("\n{number}").as_bytes(), None, ("XXFB1", "no"))
    }

    fn numbers(files: &LetterFiles) -> Vec<u64> {
        let mut numbers = Vec::new();
        files.each(|letter| numbers.push(letter.number.unwrap())).unwrap();
        assert_eq!(files.count().unwrap(), numbers.len() as u64);
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn what_did_not_commit_is_not_shown_and_the_checkpoint_decides_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let files = LetterFiles::below(&Dir::open(dir.path()).unwrap());
        assert!(numbers(&files).is_empty() && files.changed_at().is_none(), "no directory is made for nothing");
        let name = |ordinal| FileName { number: 10 + ordinal, lane: 3, ordinal, drainer: 0 };
        for ordinal in 0..4 {
            files.write(&name(ordinal), &[letter(10 + ordinal), letter(100 + ordinal)]).unwrap();
        }
        assert!(numbers(&files).is_empty());
        files.discard(&name(0)).unwrap();
        files.keep(&name(1)).unwrap();
        assert_eq!(numbers(&files), [11, 101]);
        files.settle(1, true, |_, _| false).unwrap();
        files.settle(0, false, |lane, ordinal| lane == 3 && ordinal < 3).unwrap();
        assert_eq!(numbers(&files), [11, 12, 101, 102]);
        files.settle(0, false, |_, _| true).unwrap();
        assert_eq!(numbers(&files), [11, 12, 101, 102], "what was discarded is gone");
        files.settle(0, true, |_, ordinal| ordinal < 2).unwrap();
        assert_eq!(numbers(&files), [11, 101], "what is delivered again is judged anew");
    }

    #[test]
    fn letters_are_removed_and_changed_one_by_one_and_the_last_one_takes_the_file_along() {
        let dir = tempfile::tempdir().unwrap();
        let files = LetterFiles::below(&Dir::open(dir.path()).unwrap());
        let name = FileName { number: 5, lane: 0, ordinal: 0, drainer: 0 };
        files.write(&name, &[letter(5), letter(6)]).unwrap();
        files.keep(&name).unwrap();
        std::fs::write(dir.path().join(DIR).join("README"), "a stranger's").unwrap();
        assert!(files.change(6, |letter| Some(DeadLetter { error: "still no".into(), ..letter })).unwrap());
        assert_eq!(files.find(&[6, 7]).unwrap()[0].error, "still no");
        assert!(files.remove(5).unwrap() && !files.remove(5).unwrap());
        assert_eq!(numbers(&files), [6]);
        assert!(files.remove(6).unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join(DIR)).unwrap().count(), 1, "only the stranger's is left");
    }
}
