//! The incarnations of a data directory: one for each start of the daemon, drawn at random.
//!
//! `wal/incarnations` lists them. A checkpoint in PostgreSQL names the incarnation that has it, so a copy of the directory is
//! recognised: its own list does not have that name. Each entry says where the lanes ended when the incarnation began, from which
//! it follows which records two copies have in common (`common_records`).
//!
//! The file is replaced as a whole. It is written into blocks that the disk has already given, or that were freed for it: a full
//! disk does not keep the daemon from starting.

use super::{checked_file, mark::LaneMark};
use forebay_os::dir::Dir;
use forebay_wal::error::is_no_room;
use rustix::fs::{OFlags, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use std::{fs, io, os::unix::fs::FileExt, path::Path};
use uuid::Uuid;

/// Name of the file below the log's directory.
const FILE: &str = "incarnations";

/// Name of the file that is written and then takes its place.
const SPARE_FILE: &str = "incarnations.spare";

/// Bytes of the file that are read: far more than [`INCARNATIONS_MAX`] of a log with hundreds of lanes take.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file's size is a multiple of this, so that longer lists seldom need room.
const FILE_STEP_BYTES: usize = 64 << 10;

/// Incarnations that are kept. A database that is restored to a time before all of them has a checkpoint of an unknown one.
const INCARNATIONS_MAX: usize = 64;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incarnations {
    /// The id in the log's files. Copies of a directory share it.
    pub origin: Uuid,
    /// The id under which PostgreSQL knows the log: that of its files, or another one since the log was forked.
    pub log_id: Uuid,
    /// Where the log begins for a database that has no checkpoint of it: with its oldest records, or where it was forked.
    pub begins_at: Vec<LaneMark>,
    /// The directory that has the checkpoint, once this one was found to be a copy.
    pub copy_of: Option<LogDirectory>,
    /// Oldest first. The last one is the present one.
    pub list: Vec<Incarnation>,
}

/// One start of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// Its random name.
    pub id: Uuid,
    /// Where its directory was.
    pub place: String,
    /// Whether a checkpoint in PostgreSQL may name it.
    pub is_named: bool,
    /// Where each lane ended when it began.
    pub lanes: Vec<LaneMark>,
}

/// A data directory, as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDirectory {
    /// The name of its host.
    pub host: String,
    /// Its path there.
    pub directory: String,
}

impl LogDirectory {
    /// `path` on this host.
    #[must_use]
    pub fn on_this_host(path: &Path) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, directory: path.to_string_lossy().into_owned() }
    }

    /// One of which PostgreSQL does not say where it is.
    #[must_use]
    pub fn unknown() -> Self {
        Self { host: "a host that is not known".to_owned(), directory: "a directory".to_owned() }
    }
}

impl std::fmt::Display for LogDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.directory, self.host)
    }
}

/// How a directory's own incarnation is related to a checkpoint that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// It is the present one.
    pub is_present: bool,
    /// The directory is where it was then, so its process has ended: a directory has one daemon at a time.
    pub is_in_place: bool,
    /// Where the lanes ended when the next incarnation began: nothing behind that was sent by this one. `None` for the present
    /// one.
    pub end: Option<Vec<LaneMark>>,
}

impl Incarnations {
    /// An empty list for the log of these files.
    fn empty(origin: Uuid) -> Self {
        Self { origin, log_id: origin, begins_at: Vec::new(), copy_of: None, list: Vec::new() }
    }

    /// Reads the file in `wal`; an empty list if there is none for the log `origin`, or it is damaged.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(wal: &Dir, origin: Uuid) -> io::Result<Self> {
        let path = wal.path().join(FILE);
        let text = match wal.read_text(FILE, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty(origin)),
            text => text?,
        };
        let found = checked_file::parse(&text).filter(|found: &Self| found.origin == origin);
        Ok(found.unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "the file is damaged, or another log's: it is left out of account");
            Self::empty(origin)
        }))
    }

    /// Whether there is a file in `wal`, as far as that can be seen.
    #[must_use]
    pub fn is_there(wal: &Dir) -> bool {
        !wal.stat(FILE).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Writes the file, durably.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, wal: &Dir) -> io::Result<()> {
        let mut bytes = checked_file::render(self)?.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(FILE_STEP_BYTES), b' ');
        match write_over(wal, SPARE_FILE, &bytes) {
            // Where the file system copies on write, the spare file's blocks are no room for its new content until they are free.
            Err(error) if is_no_room(&error) => {
                wal.remove_if_there(SPARE_FILE)?;
                rustix::fs::syncfs(wal)?;
                write_over(wal, SPARE_FILE, &bytes)?;
            }
            written => written?,
        }
        if wal.stat(FILE).is_err() {
            wal.rename(SPARE_FILE, FILE)?;
            // The next write finds its room taken already.
            write_over(wal, SPARE_FILE, &bytes)?;
        } else if renameat_with(wal, SPARE_FILE, wal, FILE, RenameFlags::EXCHANGE).is_err() {
            // Not every file system exchanges names.
            wal.rename(SPARE_FILE, FILE)?;
        }
        wal.sync()
    }

    /// Adds the incarnation `id`, which begins with the lanes at `lanes`, in the directory `wal`.
    ///
    /// # Errors
    /// When `wal` cannot be looked at.
    pub fn begin(&mut self, id: Uuid, wal: &Dir, lanes: Vec<LaneMark>) -> io::Result<()> {
        // One that left no trace, neither in PostgreSQL nor in the log, is no boundary that anybody could ask for.
        if self.list.last().is_some_and(|last| !last.is_named && last.lanes == lanes) {
            self.list.pop();
        }
        self.list.push(Incarnation { id, place: place(wal)?, is_named: false, lanes });
        while self.list.len() > INCARNATIONS_MAX {
            let unnamed = self.list.iter().take(INCARNATIONS_MAX).position(|one| !one.is_named);
            self.list.remove(unnamed.unwrap_or(0));
        }
        Ok(())
    }

    /// A checkpoint in PostgreSQL may name the present incarnation.
    pub fn set_named(&mut self) {
        if let Some(present) = self.list.last_mut() {
            present.is_named = true;
        }
    }

    /// How the incarnation that a checkpoint names belongs to this directory; `None`: it does not. A checkpoint without a name was
    /// written by a release without incarnations, before all that are listed.
    #[must_use]
    pub fn named(&self, name: Option<Uuid>) -> Option<Named> {
        let next = match name {
            None => 0,
            Some(name) => 1 + self.list.iter().position(|one| one.id == name)?,
        };
        let of = next.checked_sub(1).map(|index| &self.list[index]);
        Some(Named {
            is_present: next == self.list.len(),
            is_in_place: of.is_none_or(|of| self.list.last().is_some_and(|present| of.place == present.place)),
            end: self.list.get(next).map(|next| next.lanes.clone()),
        })
    }
}

impl Incarnation {
    /// Whether its directory is another one than that of `earlier`, as far as device and inode tell. A restart of the machine moves
    /// no directory.
    #[must_use]
    pub fn has_moved_since(&self, earlier: &Self) -> bool {
        let inode = |one: &Self| one.place.split_once(' ').map(|(_, inode)| inode.to_owned());
        inode(self) != inode(earlier)
    }

    /// How many records `lane` had when it began.
    #[must_use]
    pub fn records(&self, lane: u16) -> u64 {
        LaneMark::find(&self.lanes, lane).map_or(0, |mark| mark.ordinal)
    }
}

/// What tells a directory from its copies, and from a directory of another machine: a rename does not change it.
fn place(dir: &Dir) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(String::new()),
        _ => Err(error),
    })?;
    let stat = dir.stat_self()?;
    Ok(format!("{} {} {}", boot.trim(), stat.st_dev, stat.st_ino))
}

/// Writes `bytes` into the file from its start on. Blocks that it has are used again.
fn write_over(wal: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = wal.open_file(name, OFlags::WRONLY | OFlags::CREATE)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn lanes(ordinal: u64) -> Vec<LaneMark> {
        vec![LaneMark { lane: 0, segment: 1, offset: 4096 * (1 + ordinal as u32), ordinal }]
    }

    /// Incarnations with these ids, each of which began with so many records.
    fn incarnations(list: &[(u128, u64)]) -> Incarnations {
        let one = |&(n, ordinal): &(u128, u64)| Incarnation {
            id: id(n),
            place: "here".to_owned(),
            is_named: true,
            lanes: lanes(ordinal),
        };
        Incarnations { list: list.iter().map(one).collect(), ..Incarnations::empty(id(0)) }
    }

    #[test]
    fn a_name_is_an_own_one_up_to_where_the_next_incarnation_began_or_a_stranger_s() {
        let own = incarnations(&[(1, 0), (2, 5), (3, 9)]);
        let end = |name: Option<u128>| own.named(name.map(id)).unwrap().end;
        assert_eq!(end(None), Some(lanes(0)), "an earlier release's");
        assert_eq!((end(Some(1)), end(Some(2)), end(Some(3))), (Some(lanes(5)), Some(lanes(9)), None));
        assert!(own.named(Some(id(3))).unwrap().is_present && !own.named(Some(id(2))).unwrap().is_present);
        assert_eq!(own.named(Some(id(4))), None);
        let mut moved = own.clone();
        moved.list[2].place = "there".to_owned();
        assert!(own.named(Some(id(2))).unwrap().is_in_place && !moved.named(Some(id(2))).unwrap().is_in_place);
    }

    #[test]
    fn a_start_without_a_trace_is_replaced_and_named_ones_are_kept_longest() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Dir::open(dir.path()).unwrap();
        let mut own = Incarnations::empty(id(0));
        let begin = |own: &mut Incarnations, n: u128, ordinal| own.begin(id(n), &wal, lanes(ordinal)).unwrap();
        (1..10).for_each(|n| begin(&mut own, n, 0));
        assert_eq!(own.list.iter().map(|one| one.id).collect::<Vec<_>>(), [id(9)]);
        own.set_named();
        (10..200).for_each(|n| begin(&mut own, n, n as u64));
        assert_eq!((own.list.len(), own.list[0].id), (INCARNATIONS_MAX, id(9)));
        assert!(own.named(Some(id(9))).is_some_and(|named| named.end.is_some()));
        assert_eq!(own.list.last().map(|last| last.id), Some(id(199)));
    }

    #[test]
    fn the_file_is_read_as_it_was_written_last_and_not_at_all_when_damaged_or_another_log_s() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Dir::open(dir.path()).unwrap();
        assert_eq!(Incarnations::read(&wal, id(0)).unwrap(), Incarnations::empty(id(0)));
        let spare = dir.path().join("incarnations.spare");
        for n in 1..4 {
            let own = incarnations(&(0..n).map(|n| (n, 0)).collect::<Vec<_>>());
            own.write(&wal).unwrap();
            assert_eq!(Incarnations::read(&wal, id(0)).unwrap(), own);
            // What a crash in the midst of a write leaves.
            fs::write(&spare, "half").unwrap();
        }
        assert!(Incarnations::read(&wal, id(1)).unwrap().list.is_empty());
        let path = dir.path().join(FILE);
        let bytes = fs::metadata(&path).unwrap().len();
        assert_eq!(bytes % FILE_STEP_BYTES as u64, 0, "longer lists find room");
        let text = fs::read_to_string(&path).unwrap().replace("here", "herd");
        fs::write(&path, text).unwrap();
        assert!(Incarnations::read(&wal, id(0)).unwrap().list.is_empty());
    }
}
