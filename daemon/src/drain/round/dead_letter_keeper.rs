//! Moves refused messages to PostgreSQL's table of dead letters, or into a file if PostgreSQL refuses that too.

use super::{batch::Batch, round_error::RoundError};
use crate::{
    drain::checkpoint::row::Checkpoint,
    letters::{
        DeadLetter,
        files::{FileName, LetterFiles},
        table,
    },
    limits::LONE_FAILURES,
    postgres::remedy::{Remedy, remedy},
    state::{drain_view::DrainView, log_view::LogView},
};
use forebay_pgwire::{Connection, Error};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use uuid::Uuid;

/// Least time between counts of the dead letters, which others put back or drop. It is less than the second after which an
/// idle drain checks the connection, or only every other check would count.
const COUNT_INTERVAL: Duration = Duration::from_millis(900);

/// The same as a multiple of the time that a count takes: counting may cost PostgreSQL a hundredth of the time.
const COUNT_TIMES: u32 = 100;

/// The dead letters of one drainer's session.
pub(crate) struct DeadLetterKeeper {
    log: Arc<LogView>,
    /// Under which PostgreSQL knows the log.
    log_id: Uuid,
    drain: Arc<DrainView>,
    files: LetterFiles,
    /// Quoted.
    schema: String,
    drainer: usize,
    /// When to count again; `None`: at once.
    next_count: Option<Instant>,
    /// When the directory of files changed last, and how many letters it had then.
    counted_files: (Option<SystemTime>, u64),
    /// Whether it was logged that the table takes no letters.
    is_refusal_logged: bool,
}

impl DeadLetterKeeper {
    /// For the session of a drainer: letters of the log `log_id` go into the quoted `schema`, or into files below the log.
    pub(crate) fn new(log: Arc<LogView>, log_id: Uuid, drain: Arc<DrainView>, schema: &str, drainer: usize) -> Self {
        Self {
            files: LetterFiles::below(log.disk.dir()),
            log,
            log_id,
            drain,
            schema: schema.to_owned(),
            drainer,
            next_count: None,
            counted_files: (None, 0),
            is_refusal_logged: false,
        }
    }

    /// Whether it is time to count the dead letters.
    pub(crate) fn is_count_due(&self) -> bool {
        self.next_count.is_none_or(|at| at <= Instant::now())
    }

    /// Counts the dead letters, in the table and in files, if that is due.
    ///
    /// # Errors
    /// Those of PostgreSQL, unless it only refuses to show the table.
    pub(crate) async fn count(&mut self, conn: &mut Connection) -> Result<(), Error> {
        if !self.is_count_due() {
            return Ok(());
        }
        let start = Instant::now();
        let in_table = match table::count(conn, &self.schema).await {
            Ok(count) => count,
            // For example a renamed table: messages are delivered all the same.
            Err(error) if is_refusal(&error) => {
                tracing::debug!(%error, "the dead letters cannot be counted");
                0
            }
            Err(error) => return Err(error),
        };
        self.next_count = Some(Instant::now() + COUNT_INTERVAL.max(start.elapsed() * COUNT_TIMES));
        let changed_at = self.files.changed_at();
        if changed_at != self.counted_files.0 {
            match self.files.count() {
                Ok(count) => self.counted_files = (changed_at, count),
                Err(error) => tracing::warn!(%error, "the dead letters in files cannot be counted"),
            }
        }
        self.drain.dead_letters.store(in_table + self.counted_files.1, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the refused messages of `batch` in its open transaction. Letters that the table refuses go to a file, which is
    /// durable when this returns.
    ///
    /// # Errors
    /// [`RoundError::LettersNotKept`] if the file cannot be written; else those of PostgreSQL.
    pub(crate) async fn keep(&mut self, conn: &mut Connection, batch: &mut Batch) -> Result<(), RoundError> {
        // An earlier attempt may have named one: it is gone, or the next session decides about it.
        batch.set_letters_file(None);
        let (letters, name) = self.letters_of(batch);
        let Some(name) = name else { return Ok(()) };
        let refused = self.add(conn, letters).await?;
        self.drain.letter_failures.store(0, Ordering::Relaxed);
        let Some((_, error)) = refused.first() else { return Ok(()) };
        if !std::mem::replace(&mut self.is_refusal_logged, true) {
            tracing::error!(
                code = "dead_letters_refused",
                %error,
                "PostgreSQL takes no dead letters; they are kept in files below the log"
            );
        }
        let letters: Vec<DeadLetter> = refused.into_iter().map(|(letter, _)| letter).collect();
        batch.set_letters_file(Some(name));
        self.files.write(&name, &letters).map_err(RoundError::LettersNotKept)
    }

    /// Keeps or discards the file of `batch`, if it has one, now that its transaction has ended.
    pub(crate) fn settle(&self, batch: &mut Batch, is_committed: bool) {
        let Some(name) = batch.take_letters_file() else { return };
        let outcome = if is_committed { self.files.keep(&name) } else { self.files.discard(&name) };
        if let Err(error) = outcome {
            // The next session finds the file, and decides by the checkpoint.
            tracing::warn!(%error, %name, "a file of dead letters could not be renamed or removed");
        }
    }

    /// Keeps or discards the files of transactions of `drainer` that ended unseen: the checkpoint `row` tells whether they
    /// committed. With `is_rewound` it decides about all files, since their records come again and may be stored then.
    pub(crate) fn settle_unseen(&self, drainer: usize, row: &Checkpoint, is_rewound: bool) {
        let is_done = |lane: u16, ordinal: u64| row.has_passed(lane, ordinal);
        if let Err(error) = self.files.settle(drainer as i32, is_rewound, is_done) {
            tracing::warn!(%error, "files of dead letters could not be renamed or removed");
        }
    }

    /// The letters of a batch, and the name of a file for them; no name without a letter.
    fn letters_of(&self, batch: &Batch) -> (Vec<DeadLetter>, Option<FileName>) {
        let mut letters = Vec::new();
        let mut name = None;
        for (index, refusal) in batch.refused() {
            let record = &batch.records()[index];
            let message = record.message().map(|message| message.message());
            let why = (refusal.sqlstate.as_str(), refusal.error.as_str());
            letters.push(DeadLetter::of(record.number(), record.kind(), record.payload(), message.as_ref(), why));
            name.get_or_insert(FileName {
                number: record.number(),
                lane: self.log.lanes[record.lane()].lane.lane(),
                ordinal: record.ordinal(),
                drainer: self.drainer as i32,
            });
        }
        (letters, name)
    }

    /// Adds letters to the table. Returns the letters that it refuses, and why.
    async fn add(&self, conn: &mut Connection, letters: Vec<DeadLetter>) -> Result<Vec<(DeadLetter, String)>, Error> {
        if letters.len() > 1 && self.try_add(conn, &letters, true).await?.is_none() {
            return Ok(Vec::new());
        }
        let Some(refusal) = self.try_add(conn, &letters, false).await? else { return Ok(Vec::new()) };
        if letters.len() == 1 || refusal.is_for_all {
            return Ok(letters.into_iter().map(|letter| (letter, refusal.reason.clone())).collect());
        }
        let mut refused = Vec::new();
        for letter in letters {
            if let Some(refusal) = self.try_add(conn, std::slice::from_ref(&letter), false).await? {
                refused.push((letter, refusal.reason));
            }
        }
        Ok(refused)
    }

    /// Adds letters to the table, all or none, by COPY or by INSERT. Returns PostgreSQL's refusal, which leaves the transaction
    /// as it was.
    async fn try_add(
        &self,
        conn: &mut Connection,
        letters: &[DeadLetter],
        is_copied: bool,
    ) -> Result<Option<Refusal>, Error> {
        /// Raises the errors of deferred checks here. At COMMIT they would pass for the refusal of a row.
        const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
        conn.simple("SAVEPOINT letters").await?;
        let log_id = self.log_id.into_bytes();
        let added = match is_copied {
            true => table::copy(conn, &self.schema, log_id, letters).await,
            false => table::add(conn, &self.schema, log_id, letters).await,
        };
        let added = match added {
            Ok(added) => conn.simple(CHECK).await.map(|_| added),
            refused => refused,
        };
        let refusal = match added {
            Ok(added) if added == letters.len() as u64 => return Ok(None),
            Ok(_) => Refusal {
                reason: "PostgreSQL took no row without an error: a trigger or a rule skips it".to_owned(),
                is_for_all: false,
            },
            Err(error) if is_refusal(&error) => {
                Refusal { reason: error.to_string(), is_for_all: remedy(&error) == Remedy::Pause }
            }
            // As with rows: the code does not tell, and what repeats is no passing trouble.
            Err(error) if error.db_error().is_some() && !error.ends_connection() => {
                if self.drain.letter_failures.fetch_add(1, Ordering::Relaxed) + 1 < LONE_FAILURES {
                    return Err(error);
                }
                Refusal { reason: error.to_string(), is_for_all: false }
            }
            Err(error) => return Err(error),
        };
        conn.simple("ROLLBACK TO SAVEPOINT letters").await?;
        Ok(Some(refusal))
    }
}

/// Why the table does not take letters.
struct Refusal {
    reason: String,
    /// Whether it concerns the table, so that no letter need be tried alone.
    is_for_all: bool,
}

/// Whether PostgreSQL refuses the letter or access to the table, rather than being in trouble.
fn is_refusal(error: &Error) -> bool {
    error.db_error().is_some() && matches!(remedy(error), Remedy::SetAside | Remedy::Pause | Remedy::Probe)
}
