//! The dead letters of the table and of the files as one list: those of the table first, each by its id.

use super::{
    DeadLetter,
    files::LetterFiles,
    id::LetterId,
    page::{Listed, Page, PageLimit},
    put_back::{PutBack, RetryOutcome},
    statements::{LetterStatements, read_bytes, read_listed, read_whole, read_whole_list},
};
use crate::{
    ids::unix_now,
    limits::PG_WORK_FREE_BYTES,
    postgres::{
        channel::{ChannelError, Reply, Unit},
        client::{PgClient, results},
        remedy::Remedy,
        work_room::{NoRoom, TakenRoom},
    },
};
use forebay_pgwire::{Param, oid};
use std::{
    collections::{BTreeMap, HashMap},
    io,
};

/// A letter that is put back takes as much room as so many that are shown: it travels to PostgreSQL as well, and a channel has room
/// for one of the largest.
const PUT_BACK_COPIES: usize = 2;

/// Why the store cannot work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL refused, or was lost. Next step: by its [`ChannelError::remedy`].
    #[error(transparent)]
    Postgres(#[from] ChannelError),
    /// The files cannot be read or changed. Next step: see the data directory.
    #[error("the files of dead letters: {0}")]
    Files(#[from] io::Error),
    /// Too many work on large letters. Next step: ask again later.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// What came of the search for a letter.
#[derive(Debug)]
pub enum Found {
    /// There is none.
    Nothing,
    /// There is one, but it has more bytes than were asked for: about so many.
    TooLarge(usize),
    /// The letter.
    Letter(Box<DeadLetter>),
}

impl From<forebay_pgwire::Error> for StoreError {
    fn from(error: forebay_pgwire::Error) -> Self {
        Self::Postgres(error.into())
    }
}

/// The dead letters of one daemon. Its methods read and write files on the calling thread, which waits for the disk.
pub struct DeadLetterStore {
    client: PgClient,
    sql: LetterStatements,
    files: LetterFiles,
}

impl DeadLetterStore {
    /// The letters of `schema`, which is quoted, and those of `files`.
    #[must_use]
    pub fn new(client: PgClient, schema: &str, files: LetterFiles) -> Self {
        Self { client, sql: LetterStatements::new(schema), files }
    }

    /// The letters behind `after`, of `queue` if one is named, up to `limit`.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub async fn list(
        &self,
        queue: Option<&str>,
        after: Option<LetterId>,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let mut is_cut = false;
        let mut page = Page { letters: Vec::new(), next: None, whole_bytes: 0, table_refused: None };
        let (table_after, file_after) = match after {
            None => (Some(0), None),
            Some(LetterId::Table(id)) => (Some(id), None),
            Some(LetterId::File(number)) => (None, Some(number)),
        };
        if let Some(after) = table_after {
            match self.list_table(queue, after, limit).await {
                Ok(listed) => (page.letters, is_cut, page.whole_bytes) = listed,
                // The table is missing, or a right on it: the files are to be seen all the same.
                Err(ChannelError::Postgres(error))
                    if error.db_error().is_some()
                        && ChannelError::Postgres(error.clone()).remedy() == Remedy::Pause =>
                {
                    page.table_refused = Some(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let bytes: usize = page.letters.iter().map(Listed::memory_bytes).sum();
        let room = PageLimit {
            letters: limit.letters.saturating_sub(page.letters.len() as u32),
            bytes: limit.bytes.saturating_sub(bytes),
        };
        if !is_cut && room.letters > 0 {
            let (letters, is_rest_cut) = self.list_files(queue, file_after, room)?;
            let bytes: usize = letters.iter().map(Listed::memory_bytes).sum();
            page.whole_bytes = if is_rest_cut { usize::MAX } else { page.whole_bytes + bytes };
            page.letters.extend(letters);
            is_cut = is_rest_cut;
        }
        let is_full = is_cut || page.letters.len() == limit.letters as usize;
        page.next = page.letters.last().filter(|_| is_full).map(|last| last.id);
        Ok(page)
    }

    /// Letters of the table, whether there are more that have no room, and how many bytes they have with those.
    async fn list_table(
        &self,
        queue: Option<&str>,
        after: i64,
        limit: PageLimit,
    ) -> Result<(Vec<Listed>, bool, usize), ChannelError> {
        let queue = queue.map_or(Param::Null(oid::TEXT), Param::Text);
        let params = [Param::I64(after), queue, Param::I64(limit.letters.into()), Param::I64(limit.bytes as i64)];
        let rows = self.client.rows(&self.sql.list, &params).await?;
        let listed = rows.iter().map(|row| {
            let (id, letter, payload_bytes) = read_listed(row)?;
            Ok(Listed { id: LetterId::Table(id), letter, payload_bytes })
        });
        let (whole_count, whole_bytes) = rows.first().map(read_whole_list).transpose()?.unwrap_or_default();
        Ok((listed.collect::<Result<_, ChannelError>>()?, whole_count > rows.len(), whole_bytes))
    }

    /// Those of the files, and whether there are more that have no room.
    fn list_files(
        &self,
        queue: Option<&str>,
        after: Option<u64>,
        limit: PageLimit,
    ) -> Result<(Vec<Listed>, bool), StoreError> {
        // By number: a later file may have earlier ones. No more are kept than have room.
        let mut first = BTreeMap::new();
        let (mut bytes, mut is_cut) = (0, false);
        self.files.each(|letter| {
            let of_queue = queue.is_none_or(|queue| letter.queue == queue);
            let number = letter.number.filter(|number| of_queue && after.is_none_or(|after| *number > after));
            let Some(number) = number else { return };
            let (letter, payload) = letter.replace_payload(());
            let listed = Listed { id: LetterId::File(number), letter, payload_bytes: payload.shown().len() };
            bytes += listed.memory_bytes();
            first.insert(number, listed);
            while first.len() > limit.letters as usize || bytes > limit.bytes && first.len() > 1 {
                let last = first.pop_last();
                bytes -= last.map_or(0, |(_, listed)| listed.memory_bytes());
                is_cut = true;
            }
        })?;
        Ok((first.into_values().collect(), is_cut))
    }

    /// The letter of that id.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn get(&self, id: LetterId) -> Result<Option<DeadLetter>, StoreError> {
        match self.get_within(id, usize::MAX).await? {
            Found::Letter(letter) => Ok(Some(*letter)),
            Found::Nothing | Found::TooLarge(_) => Ok(None),
        }
    }

    /// The letter of that id, unless it has more than `most_bytes`.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn get_within(&self, id: LetterId, most_bytes: usize) -> Result<Found, StoreError> {
        let letter = match id {
            LetterId::Table(id) => {
                let params = [Param::I64(id), Param::I64(i64::try_from(most_bytes).unwrap_or(i64::MAX))];
                let rows = self.client.rows(&self.sql.get, &params).await?;
                if let Some(bytes) = rows.first().map(read_bytes).transpose()?.filter(|bytes| *bytes > most_bytes) {
                    return Ok(Found::TooLarge(bytes));
                }
                rows.first().map(read_whole).transpose()?
            }
            LetterId::File(number) => {
                // It was read as a whole, but nothing else runs on this thread before it is dropped again.
                let letter = self.files.find(&[number])?.pop();
                if let Some(bytes) = letter.as_ref().map(DeadLetter::bytes).filter(|bytes| *bytes > most_bytes) {
                    return Ok(Found::TooLarge(bytes));
                }
                letter
            }
        };
        Ok(letter.map_or(Found::Nothing, |letter| Found::Letter(Box::new(letter))))
    }

    /// Waits for room for letters of so many bytes; see [`PgClient::room`].
    ///
    /// # Errors
    /// [`StoreError::NoRoom`].
    pub async fn room(&self, bytes: usize) -> Result<TakenRoom, StoreError> {
        Ok(self.client.room(bytes).await?)
    }

    /// Drops a letter for good. Returns whether it was there.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn remove(&self, id: LetterId) -> Result<bool, StoreError> {
        match id {
            LetterId::Table(id) => Ok(removed(self.remove_from_table(id)).await?),
            LetterId::File(number) => Ok(self.files.remove(number)?),
        }
    }

    fn remove_from_table(&self, id: i64) -> Reply {
        self.client.submit(Unit::of(&self.sql.remove, &[Param::I64(id)]))
    }

    /// Puts a letter back as the last message of its partition.
    ///
    /// # Errors
    /// As [`list`](Self::list). Where the connection was lost, the letter may be put back.
    pub async fn retry(&self, id: LetterId) -> Result<RetryOutcome, StoreError> {
        let mut found = self.get_within(id, PG_WORK_FREE_BYTES).await?;
        let mut room = None;
        if let Found::TooLarge(bytes) = found {
            room = Some(self.room(PUT_BACK_COPIES * bytes).await?);
            found = self.get_within(id, usize::MAX).await?;
        }
        let Found::Letter(letter) = found else { return Ok(RetryOutcome::Gone) };
        let outcome = self.put_back(vec![(id, *letter)]).await?.pop();
        drop(room);
        outcome.unwrap_or_else(|| panic!("one letter has one outcome"))
    }

    /// Puts letters back, in their order, with few round trips. Returns what became of each; the caller keeps the number small
    /// with [`batches`](super::page::batches).
    ///
    /// # Errors
    /// As [`retry`](Self::retry), where none of them was put back.
    pub async fn retry_batch(&self, batch: &[Listed]) -> Result<Vec<Result<RetryOutcome, StoreError>>, StoreError> {
        let bytes: usize = batch.iter().map(|listed| listed.payload_bytes).sum();
        let _room = self.room(PUT_BACK_COPIES * bytes).await?;
        let numbers: Vec<u64> = batch
            .iter()
            .filter_map(|listed| match listed.id {
                LetterId::File(number) => Some(number),
                LetterId::Table(_) => None,
            })
            .collect();
        let in_files = if numbers.is_empty() { Vec::new() } else { self.files.find(&numbers)? };
        let mut of_files: HashMap<_, _> = in_files.into_iter().map(|letter| (letter.number, letter)).collect();
        let replies: Vec<Option<Reply>> = batch.iter().map(|listed| self.submit_get(listed.id)).collect();
        let mut letters = Vec::new();
        let mut is_there = Vec::new();
        for (listed, reply) in batch.iter().zip(replies) {
            let letter = match (listed.id, reply) {
                (LetterId::File(number), _) => of_files.remove(&Some(number)),
                (LetterId::Table(_), Some(reply)) => first_row(reply).await?.as_ref().map(read_whole).transpose()?,
                (LetterId::Table(_), None) => panic!("a letter of the table is asked for"),
            };
            is_there.push(letter.is_some());
            letters.extend(letter.map(|letter| (listed.id, letter)));
        }
        let mut outcomes = self.put_back(letters).await?.into_iter();
        let outcome = |is_there| if is_there { outcomes.next() } else { Some(Ok(RetryOutcome::Gone)) };
        Ok(is_there.into_iter().filter_map(outcome).collect())
    }

    fn submit_get(&self, id: LetterId) -> Option<Reply> {
        match id {
            LetterId::Table(id) => {
                Some(self.client.submit(Unit::read(&self.sql.get, &[Param::I64(id), Param::I64(i64::MAX)])))
            }
            LetterId::File(_) => None,
        }
    }

    /// Puts letters back; what became of each, in their order.
    async fn put_back(
        &self,
        letters: Vec<(LetterId, DeadLetter)>,
    ) -> Result<Vec<Result<RetryOutcome, StoreError>>, StoreError> {
        let partitions = self.partitions_of(&letters).await?;
        // All are on their way before the first reply is waited for.
        let under_way: Vec<_> =
            letters.iter().map(|(id, letter)| self.submit_put_back(*id, letter, &partitions)).collect();
        let mut outcomes = Vec::new();
        for ((id, letter), under_way) in letters.into_iter().zip(under_way) {
            let outcome = match under_way {
                Ok((put_back, reply)) => put_back.outcome(reply.await).map_err(StoreError::from),
                Err(outcome) => Ok(outcome),
            };
            outcomes.push(match outcome {
                Ok(outcome) => self.settle(id, letter, outcome).await,
                Err(error) => Err(error),
            });
        }
        Ok(outcomes)
    }

    fn submit_put_back(
        &self,
        id: LetterId,
        letter: &DeadLetter,
        partitions: &Partitions,
    ) -> Result<(PutBack, Reply), RetryOutcome> {
        let message_id = letter.message_id.ok_or(RetryOutcome::NoMessage)?;
        let names = (letter.queue.clone(), letter.partition.clone());
        let partition_id = partitions.get(&names).copied().flatten().ok_or(RetryOutcome::PartitionDeleted)?;
        let table_id = match id {
            LetterId::Table(id) => Some(id),
            LetterId::File(_) => None,
        };
        let put_back = PutBack::new(table_id);
        Ok((put_back, self.client.submit(put_back.unit(&self.sql, letter, message_id, partition_id))))
    }

    /// Finds the partitions of letters, or makes them: in the order in which the drain does. `None` for one that was deleted
    /// at the same time.
    async fn partitions_of(&self, letters: &[(LetterId, DeadLetter)]) -> Result<Partitions, StoreError> {
        let mut partitions = Partitions::new();
        let messages = letters.iter().map(|(_, letter)| letter).filter(|letter| letter.message_id.is_some());
        let mut replies = Vec::new();
        for letter in messages {
            let names = (letter.queue.clone(), letter.partition.clone());
            if partitions.insert(names.clone(), None).is_none() {
                replies.push((names, letter, self.submit_find_partition(letter)));
            }
        }
        for (names, letter, reply) in replies {
            let mut row = first_row(reply).await?;
            if row.is_none() {
                row = self.make_partition(letter).await?;
            }
            partitions.insert(names, row.map(|row| row.get_i64(0)).transpose()?);
        }
        Ok(partitions)
    }

    fn submit_find_partition(&self, letter: &DeadLetter) -> Reply {
        let names = [Param::Text(&letter.queue), Param::Text(&letter.partition)];
        self.client.submit(Unit::read(&self.sql.find_partition, &names))
    }

    async fn make_partition(&self, letter: &DeadLetter) -> Result<Option<forebay_pgwire::Row>, StoreError> {
        let (queue, partition) = (Param::Text(&letter.queue), Param::Text(&letter.partition));
        let labels = [queue, Param::Text(&letter.namespace), Param::Text(&letter.task)];
        let made_queue = self.client.submit(Unit::of(&self.sql.make_queue, &labels));
        let made_partition = self.client.submit(Unit::of(&self.sql.make_partition, &[queue, partition]));
        let found = self.submit_find_partition(letter);
        results(made_queue.await)?;
        results(made_partition.await)?;
        Ok(first_row(found).await?)
    }

    /// Does for a letter what its outcome asks for beyond the unit that put it back.
    async fn settle(
        &self,
        id: LetterId,
        letter: DeadLetter,
        outcome: RetryOutcome,
    ) -> Result<RetryOutcome, StoreError> {
        match (id, &outcome) {
            (LetterId::Table(id), RetryOutcome::Duplicate { .. }) => {
                let was_there = removed(self.remove_from_table(id)).await?;
                return Ok(if was_there { outcome } else { RetryOutcome::Gone });
            }
            (LetterId::Table(id), RetryOutcome::Refused { sqlstate, error }) => {
                let params = [Param::I64(id), Param::Text(sqlstate), Param::Text(error)];
                self.client.run(Unit::of(&self.sql.note_refusal, &params)).await?;
            }
            (LetterId::File(number), RetryOutcome::Queued { .. } | RetryOutcome::Duplicate { .. }) => {
                self.files.remove(number)?;
            }
            (LetterId::File(number), RetryOutcome::Refused { sqlstate, error }) => {
                let failed_us = unix_now().as_micros() as i64;
                let (sqlstate, error) = (sqlstate.clone(), error.clone());
                self.files.change(number, |_| Some(DeadLetter { sqlstate, error, failed_us, ..letter }))?;
            }
            _ => {}
        }
        Ok(outcome)
    }
}

/// Ids of partitions by the names of queue and partition; `None`: it was deleted at the same time.
type Partitions = HashMap<(String, String), Option<i64>>;

async fn first_row(reply: Reply) -> Result<Option<forebay_pgwire::Row>, ChannelError> {
    Ok(results(reply.await)?.into_iter().next().and_then(|result| result.rows.into_iter().next()))
}

/// Whether a unit of one statement has removed something.
async fn removed(reply: Reply) -> Result<bool, ChannelError> {
    Ok(results(reply.await)?.iter().any(|result| result.tag.rows() > 0))
}
