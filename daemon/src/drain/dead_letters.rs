//! Messages that PostgreSQL refused, on their way into its table of dead letters, or into a file where it refuses that too.

use super::{batch::Batch, checkpoint::Checkpoint, round::RoundError, session::Session};
use crate::postgres::remedy::{Remedy, remedy};
use crate::{
    letters::{
        DeadLetter,
        files::{FileName, LetterFiles},
        table,
    },
    state::shared::Shared,
};
use forebay_pgwire::Error;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

/// Time between looks at how many dead letters there are, at least: others put them back, or drop them. Less than the second
/// after which an idle drain looks at PostgreSQL again, or only every other such look would count.
const COUNT_INTERVAL: Duration = Duration::from_millis(900);

/// The same as a multiple of the time that a look takes: counting rows may cost PostgreSQL a hundredth of the time.
const COUNT_TIMES: u32 = 100;

/// Where the count of dead letters stands.
#[derive(Default)]
pub(crate) struct Counted {
    /// When to count again; `None`: at once.
    due: Option<Instant>,
    /// Of the directory of files, and how many letters it had then.
    files: (Option<SystemTime>, u64),
    /// Whether it was told that the table takes no letters.
    refusal_told: bool,
}

impl Session {
    /// Whether it is time to count the dead letters.
    pub(crate) fn are_dead_letters_due(&self) -> bool {
        self.counted.due.is_none_or(|due| due <= Instant::now())
    }

    /// Counts the dead letters, once in a while: in PostgreSQL's table, and in files.
    pub(crate) async fn count_dead_letters(&mut self) -> Result<(), Error> {
        if !self.are_dead_letters_due() {
            return Ok(());
        }
        let started = Instant::now();
        let in_table = match table::count(&mut self.conn, &self.schema).await {
            Ok(count) => count,
            // Not to be had, as a table that somebody renamed: the messages are delivered all the same.
            Err(error) if is_refused(&error) => {
                tracing::debug!(%error, "the dead letters cannot be counted");
                0
            }
            Err(error) => return Err(error),
        };
        self.counted.due = Some(Instant::now() + COUNT_INTERVAL.max(started.elapsed() * COUNT_TIMES));
        let files = files(&self.shared);
        let changed_at = files.changed_at();
        if changed_at != self.counted.files.0 {
            match files.list() {
                Ok(letters) => self.counted.files = (changed_at, letters.len() as u64),
                Err(error) => tracing::warn!(%error, "the dead letters in files cannot be counted"),
            }
        }
        self.shared.drain.dead_letters.store(in_table + self.counted.files.1, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the messages of `batch` that were refused, in the transaction that is open; those that the table of dead letters
    /// refuses as well go to a file, which is durable when this returns.
    pub(crate) async fn set_aside(&mut self, batch: &mut Batch) -> Result<(), RoundError> {
        batch.letters = None;
        let (letters, first) = self.letters_of(batch);
        let Some(first) = first else { return Ok(()) };
        let refused = self.add_letters(letters).await?;
        let Some((_, error)) = refused.first() else { return Ok(()) };
        if !std::mem::replace(&mut self.counted.refusal_told, true) {
            tracing::error!(
                code = "dead_letters_refused",
                %error,
                "PostgreSQL takes no dead letters; they are kept in files below the log"
            );
        }
        let letters: Vec<DeadLetter> = refused.into_iter().map(|(letter, _)| letter).collect();
        batch.letters = Some(first);
        files(&self.shared).write(&first, &letters).map_err(RoundError::LettersNotKept)
    }

    /// The letters of a batch, and the name of a file for them.
    fn letters_of(&self, batch: &Batch) -> (Vec<DeadLetter>, Option<FileName>) {
        let mut letters = Vec::new();
        let mut first = None;
        for (index, sqlstate, error) in batch.refused() {
            let Some(record) = batch.records.get(index) else { continue };
            let Some(progress) = self.shared.log.lanes.get(record.lane) else { continue };
            let message = batch.message(index);
            letters.push(DeadLetter::of(
                record.number,
                record.kind,
                &record.payload,
                message.as_ref(),
                (sqlstate, error),
            ));
            first.get_or_insert(FileName {
                number: record.number,
                lane: progress.lane.lane(),
                ordinal: record.ordinal,
                drainer: self.drainer as i32,
            });
        }
        (letters, first)
    }

    /// Adds letters to the table; returns those that it refuses, and why.
    async fn add_letters(&mut self, letters: Vec<DeadLetter>) -> Result<Vec<(DeadLetter, String)>, Error> {
        let error = match self.add_to_table(&letters).await? {
            Ok(()) => return Ok(Vec::new()),
            Err(error) => error,
        };
        if letters.len() == 1 || remedy(&error) == Remedy::Pause {
            let error = error.to_string();
            return Ok(letters.into_iter().map(|letter| (letter, error.clone())).collect());
        }
        let mut refused = Vec::new();
        for letter in letters {
            if let Err(error) = self.add_to_table(std::slice::from_ref(&letter)).await? {
                refused.push((letter, error.to_string()));
            }
        }
        Ok(refused)
    }

    /// Adds letters, all or none; a refusal leaves the transaction as it was.
    async fn add_to_table(&mut self, letters: &[DeadLetter]) -> Result<Result<(), Error>, Error> {
        /// What is deferred is heard of now: at COMMIT it would pass for the refusal of a row.
        const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
        self.conn.simple("SAVEPOINT letters").await?;
        let added = match table::add(&mut self.conn, &self.schema, self.shared.log.id, letters).await {
            Ok(()) => self.conn.simple(CHECK).await.map(drop),
            refused => refused,
        };
        match added {
            Ok(()) => Ok(Ok(())),
            Err(error) if is_refused(&error) => {
                self.conn.simple("ROLLBACK TO SAVEPOINT letters").await?;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Lets the file of a transaction's letters, if there is one, follow what became of it.
    pub(crate) fn settle_letters_of(&self, batch: &mut Batch, committed: bool) {
        let Some(name) = batch.letters.take() else { return };
        let files = files(&self.shared);
        let outcome = if committed { files.keep(&name) } else { files.discard(&name) };
        if let Err(error) = outcome {
            // The next session looks at what is left, and decides by the checkpoint.
            tracing::warn!(%error, %name, "a file of dead letters could not be renamed or removed");
        }
    }

    /// Decides about files of letters whose transaction ended unseen, by what the checkpoint says is done; with `goes_back`
    /// about all files: their records come again, and are judged anew.
    pub(crate) fn settle_letters(&self, drainer: usize, row: &Checkpoint, goes_back: bool) {
        let is_done = |lane: u16, ordinal: u64| {
            let at = row.lanes.iter().position(|of| *of == i32::from(lane));
            at.and_then(|at| row.ordinals.get(at)).is_some_and(|done| ordinal < *done as u64)
        };
        if let Err(error) = files(&self.shared).settle(drainer as i32, goes_back, is_done) {
            tracing::warn!(%error, "files of dead letters could not be renamed or removed");
        }
    }
}

fn files(shared: &Shared) -> LetterFiles {
    LetterFiles::below(&crate::datadir::wal_dir(&shared.config.data_dir))
}

/// Whether PostgreSQL says no to the letter or to its table, rather than being in trouble.
fn is_refused(error: &Error) -> bool {
    error.db_error().is_some() && matches!(remedy(error), Remedy::SetAside | Remedy::Pause | Remedy::Probe)
}
