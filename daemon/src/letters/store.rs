//! The dead letters of the table and of the files as one list: those of the table first, each by its id.

use super::{
    DeadLetter,
    files::LetterFiles,
    id::LetterId,
    put_back::{PutBack, RetryOutcome},
    statements::{LetterStatements, NAMES_BYTES, read_count, read_listed, read_whole},
};
use crate::{
    ids::unix_now,
    postgres::{
        channel::{ChannelError, Reply, Unit},
        client::{PgClient, results},
        remedy::Remedy,
    },
};
use forebay_pgwire::{Param, oid};
use std::{
    collections::{BTreeMap, HashMap},
    io,
};

/// Letters of a page at most.
pub const PAGE_MAX: u32 = 1000;

/// Bytes at which a page ends, unless its first letter has more. Payloads do not count, since they are not in it.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// How much a page has at most.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Letters.
    pub letters: u32,
    /// Bytes at which it ends.
    pub bytes: usize,
}

impl PageLimit {
    /// So many letters, and [`PAGE_BYTES_MAX`].
    #[must_use]
    pub const fn letters(letters: u32) -> Self {
        Self { letters, bytes: PAGE_BYTES_MAX }
    }
}

/// Letters that are put back with one pipeline at most. Each is a commit of its own, and others who share the connection wait
/// for all of them: a hundred milliseconds on a slow disk.
const BATCH_LETTERS: usize = 16;

/// Bytes of their payloads at most, unless one letter has more: what they occupy while they are on their way.
const BATCH_BYTES: usize = 4 << 20;

/// A letter of a list, without its payload.
pub struct Listed {
    /// Its id.
    pub id: LetterId,
    /// The letter.
    pub letter: DeadLetter<()>,
    /// The size of its payload in bytes.
    pub payload_bytes: usize,
}

impl Listed {
    /// Bytes that it takes, about: names have 255 at most.
    fn memory_bytes(&self) -> usize {
        NAMES_BYTES + self.letter.error.len()
    }
}

/// Letters, and why those of the table may be missing among them.
pub struct Page {
    /// The letters, by id.
    pub letters: Vec<Listed>,
    /// The last one's id, if the page is full: further letters may follow behind it.
    pub next: Option<LetterId>,
    /// What PostgreSQL says instead of showing its table.
    pub table_refused: Option<String>,
}

/// Why the store cannot work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL refused, or was lost. Next step: by its [`ChannelError::remedy`].
    #[error(transparent)]
    Postgres(#[from] ChannelError),
    /// The files cannot be read or changed. Next step: see the data directory.
    #[error("the files of dead letters: {0}")]
    Files(#[from] io::Error),
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
        let mut page = Page { letters: Vec::new(), next: None, table_refused: None };
        let (table_after, file_after) = match after {
            None => (Some(0), None),
            Some(LetterId::Table(id)) => (Some(id), None),
            Some(LetterId::File(number)) => (None, Some(number)),
        };
        if let Some(after) = table_after {
            match self.list_table(queue, after, limit).await {
                Ok(listed) => (page.letters, is_cut) = listed,
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
            page.letters.extend(letters);
            is_cut = is_rest_cut;
        }
        let is_full = is_cut || page.letters.len() == limit.letters as usize;
        page.next = page.letters.last().filter(|_| is_full).map(|last| last.id);
        Ok(page)
    }

    /// Letters of the table, and whether there are more that have no room.
    async fn list_table(
        &self,
        queue: Option<&str>,
        after: i64,
        limit: PageLimit,
    ) -> Result<(Vec<Listed>, bool), ChannelError> {
        let queue = queue.map_or(Param::Null(oid::TEXT), Param::Text);
        let params = [Param::I64(after), queue, Param::I64(limit.letters.into()), Param::I64(limit.bytes as i64)];
        let rows = self.client.rows(&self.sql.list, &params).await?;
        let listed = rows.iter().map(|row| {
            let (id, letter, payload_bytes) = read_listed(row)?;
            Ok(Listed { id: LetterId::Table(id), letter, payload_bytes })
        });
        let is_cut = rows.first().map(read_count).transpose()?.is_some_and(|count| count > rows.len());
        Ok((listed.collect::<Result<_, ChannelError>>()?, is_cut))
    }

    /// The same of the files.
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
        match id {
            LetterId::Table(id) => {
                let rows = self.client.rows(&self.sql.get, &[Param::I64(id)]).await?;
                Ok(rows.first().map(read_whole).transpose()?)
            }
            LetterId::File(number) => Ok(self.files.find(&[number])?.pop()),
        }
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
        match self.get(id).await? {
            None => Ok(RetryOutcome::Gone),
            Some(letter) => match self.put_back(vec![(id, letter)]).await?.pop() {
                Some(outcome) => outcome,
                None => panic!("one letter has one outcome"),
            },
        }
    }

    /// Puts letters back, in their order, with few round trips. Returns what became of each; the caller keeps the number small
    /// with [`batches`].
    ///
    /// # Errors
    /// As [`retry`](Self::retry), where none of them was put back.
    pub async fn retry_batch(&self, batch: &[Listed]) -> Result<Vec<Result<RetryOutcome, StoreError>>, StoreError> {
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
            LetterId::Table(id) => Some(self.client.submit(Unit::read(&self.sql.get, &[Param::I64(id)]))),
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

/// Cuts letters into batches that may be put back together.
pub fn batches(letters: &[Listed]) -> impl Iterator<Item = &[Listed]> {
    let mut rest = letters;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |listed: &&Listed| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(listed.payload_bytes.max(1));
            is_first || bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH_LETTERS).take_while(fits).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        (count > 0).then_some(batch)
    })
}

async fn first_row(reply: Reply) -> Result<Option<forebay_pgwire::Row>, ChannelError> {
    Ok(results(reply.await)?.into_iter().next().and_then(|result| result.rows.into_iter().next()))
}

/// Whether a unit of one statement has removed something.
async fn removed(reply: Reply) -> Result<bool, ChannelError> {
    Ok(results(reply.await)?.iter().any(|result| result.tag.rows() > 0))
}
