//! Which queues PostgreSQL has, for pushes that may not name a new one.

use crate::state::drain_view::DrainView;
use forebay_pgwire::{Connection, Error};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Time between reads of the list. It is less than the second after which an idle drain checks the connection, or only every
/// other check would read it.
const READ_INTERVAL: Duration = Duration::from_millis(900);

/// Reads the list of queues from time to time, if pushes need it.
pub(super) struct QueueList {
    drain: Arc<DrainView>,
    /// Quoted.
    schema: String,
    is_needed: bool,
    read_at: Option<Instant>,
}

impl QueueList {
    /// The queues of the quoted `schema`; `is_needed` says whether pushes need the list.
    pub(super) fn new(drain: Arc<DrainView>, schema: &str, is_needed: bool) -> Self {
        Self { drain, schema: schema.to_owned(), is_needed, read_at: None }
    }

    /// Whether it is time to read the list.
    pub(super) fn is_due(&self) -> bool {
        self.is_needed && self.read_at.is_none_or(|read_at| read_at.elapsed() >= READ_INTERVAL)
    }

    /// Reads the list if that is due.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(super) async fn update(&mut self, conn: &mut Connection) -> Result<(), Error> {
        if !self.is_due() {
            return Ok(());
        }
        self.read_at = Some(Instant::now());
        let rows = conn.query_once(&format!("SELECT name FROM {}.queues", self.schema), &[]).await?;
        let names = rows.iter().map(|row| row.get_str(0).map(str::to_owned)).collect::<Result<_, _>>()?;
        self.drain.set_known_queues(names);
        Ok(())
    }
}
