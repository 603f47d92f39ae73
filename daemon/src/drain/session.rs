//! A connection to PostgreSQL as the drain uses it: prepared statements, the checkpoint it believes in.

use super::{
    checkpoint, checkpoint::Checkpoint, dead_letters::Counted, partitions::Partitions, round::Sent,
    statements::Statements,
};
use crate::{postgres::connect, state::database_id::DatabaseId};
use crate::{
    postgres::{
        schema,
        schema::{SchemaError, quoted},
    },
    state::shared::Shared,
};
use forebay_pgwire::{Config, Connection, Error, Flight};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Time between looks at which queues there are; less than a second, as that between counts of dead letters.
const QUEUES_INTERVAL: Duration = Duration::from_millis(900);

/// Why a session could not be had.
#[derive(Debug)]
pub enum SessionError {
    /// PostgreSQL refused, or was lost.
    Postgres(Error),
    /// The schema is not as it must be.
    Schema(SchemaError),
    /// The database's encoding does not hold every text; the encoding.
    Encoding(String),
    /// The checkpoint does not fit the log: this database or this log is another one than it was, or went back in time.
    Checkpoint(String),
    /// The first drainer has not made the checkpoints yet.
    NoCheckpoint,
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres(error) => error.fmt(f),
            Self::Schema(error) => error.fmt(f),
            Self::Encoding(encoding) => write!(f, "the database has the encoding {encoding}; it must be UTF8"),
            Self::Checkpoint(what) => f.write_str(what),
            Self::NoCheckpoint => f.write_str("the first drainer has not made the checkpoints yet"),
        }
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

/// An open session.
pub struct Session {
    pub(crate) conn: Connection,
    pub(crate) shared: Arc<Shared>,
    /// Whose it is.
    pub(crate) drainer: usize,
    pub(crate) schema: String,
    pub(crate) statements: Statements,
    /// What the checkpoint's row is known to hold.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) partitions: Partitions,
    /// What is under way, and belongs to the rounds of `sent` and the COMMITs between them.
    pub(crate) flight: Flight,
    /// The round that was sent and not settled.
    pub(crate) sent: Option<Sent>,
    /// Room to encode rows in.
    pub(crate) copy_buffer: Vec<u8>,
    /// Rounds that are prepared for others who write to the same partitions.
    pub(crate) careful_left: u32,
    pub(crate) counted: Counted,
    /// Which database it is, if PostgreSQL says so.
    pub(crate) database: Option<DatabaseId>,
    queues_read_at: Option<Instant>,
}

impl Session {
    /// Connects and sees to the schema; [`begin`](Self::begin) comes next.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open(config: &Config, shared: &Arc<Shared>, drainer: usize) -> Result<Self, SessionError> {
        let mut config = config.clone();
        config.application_name.get_or_insert_with(|| "forebay".to_owned());
        let mut conn = connect::connect(&config, shared.config.postgres_timeout).await?;
        match conn.parameter("server_encoding") {
            None | Some("UTF8") => {}
            Some(encoding) => return Err(SessionError::Encoding(encoding.to_owned())),
        }
        // Before anything is made in it.
        let database = checkpoint::find_database(&mut conn, shared).await?;
        let settings = &shared.config;
        // A schema that was there and is gone is not made anew: whoever moved it may want to put it back.
        let migrate = settings.migrate && !shared.drain.has_checkpoint.load(Ordering::Relaxed);
        schema::ensure(&mut conn, &settings.schema, migrate).await.map_err(|error| match error {
            SchemaError::Postgres(error) => SessionError::Postgres(error),
            error => SessionError::Schema(error),
        })?;
        let schema = quoted(&settings.schema);
        let statements = Statements::prepare(&mut conn, &schema).await?;
        let mut session = Self {
            conn,
            shared: Arc::clone(shared),
            drainer,
            schema,
            statements,
            checkpoint: Checkpoint::default(),
            partitions: Partitions::default(),
            flight: Flight::new(),
            sent: None,
            copy_buffer: Vec::new(),
            careful_left: 0,
            counted: Counted::default(),
            database,
            queues_read_at: None,
        };
        session.read_queues().await?;
        Ok(session)
    }

    /// Reads which queues there are, where that matters to pushes, once in a while.
    pub(crate) async fn read_queues(&mut self) -> Result<(), Error> {
        if !self.are_queues_due() {
            return Ok(());
        }
        self.queues_read_at = Some(Instant::now());
        let rows = self.conn.query_once(&format!("SELECT name FROM {}.queues", self.schema), &[]).await?;
        let names = rows.iter().map(|row| row.get_str(0).map(str::to_owned)).collect::<Result<_, _>>()?;
        self.shared.drain.set_known_queues(names);
        Ok(())
    }

    /// Whether it is time to look which queues there are.
    pub(crate) fn are_queues_due(&self) -> bool {
        !self.shared.config.auto_create_queues
            && self.queues_read_at.is_none_or(|read_at| read_at.elapsed() >= QUEUES_INTERVAL)
    }

    /// Whether the connection is of no more use.
    pub fn is_broken(&self) -> bool {
        self.conn.is_broken()
    }

    /// Notices if the server went away while nothing was to be done, and what others changed there.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn check(&mut self) -> Result<(), Error> {
        self.conn.simple("SELECT 1").await?;
        self.count_dead_letters().await?;
        self.read_queues().await
    }
}
