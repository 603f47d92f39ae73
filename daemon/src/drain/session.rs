//! A connection to PostgreSQL as the drain uses it: settings, prepared statements, the checkpoint it believes in.

use super::{
    batch::{BatchPartition, PartitionName},
    checkpoint::{self, Checkpoint},
    database::DatabaseId,
    dead_letters::Counted,
};
use crate::{
    schema::{self, SchemaError, quoted},
    shared::Shared,
};
use forebay_pgwire::{Config, Connection, Error, Param, Statement, oid};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// Partitions whose ids are remembered; when there are more, all are looked up again.
const PARTITIONS_REMEMBERED_MAX: usize = 100_000;

/// Time that one operation of the drain may take: the server's own timeouts come first.
const OPERATION_DEADLINE: Duration = Duration::from_secs(90);

/// Time between looks at which queues there are.
const QUEUES_INTERVAL: Duration = Duration::from_secs(1);

/// First version of the server with `client_connection_check_interval`.
const CHECK_INTERVAL_SINCE: u32 = 14;

/// Settings that bound the life of a session whose daemon was lost, and plans that do not depend on statistics.
const SETTINGS: [(&str, &str); 4] = [
    ("lock_timeout", "5s"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("plan_cache_mode", "force_generic_plan"),
];

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
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres(error) => error.fmt(f),
            Self::Schema(error) => error.fmt(f),
            Self::Encoding(encoding) => write!(f, "the database has the encoding {encoding}; it must be UTF8"),
            Self::Checkpoint(what) => f.write_str(what),
        }
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

pub(super) struct Statements {
    pub(super) lock_checkpoint: Statement,
    pub(super) move_checkpoint: Statement,
    pub(super) lock_partitions: Statement,
    pub(super) probe: Statement,
    pub(super) reserve: Statement,
    pub(super) copy: String,
}

/// An open session.
pub struct Session {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) schema: String,
    pub(super) statements: Statements,
    /// What the checkpoint's row is known to hold.
    pub(super) checkpoint: Checkpoint,
    pub(super) counted: Counted,
    /// Which database it is, if PostgreSQL says so.
    pub(super) database: Option<DatabaseId>,
    partition_ids: HashMap<PartitionName, i64>,
    queues_read_at: Option<Instant>,
}

impl Session {
    /// Connects and sees to the schema; [`begin`](Self::begin) comes next.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open(config: &Config, shared: &Arc<Shared>) -> Result<Self, SessionError> {
        let mut config = config.clone();
        config.application_name.get_or_insert_with(|| "forebay".to_owned());
        config.options.extend(SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut conn = Connection::connect(&config).await?;
        conn.set_deadline(Some(OPERATION_DEADLINE));
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
        let statements = prepare(&mut conn, &schema).await?;
        let mut session = Self {
            conn,
            shared: Arc::clone(shared),
            schema,
            statements,
            checkpoint: Checkpoint::default(),
            counted: Counted::default(),
            database,
            partition_ids: HashMap::new(),
            queues_read_at: None,
        };
        session.read_queues().await?;
        Ok(session)
    }

    /// Reads which queues there are, where that matters to pushes, once in a while.
    pub(super) async fn read_queues(&mut self) -> Result<(), Error> {
        let is_due = self.queues_read_at.is_none_or(|read_at| read_at.elapsed() >= QUEUES_INTERVAL);
        if self.shared.config.auto_create_queues || !is_due {
            return Ok(());
        }
        self.queues_read_at = Some(Instant::now());
        let rows = self.conn.query_once(&format!("SELECT name FROM {}.queues", self.schema), &[]).await?;
        let names = rows.iter().map(|row| row.get_str(0).map(str::to_owned)).collect::<Result<_, _>>()?;
        *self.shared.known_queues.write().unwrap_or_else(PoisonError::into_inner) = Some(names);
        Ok(())
    }

    /// Finds the ids of partitions, making those that are not there, and sorts them by id: the order in which everybody
    /// locks them.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(super) async fn find_partitions(&mut self, partitions: &mut [BatchPartition]) -> Result<(), Error> {
        if self.partition_ids.len() > PARTITIONS_REMEMBERED_MAX {
            self.partition_ids.clear();
        }
        let unknown: Vec<&BatchPartition> =
            partitions.iter().filter(|partition| !self.partition_ids.contains_key(&partition.name)).collect();
        if !unknown.is_empty() {
            let queues: Vec<&str> = unknown.iter().map(|partition| partition.name.queue.as_str()).collect();
            let names: Vec<&str> = unknown.iter().map(|partition| partition.name.partition.as_str()).collect();
            let namespaces: Vec<&str> = unknown.iter().map(|partition| partition.labels.0.as_str()).collect();
            let tasks: Vec<&str> = unknown.iter().map(|partition| partition.labels.1.as_str()).collect();
            let schema = &self.schema;
            // Made in one order by everybody, so that two daemons wait for each other instead of deadlocking. They stand
            // whether or not the round that needed them commits.
            let make_queues = format!(
                "INSERT INTO {schema}.queues (name, namespace, task) \
                 SELECT DISTINCT ON (q) q, nullif(n, ''), nullif(t, '') \
                 FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY v(q, n, t, i) ORDER BY q, i \
                 ON CONFLICT (name) DO NOTHING"
            );
            let make_partitions = format!(
                "INSERT INTO {schema}.partitions (queue_id, name) \
                 SELECT q.id, v.p FROM unnest($1::text[], $2::text[]) v(q, p) JOIN {schema}.queues q ON q.name = v.q \
                 ORDER BY q.id, v.p ON CONFLICT (queue_id, name) DO NOTHING"
            );
            let find = format!(
                "SELECT v.i, p.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY v(q, p, i) \
                 JOIN {schema}.queues q ON q.name = v.q JOIN {schema}.partitions p ON p.queue_id = q.id AND p.name = v.p"
            );
            let (queues, names) = (Param::TextArray(&queues), Param::TextArray(&names));
            let labels = [queues, Param::TextArray(&namespaces), Param::TextArray(&tasks)];
            self.conn.execute_once(&make_queues, &labels).await?;
            self.conn.execute_once(&make_partitions, &[queues, names]).await?;
            let rows = self.conn.query_once(&find, &[queues, names]).await?;
            for row in &rows {
                let index = row.get_i64(0)? as usize - 1;
                if let Some(partition) = unknown.get(index) {
                    self.partition_ids.insert(partition.name.clone(), row.get_i64(1)?);
                }
            }
        }
        for partition in partitions.iter_mut() {
            partition.id = self.partition_ids.get(&partition.name).copied().unwrap_or_default();
        }
        partitions.sort_by_key(|partition| partition.id);
        Ok(())
    }

    /// Forgets the ids of partitions: some are not there any more.
    pub(super) fn forget_partitions(&mut self) {
        self.partition_ids.clear();
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

async fn prepare(conn: &mut Connection, schema: &str) -> Result<Statements, Error> {
    let lock_checkpoint = format!(
        "SELECT lanes, positions, ordinals FROM {schema}.drain_checkpoints \
         WHERE log_id = $1 AND drainer = $2 FOR NO KEY UPDATE"
    );
    let move_checkpoint = format!(
        "UPDATE {schema}.drain_checkpoints \
         SET lanes = $3, positions = $4, ordinals = $5, rounds = rounds + 1, updated_at = now() \
         WHERE log_id = $1 AND drainer = $2 AND lanes = $6 AND positions = $7 AND ordinals = $8"
    );
    let lock_partitions =
        format!("SELECT id FROM {schema}.partitions WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE");
    let probe = format!(
        "SELECT v.i, m.id FROM unnest($1::bigint[], $2::uuid[], $3::integer[]) v(p, k, i) \
         JOIN {schema}.messages m ON m.partition_id = v.p AND m.transaction_key = v.k"
    );
    let reserve = format!(
        "UPDATE {schema}.partitions p SET last_seq = p.last_seq + v.n \
         FROM unnest($1::bigint[], $2::bigint[]) v(id, n) WHERE p.id = v.id RETURNING p.id, p.last_seq"
    );
    let copy = format!(
        "COPY {schema}.messages (partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload) \
         FROM STDIN (FORMAT BINARY)"
    );
    let key = [oid::UUID, oid::INT4];
    let arrays = [oid::INT4_ARRAY, oid::INT8_ARRAY, oid::INT8_ARRAY];
    Ok(Statements {
        lock_checkpoint: conn.prepare(&lock_checkpoint, &key).await?,
        move_checkpoint: conn.prepare(&move_checkpoint, &[&key[..], &arrays, &arrays].concat()).await?,
        lock_partitions: conn.prepare(&lock_partitions, &[oid::INT8_ARRAY]).await?,
        probe: conn.prepare(&probe, &[oid::INT8_ARRAY, oid::UUID_ARRAY, oid::INT4_ARRAY]).await?,
        reserve: conn.prepare(&reserve, &[oid::INT8_ARRAY, oid::INT8_ARRAY]).await?,
        copy,
    })
}
