//! Putting a dead letter back as the last message of its partition: one unit, and what it comes to.
//!
//! The message keeps the id and the transaction id that it had. The unit is one transaction: each step fails, and takes the
//! others back, where what it needs is not so.

use super::{DeadLetter, statements::LetterStatements};
use crate::{
    message::TransactionKey,
    postgres::{
        channel::{ChannelError, Unit, UnitResult},
        remedy::{Remedy, remedy},
    },
};
use forebay_pgwire::{Error, Param, PipelineOutcome};
use uuid::Uuid;

/// SQLSTATE of a row that PostgreSQL took no notice of.
const SKIPPED: (&str, &str) = ("XXFB2", "PostgreSQL took no row without an error: a trigger skips it");

/// What became of a letter that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// It is a message, the last one of its partition.
    Queued {
        /// Its sequence number there.
        seq: i64,
    },
    /// A message with its transaction id is there; the letter is gone.
    Duplicate {
        /// That one's id.
        of: Uuid,
    },
    /// PostgreSQL refuses it still; the letter says why.
    Refused {
        /// SQLSTATE.
        sqlstate: String,
        /// What PostgreSQL said.
        error: String,
    },
    /// It is not a message that this release knows.
    NoMessage,
    /// Its partition was deleted at the same time. The letter stays as it was.
    PartitionDeleted,
    /// Somebody else dealt with it meanwhile.
    Gone,
}

/// A statement of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    LockPartition,
    LockLetter,
    FindDuplicate,
    RequireNoDuplicate,
    Reserve,
    Insert,
    RequireInserted,
    RemoveLetter,
}

/// The steps for a letter of the table.
const OF_TABLE: &[Step] = &[
    Step::LockPartition,
    Step::LockLetter,
    // A statement of its own behind the lock, so that it sees what was committed before.
    Step::FindDuplicate,
    Step::RequireNoDuplicate,
    Step::Reserve,
    Step::Insert,
    Step::RequireInserted,
    Step::RemoveLetter,
];

/// The steps for a letter of a file.
const OF_FILE: &[Step] = &[
    Step::LockPartition,
    Step::FindDuplicate,
    Step::RequireNoDuplicate,
    Step::Reserve,
    Step::Insert,
    Step::RequireInserted,
];

/// The unit for one letter.
#[derive(Clone, Copy)]
pub(super) struct PutBack {
    steps: &'static [Step],
    /// The letter's id in the table; `None` for a letter of a file.
    table_id: Option<i64>,
}

impl PutBack {
    pub(super) fn new(table_id: Option<i64>) -> Self {
        Self { steps: if table_id.is_some() { OF_TABLE } else { OF_FILE }, table_id }
    }

    /// The unit that puts `letter`, the message `message_id`, into a partition.
    pub(super) fn unit(self, sql: &LetterStatements, letter: &DeadLetter, message_id: Uuid, partition_id: i64) -> Unit {
        // A message without a transaction id gets its own id as one, which is what its producer was told: so it cannot come
        // twice, also when this is cut short before a letter in a file is removed.
        let transaction_id = letter.transaction_id.clone().unwrap_or_else(|| message_id.to_string());
        let key = TransactionKey::of(&transaction_id);
        let partition = Param::I64(partition_id);
        let of_key = [partition, Param::Uuid(key.bytes)];
        let payload = letter.payload.bytes().unwrap_or_default();
        let insert = [
            partition,
            Param::TimestamptzUs(letter.accepted_us),
            Param::Uuid(message_id.into_bytes()),
            letter.trace_id.map(Uuid::into_bytes).into(),
            of_key[1],
            Some(transaction_id.as_str()).filter(|_| !key.is_the_id).into(),
            Param::Jsonb(&payload),
            letter.producer_sub.as_deref().into(),
        ];
        let of_letter = [self.table_id.into()];
        self.steps.iter().fold(Unit::default(), |unit, step| match step {
            Step::LockPartition => unit.and(&sql.require_partition, &[partition]),
            Step::LockLetter => unit.and(&sql.require_letter, &of_letter),
            Step::FindDuplicate => unit.and(&sql.find_message, &of_key),
            Step::RequireNoDuplicate => unit.and(&sql.require_no_message, &of_key),
            Step::Reserve => unit.and(&sql.reserve, &[partition]),
            Step::Insert => unit.and(&sql.insert, &insert),
            Step::RequireInserted => unit.and(&sql.require_message, &of_key),
            Step::RemoveLetter => unit.and(&sql.remove, &of_letter),
        })
    }

    /// What the unit came to. A duplicate's letter is still there then, and a refusal is not noted yet.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) fn outcome(self, result: UnitResult) -> Result<RetryOutcome, ChannelError> {
        let outcome = result?;
        let Some(failure) = &outcome.failure else {
            return Ok(RetryOutcome::Queued { seq: self.column(&outcome, Step::Reserve)?.get_i64(0)? });
        };
        let refused = |(sqlstate, error): (&str, &str)| RetryOutcome::Refused {
            sqlstate: sqlstate.to_owned(),
            error: error.to_owned(),
        };
        // Behind the last step: the commit.
        let step = self.steps.get(failure.statement);
        let is_requirement = failure.error.sqlstate.as_str() == "22012";
        match step {
            Some(Step::LockPartition) if is_requirement => return Ok(RetryOutcome::PartitionDeleted),
            Some(Step::LockLetter) if is_requirement => return Ok(RetryOutcome::Gone),
            Some(Step::RequireNoDuplicate) if is_requirement => {
                let of = self.column(&outcome, Step::FindDuplicate)?.get_uuid(0)?;
                return Ok(RetryOutcome::Duplicate { of: Uuid::from_bytes(of) });
            }
            Some(Step::RequireInserted) if is_requirement => return Ok(refused(SKIPPED)),
            _ => {}
        }
        let error = Error::Server(failure.error.clone());
        match remedy(&error) {
            Remedy::SetAside => Ok(refused((failure.error.sqlstate.as_str(), &failure.error.message))),
            _ => Err(error.into()),
        }
    }

    /// The row of a step that gave one.
    fn column(self, outcome: &PipelineOutcome, step: Step) -> Result<forebay_pgwire::Row, ChannelError> {
        let index = self.steps.iter().position(|of_unit| *of_unit == step);
        let row = index.and_then(|index| outcome.results.get(index)?.rows.first());
        match row {
            Some(row) => Ok(row.clone()),
            None => panic!("{step:?} gave no row though the steps behind it succeeded"),
        }
    }
}
