//! What the drain tells a core: the way back from the commit to those who wait for it.

use super::pg_answer::PgAnswer;
use std::{
    io,
    ops::Index,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in PostgreSQL.
    Queued,
    /// A message with its transaction id was there before.
    Duplicate {
        /// The first one's id.
        of: Uuid,
    },
    /// PostgreSQL refused it; it is in dead letters.
    Refused {
        /// What PostgreSQL said.
        error: String,
    },
}

/// What became of one message, and of which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The record's number.
    pub number: u64,
    /// The partition's id in PostgreSQL.
    pub partition_id: i64,
    /// What became of it.
    pub fate: Fate,
}

/// Something for a core to know.
#[derive(Debug)]
pub enum Letter {
    /// A drain transaction committed; these are the messages in it for which somebody waited.
    Committed(Vec<Delivery>),
    /// PostgreSQL went away: nobody should wait for it.
    DatabaseAway,
    /// The answer to a request to PostgreSQL.
    PgAnswer {
        /// Which one of the core's requests.
        id: u64,
        /// The answer.
        answer: PgAnswer,
    },
    /// The daemon ends.
    Stop,
}

/// A core's mailbox: any thread puts letters in, the core is woken by an eventfd.
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    event: OwnedFd,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Self { letters: Mutex::new(Vec::new()), event })
    }

    /// Puts a letter in and wakes the core.
    pub fn send(&self, letter: Letter) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        if let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            tracing::error!(code = "eventfd_failed", %error, "a core cannot be woken");
        }
    }

    /// Takes all letters.
    pub fn take(&self) -> Vec<Letter> {
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The eventfd.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// The mailboxes of all cores, by the number of the core's lane.
pub struct Mailboxes(Vec<Mailbox>);

impl Mailboxes {
    /// One mailbox for each of `cores`.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn new(cores: u16) -> io::Result<Self> {
        Ok(Self((0..cores).map(|_| Mailbox::new()).collect::<Result<_, _>>()?))
    }

    /// The mailbox of a core; `None` for a lane without a core, which an earlier run of the daemon wrote.
    pub fn get(&self, core: u16) -> Option<&Mailbox> {
        self.0.get(usize::from(core))
    }

    /// Sends a letter to each core.
    pub fn send_to_all(&self, letter: impl Fn() -> Letter) {
        self.0.iter().for_each(|mailbox| mailbox.send(letter()));
    }
}

impl Index<u16> for Mailboxes {
    type Output = Mailbox;

    /// The mailbox of a core that there is.
    fn index(&self, core: u16) -> &Mailbox {
        &self.0[usize::from(core)]
    }
}
