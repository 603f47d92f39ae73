//! The dead letters of the table and of the files as one list: those of the table first, each by its id.

use super::{DeadLetter, Payload, files::LetterFiles, table, table::Retried};
use crate::{
    ids::{rfc3339, unix_now},
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Connection, Error};
use serde::Serialize;
use std::{io, str::FromStr};

/// What names a letter: a number in the table, or `f` and its record's number in the files of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LetterId {
    /// In PostgreSQL's table.
    Table(i64),
    /// In a file.
    File(u64),
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(id) => id.fmt(f),
            Self::File(number) => write!(f, "f{number}"),
        }
    }
}

impl FromStr for LetterId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let id = match text.strip_prefix('f') {
            Some(number) => number.parse().ok().map(Self::File),
            None => text.parse().ok().filter(|id| *id > 0).map(Self::Table),
        };
        id.ok_or_else(|| "a dead letter's id is a number, or f and a number".to_owned())
    }
}

/// A letter and what names it.
pub struct Listed {
    /// Its id.
    pub id: LetterId,
    /// The letter.
    pub letter: DeadLetter,
}

/// Letters, and why those of the table may be missing among them.
pub struct Page {
    /// The letters.
    pub letters: Vec<Listed>,
    /// What PostgreSQL says instead of showing its table.
    pub table_refused: Option<String>,
}

/// Why the desk cannot work.
#[derive(Debug)]
pub enum DeskError {
    /// PostgreSQL refused, or was lost.
    Postgres(Error),
    /// The files cannot be read or changed.
    Files(io::Error),
}

impl std::fmt::Display for DeskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres(error) => error.fmt(f),
            Self::Files(error) => write!(f, "the files of dead letters: {error}"),
        }
    }
}

impl From<Error> for DeskError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<io::Error> for DeskError {
    fn from(error: io::Error) -> Self {
        Self::Files(error)
    }
}

/// The desk.
pub struct Desk {
    conn: Connection,
    schema: String,
    files: LetterFiles,
}

impl Desk {
    /// With the letters of `schema`, which is quoted, and those of `files`.
    #[must_use]
    pub fn new(conn: Connection, schema: String, files: LetterFiles) -> Self {
        Self { conn, schema, files }
    }

    /// The letters behind `after`, of `queue` if one is named, up to `limit`.
    ///
    /// # Errors
    /// See [`DeskError`], here and below.
    pub async fn list(&mut self, queue: Option<&str>, after: Option<LetterId>, limit: u32) -> Result<Page, DeskError> {
        let mut page = Page { letters: Vec::new(), table_refused: None };
        let (table_after, file_after) = match after {
            None => (Some(0), None),
            Some(LetterId::Table(id)) => (Some(id), None),
            Some(LetterId::File(number)) => (None, Some(number)),
        };
        if let Some(after) = table_after {
            match table::list(&mut self.conn, &self.schema, queue, after, limit).await {
                Ok(stored) => page.letters.extend(
                    stored.into_iter().map(|stored| Listed { id: LetterId::Table(stored.id), letter: stored.letter }),
                ),
                // The table is missing, or a right on it: the files are to be seen all the same.
                Err(error) if remedy(&error) == Remedy::Pause && error.db_error().is_some() => {
                    page.table_refused = Some(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let room = limit as usize - page.letters.len().min(limit as usize);
        let of_queue = |letter: &DeadLetter| queue.is_none_or(|queue| letter.queue == queue);
        let files = self.files.list()?.into_iter().filter(of_queue).filter_map(|letter| {
            let number = letter.number.filter(|number| file_after.is_none_or(|after| *number > after))?;
            Some(Listed { id: LetterId::File(number), letter })
        });
        page.letters.extend(files.take(room));
        Ok(page)
    }

    /// The letter of that id.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn get(&mut self, id: LetterId) -> Result<Option<Listed>, DeskError> {
        let letter = match id {
            LetterId::Table(id) => table::get(&mut self.conn, &self.schema, id).await?.map(|stored| stored.letter),
            LetterId::File(number) => self.files.list()?.into_iter().find(|letter| letter.number == Some(number)),
        };
        Ok(letter.map(|letter| Listed { id, letter }))
    }

    /// Puts a letter back as the last message of its partition.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn retry(&mut self, id: LetterId) -> Result<Retried, DeskError> {
        let Some(Listed { letter, .. }) = self.get(id).await? else { return Ok(Retried::Gone) };
        let in_table = match id {
            LetterId::Table(id) => Some(id),
            LetterId::File(_) => None,
        };
        let retried = table::retry(&mut self.conn, &self.schema, in_table, &letter).await?;
        let LetterId::File(number) = id else { return Ok(retried) };
        match &retried {
            Retried::Queued { .. } | Retried::Duplicate { .. } => drop(self.files.remove(number)?),
            Retried::Refused { sqlstate, error } => {
                let failed_us = unix_now().as_micros() as i64;
                let (sqlstate, error) = (sqlstate.clone(), error.clone());
                self.files.change(number, |letter| Some(DeadLetter { sqlstate, error, failed_us, ..letter }))?;
            }
            Retried::NoMessage | Retried::Gone => {}
        }
        Ok(retried)
    }

    /// Drops a letter for good. Returns whether it was there.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn remove(&mut self, id: LetterId) -> Result<bool, DeskError> {
        match id {
            LetterId::Table(id) => Ok(table::remove(&mut self.conn, &self.schema, id).await?),
            LetterId::File(number) => Ok(self.files.remove(number)?),
        }
    }
}

/// A letter as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    id: String,
    place: &'static str,
    queue: &'a str,
    partition: &'a str,
    message_id: Option<uuid::Uuid>,
    transaction_id: Option<&'a str>,
    trace_id: Option<uuid::Uuid>,
    producer_sub: Option<&'a str>,
    sqlstate: &'a str,
    error: &'a str,
    accepted_at: String,
    failed_at: String,
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_kind: Option<u16>,
    #[serde(flatten)]
    payload: Option<&'a Payload>,
}

impl Listed {
    /// As JSON shows it; `whole`: with its payload.
    #[must_use]
    pub fn view(&self, whole: bool) -> View<'_> {
        let letter = &self.letter;
        View {
            id: self.id.to_string(),
            place: self.place(),
            queue: &letter.queue,
            partition: &letter.partition,
            message_id: letter.message_id,
            transaction_id: letter.transaction_id.as_deref(),
            trace_id: letter.trace_id,
            producer_sub: letter.producer_sub.as_deref(),
            sqlstate: &letter.sqlstate,
            error: &letter.error,
            accepted_at: rfc3339(letter.accepted_us),
            failed_at: rfc3339(letter.failed_us),
            number: letter.number,
            // Of a message it says nothing.
            record_kind: letter.record_kind.filter(|_| letter.message_id.is_none()),
            payload: whole.then_some(&letter.payload),
        }
    }

    /// Where it is kept: `postgres` or `file`.
    #[must_use]
    pub fn place(&self) -> &'static str {
        match self.id {
            LetterId::Table(_) => "postgres",
            LetterId::File(_) => "file",
        }
    }
}

/// What became of a letter, as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetriedView<'a> {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// As JSON shows what became of the letter `id`. A duplicate's `messageId` is that of the message which is there.
#[must_use]
pub fn retried_view(id: LetterId, retried: &Retried) -> RetriedView<'_> {
    let view =
        |status| RetriedView { id: id.to_string(), status, seq: None, message_id: None, sqlstate: None, error: None };
    match retried {
        Retried::Queued { seq } => RetriedView { seq: Some(*seq), ..view("queued") },
        Retried::Duplicate { of } => RetriedView { message_id: Some(*of), ..view("duplicate") },
        Retried::Refused { sqlstate, error } => {
            RetriedView { sqlstate: Some(sqlstate), error: Some(error), ..view("failed") }
        }
        Retried::NoMessage => RetriedView { error: Some("it is no message that this release knows"), ..view("failed") },
        Retried::Gone => RetriedView { error: Some("it is not there any more"), ..view("gone") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        for id in [LetterId::Table(1), LetterId::Table(i64::MAX), LetterId::File(0), LetterId::File(u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "f", "0", "-1", "f-1", "x1", "1f", "99999999999999999999"] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }
}
