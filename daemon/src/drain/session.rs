//! A connection to PostgreSQL as the drain uses it: settings, prepared statements, the checkpoint it believes in.

use super::{
    checkpoint::{self, Checkpoint},
    database::DatabaseId,
    dead_letters::Counted,
    partitions::Partitions,
    round::Sent,
    statements::Statements,
};
use crate::{
    schema::{self, SchemaError, quoted},
    shared::Shared,
};
use forebay_pgwire::{Config, Connection, Error, Flight, TargetSession};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// Time between looks at which queues there are; less than a second, as that between counts of dead letters.
const QUEUES_INTERVAL: Duration = Duration::from_millis(900);

/// First version of the server with `client_connection_check_interval`.
const CHECK_INTERVAL_SINCE: u32 = 14;

/// How long the drain waits for a lock at most: others hold those that it takes for a transaction of theirs.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// When PostgreSQL begins to ask whether the daemon is still there, how often it asks, and how often in vain: 30 s in all. A
/// backend in the midst of a COPY has no other timeout. Nothing of this holds for a unix socket, which cannot fall silent.
const KEEPALIVES_IDLE_S: u32 = 10;
const KEEPALIVES_INTERVAL_S: u32 = 5;
const KEEPALIVES_COUNT: u32 = 4;

/// How long PostgreSQL waits for what it said to arrive; keepalives do not run meanwhile.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Settings that bound the life of a session whose daemon was lost, and plans that do not depend on statistics.
fn settings(statement_timeout: Duration) -> [(String, String); 8] {
    let ms = |timeout: Duration| format!("{}ms", timeout.as_millis());
    [
        ("lock_timeout", ms(LOCK_TIMEOUT_MAX.min(statement_timeout))),
        ("statement_timeout", ms(statement_timeout)),
        ("idle_in_transaction_session_timeout", ms(statement_timeout)),
        ("tcp_keepalives_idle", KEEPALIVES_IDLE_S.to_string()),
        ("tcp_keepalives_interval", KEEPALIVES_INTERVAL_S.to_string()),
        ("tcp_keepalives_count", KEEPALIVES_COUNT.to_string()),
        ("tcp_user_timeout", ms(UNACKNOWLEDGED_MAX)),
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

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
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    /// Whose it is.
    pub(super) drainer: usize,
    pub(super) schema: String,
    pub(super) statements: Statements,
    /// What the checkpoint's row is known to hold.
    pub(super) checkpoint: Checkpoint,
    pub(super) partitions: Partitions,
    /// What is under way, and belongs to the rounds of `sent` and the COMMITs between them.
    pub(super) flight: Flight,
    /// The round that was sent and not settled.
    pub(super) sent: Option<Sent>,
    /// Room to encode rows in.
    pub(super) copy_buffer: Vec<u8>,
    /// Rounds that are prepared for others who write to the same partitions.
    pub(super) careful_left: u32,
    pub(super) counted: Counted,
    /// Which database it is, if PostgreSQL says so.
    pub(super) database: Option<DatabaseId>,
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
        if !config.more_hosts.is_empty() && config.target_session == TargetSession::Any {
            config.target_session = TargetSession::ReadWrite;
        }
        let timeout = shared.config.postgres_timeout;
        config.options.extend(settings(timeout));
        let mut conn = Connection::connect(&config).await?;
        // The server's own timeouts come first.
        conn.set_deadline(Some(timeout.mul_f64(1.5)));
        match conn.parameter("server_encoding") {
            None | Some("UTF8") => {}
            Some(encoding) => return Err(SessionError::Encoding(encoding.to_owned())),
        }
        settle(&mut conn).await?;
        // Before anything is made in it.
        let database = checkpoint::find_database(&mut conn, shared).await?;
        let settings = &shared.config;
        // A schema that was there and is gone is not made anew: whoever moved it may want to put it back.
        let migrate = settings.migrate && !shared.has_checkpoint.load(Ordering::Relaxed);
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
    pub(super) async fn read_queues(&mut self) -> Result<(), Error> {
        if !self.are_queues_due() {
            return Ok(());
        }
        self.queues_read_at = Some(Instant::now());
        let rows = self.conn.query_once(&format!("SELECT name FROM {}.queues", self.schema), &[]).await?;
        let names = rows.iter().map(|row| row.get_str(0).map(str::to_owned)).collect::<Result<_, _>>()?;
        *self.shared.known_queues.write().unwrap_or_else(PoisonError::into_inner) = Some(names);
        Ok(())
    }

    /// Whether it is time to look which queues there are.
    pub(super) fn are_queues_due(&self) -> bool {
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

async fn settle(conn: &mut Connection) -> Result<(), Error> {
    let version = conn.parameter("server_version").unwrap_or_default();
    let major: u32 = version.split(['.', ' ', 'd', 'b', 'r']).next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major >= CHECK_INTERVAL_SINCE {
        // Not on every system; the other timeouts bound a lost session too.
        if let Err(error) = conn.simple("SET client_connection_check_interval = '5s'").await
            && error.ends_connection()
        {
            return Err(error);
        }
    }
    // The log lets go of what PostgreSQL has committed, so a commit must be on its disk. A stronger setting stays.
    let durable =
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
    conn.simple(durable).await.map(drop)
}
