//! Who this log is to PostgreSQL: the id of its checkpoint, and the incarnation of this process.

use super::{
    incarnations::{Incarnation, Incarnations, LogDirectory, Named},
    mark::LaneMark,
};
use forebay_os::dir::Dir;
use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// Rounds of this process that are remembered: more than all drainers can have under way.
const ROUNDS_MAX: usize = 256;

/// The identity of an open log. The file in its directory is written before anything relies on what it says.
pub struct LogIdentity {
    wal: Dir,
    own: LogDirectory,
    content: Mutex<Incarnations>,
    /// The ids of the last rounds that this process sent.
    rounds: Mutex<VecDeque<Uuid>>,
}

impl LogIdentity {
    /// Begins the incarnation `id` of the log `origin` in `wal`, whose lanes end at `lanes`, and writes that down.
    /// `own` names the data directory to others.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(wal: &Dir, origin: Uuid, id: Uuid, lanes: Vec<LaneMark>, own: LogDirectory) -> io::Result<Self> {
        let mut content = Incarnations::read(wal, origin)?;
        content.begin(id, wal, lanes)?;
        // Where the disk has no room even for that, it is written before a checkpoint names the incarnation, or not at all.
        match content.write(wal) {
            Err(error) if forebay_wal::error::is_no_room(&error) => {
                tracing::warn!(%error, "the start is not written down yet: the disk has no room");
            }
            written => written?,
        }
        Ok(Self { wal: wal.clone(), own, content: Mutex::new(content), rounds: Mutex::default() })
    }

    /// The id in the log's files.
    pub fn origin(&self) -> Uuid {
        self.with(|content| content.origin)
    }

    /// The id under which PostgreSQL knows the log.
    pub fn log_id(&self) -> Uuid {
        self.with(|content| content.log_id)
    }

    /// The incarnation of this process.
    pub fn incarnation(&self) -> Uuid {
        self.with(|content| present(content).id)
    }

    /// This data directory, as others are told of it.
    pub fn own(&self) -> &LogDirectory {
        &self.own
    }

    /// The list of incarnations.
    pub fn list(&self) -> Vec<Incarnation> {
        self.with(|content| content.list.clone())
    }

    /// See [`Incarnations::named`].
    pub fn named(&self, name: Option<Uuid>) -> Option<Named> {
        self.with(|content| content.named(name))
    }

    /// See [`Incarnations::begins_at`].
    pub fn begins_at(&self) -> Vec<LaneMark> {
        self.with(|content| content.begins_at.clone())
    }

    /// See [`Incarnations::copy_of`].
    pub fn copy_of(&self) -> Option<LogDirectory> {
        self.with(|content| content.copy_of.clone())
    }

    /// A round of this process is about to move a checkpoint.
    pub fn add_round(&self, round: Uuid) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.back() != Some(&round) {
            rounds.push_back(round);
        }
        if rounds.len() > ROUNDS_MAX {
            rounds.pop_front();
        }
    }

    /// Whether this process sent the round, one of the last ones.
    pub fn has_round(&self, round: Uuid) -> bool {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).contains(&round)
    }

    /// What the file holds.
    pub fn content(&self) -> Incarnations {
        self.with(Incarnations::clone)
    }

    /// Replaces what the file holds; the present incarnation stays.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn replace(&self, with: &Incarnations) -> io::Result<()> {
        self.change(|content| *content = with.clone())
    }

    /// A checkpoint in PostgreSQL may name the present incarnation from now on.
    ///
    /// # Errors
    /// Those of the file system; then no checkpoint may.
    pub fn set_named(&self) -> io::Result<()> {
        self.change(Incarnations::set_named)
    }

    /// This directory is a copy of another one's.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_copy_of(&self, other: LogDirectory) -> io::Result<()> {
        self.change(|content| content.copy_of = Some(other))
    }

    /// Whether the file is there; where that cannot be seen it counts as there.
    pub fn is_written_down(&self) -> bool {
        Incarnations::is_there(&self.wal)
    }

    /// Writes the file again, which somebody removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_again(&self) -> io::Result<()> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if Incarnations::is_there(&self.wal) { Ok(()) } else { content.write(&self.wal) }
    }

    /// Writes what `change` makes of the content, unless it changes nothing.
    fn change(&self, change: impl FnOnce(&mut Incarnations)) -> io::Result<()> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = content.clone();
        change(&mut changed);
        if changed != *content {
            changed.write(&self.wal)?;
            *content = changed;
        }
        Ok(())
    }

    fn with<T>(&self, read: impl FnOnce(&Incarnations) -> T) -> T {
        read(&self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn present(content: &Incarnations) -> &Incarnation {
    content.list.last().unwrap_or_else(|| unreachable!("a process begins its incarnation first"))
}
