//! Rows as COPY takes them, and what PostgreSQL has of them already.

use super::batch::{Batch, Verdict};
use forebay_pgwire::{BinaryCopy, Error};
use std::collections::HashMap;
use uuid::Uuid;

/// Fields of a row, in the order of the COPY's columns; with producers there is one more.
const FIELDS: u16 = 8;

impl Batch {
    /// Notes which rows are there already, as the probe found.
    pub(crate) fn probed(&mut self, rows: &[forebay_pgwire::Row]) -> Result<(), Error> {
        // By the id of the batch's first message with the key, for its repeats name that one.
        let mut known: HashMap<Uuid, Uuid> = HashMap::new();
        for row in rows {
            let (index, of) = (row.get_i32(0)? as usize, Uuid::from_bytes(row.get_uuid(1)?));
            if let Some(message) = self.message(index) {
                known.insert(message.id, of);
                self.verdicts[index] = Verdict::Duplicate { of };
            }
        }
        for verdict in &mut self.verdicts {
            if let Verdict::Duplicate { of } = verdict
                && let Some(first) = known.get(of)
            {
                *of = *first;
            }
        }
        Ok(())
    }

    /// Appends the row of a record.
    pub(crate) fn encode(&self, index: usize, (partition_id, seq): (i64, i64), rows: &mut BinaryCopy) {
        let Some(message) = self.message(index) else { return };
        rows.row(FIELDS + u16::from(self.has_producers));
        rows.i64(partition_id);
        rows.i64(seq);
        rows.timestamptz_us(message.accepted_us);
        rows.uuid(message.id.as_bytes());
        match message.trace_id {
            Some(trace_id) => rows.uuid(trace_id.as_bytes()),
            None => rows.null(),
        }
        let key = message.transaction_key();
        match &key {
            Some(key) => rows.uuid(&key.bytes),
            None => rows.null(),
        }
        match message.transaction_id.filter(|_| key.is_some_and(|key| !key.is_the_id)) {
            Some(transaction_id) => rows.text(transaction_id),
            None => rows.null(),
        }
        rows.jsonb(message.payload);
        match message.known_producer() {
            _ if !self.has_producers => {}
            Some(producer_sub) => rows.text(producer_sub),
            None => rows.null(),
        }
    }
}
