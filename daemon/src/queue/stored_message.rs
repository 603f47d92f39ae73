//! A message as PostgreSQL has it.

use super::batch::Message;
use forebay_pgwire::{Error, Row};
use uuid::Uuid;

/// Columns before those of the message in a row of a take.
const FIRST: usize = 6;

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its number in its partition.
    pub seq: i64,
    /// When it was accepted, in microseconds since 1970.
    pub created_us: i64,
    /// Its id.
    pub id: Uuid,
    /// The trace that it belongs to.
    pub trace_id: Option<Uuid>,
    /// The key of its transaction id, if its client gave one.
    pub transaction_key: Option<Uuid>,
    /// Its transaction id, if the key is not the id itself.
    pub transaction_id: Option<Box<str>>,
    /// The `sub` of the token that it was pushed with.
    pub producer_sub: Option<Box<str>>,
    /// JSON.
    pub payload: Box<str>,
    /// How often it failed in its group.
    pub attempts: i32,
}

impl Message for StoredMessage {
    fn seq(&self) -> i64 {
        self.seq
    }
}

impl StoredMessage {
    /// The transaction id that its producer was told.
    #[must_use]
    pub fn transaction_id(&self) -> String {
        match &self.transaction_id {
            Some(id) => id.to_string(),
            None => self.transaction_key.unwrap_or(self.id).to_string(),
        }
    }

    /// The key by which its consumers name it: that of its transaction id.
    #[must_use]
    pub fn key(&self) -> Uuid {
        self.transaction_key.unwrap_or(self.id)
    }

    /// Reads the message of a row; `None`: the row has none.
    ///
    /// # Errors
    /// Where the columns are not as expected.
    pub(super) fn of(row: &Row) -> Result<Option<Self>, Error> {
        let Some(seq) = row.get_opt::<i64>(FIRST)? else { return Ok(None) };
        let uuid = |column: usize| Ok::<_, Error>(row.get_opt::<[u8; 16]>(column)?.map(Uuid::from_bytes));
        let text = |column: usize| Ok::<_, Error>(row.get_opt_str(column)?.map(Box::from));
        Ok(Some(Self {
            seq,
            created_us: row.get_timestamptz_us(FIRST + 1)?,
            id: Uuid::from_bytes(row.get_uuid(FIRST + 2)?),
            trace_id: uuid(FIRST + 3)?,
            transaction_key: uuid(FIRST + 4)?,
            transaction_id: text(FIRST + 5)?,
            producer_sub: text(FIRST + 6)?,
            payload: row.get_opt_str(FIRST + 7)?.unwrap_or_default().into(),
            attempts: 0,
        }))
    }
}
