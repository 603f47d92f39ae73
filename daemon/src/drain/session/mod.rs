//! A connection to PostgreSQL as one drainer uses it.

mod backend;
mod local_state;
mod ownership;
mod plan;
mod queue_list;
pub(super) mod remarks;
mod rival;
mod schema_watch;
pub(super) mod session_error;

use self::{
    local_state::LocalStateKeeper, ownership::Ownership, plan::plan, queue_list::QueueList, remarks::Remarks,
    schema_watch::SchemaWatch, session_error::SessionError,
};
use crate::{
    drain::{
        checkpoint::{
            checkpoint_match::{CheckpointMatch, CheckpointMismatch, same_database},
            checkpoint_store::CheckpointStore,
            database_state::{self, DatabaseState},
            lane_views::{rewind, views},
            log_places::LogPlaces,
            row::{Checkpoint, CheckpointRow},
        },
        round::{
            batch::Batch,
            dead_letter_keeper::DeadLetterKeeper,
            partition_registry::PartitionRegistry,
            round_error::RoundError,
            sift::Finding,
            transaction::{FirstAnswer, RoundTransaction, SendMode},
            uncreated_names::UncreatedNames,
        },
        settings::DrainSettings,
    },
    limits::REFUSED_IN_A_ROW,
    postgres::{
        connect, database,
        predecessor::end_sessions,
        schema::{self, obstacle::SchemaObstacle, quoted},
    },
    state::{
        database_id::DatabaseId, drain_view::DrainView, log_identity::LogIdentity, log_view::LogView, mark::Mark,
        place::Place,
    },
};
use forebay_pgwire::{Config, Connection, Error, PassFileWarning};
use forebay_wal::layout::Layout;
use std::sync::{Arc, atomic::Ordering};

/// The name of the session in `pg_stat_activity`, unless the URL gives another one.
pub(super) const APPLICATION_NAME: &str = "forebay";

/// What the sessions of one drainer work with.
pub(crate) struct SessionContext {
    pub(crate) settings: Arc<DrainSettings>,
    pub(crate) log: Arc<LogView>,
    pub(crate) drain: Arc<DrainView>,
    pub(crate) identity: Arc<LogIdentity>,
    /// The log's files.
    pub(crate) layout: Layout,
    pub(crate) drainer: usize,
}

/// An open session. [`begin`](Self::begin) comes first, then rounds.
pub(crate) struct Session {
    conn: Connection,
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    identity: Arc<LogIdentity>,
    drainer: usize,
    /// Quoted.
    schema: String,
    schema_watch: SchemaWatch,
    /// Which database it is, if PostgreSQL tells.
    database: Option<DatabaseId>,
    checkpoint: CheckpointStore,
    ownership: Ownership,
    partitions: PartitionRegistry,
    letters: DeadLetterKeeper,
    queues: QueueList,
    local_state: LocalStateKeeper,
    round: RoundTransaction,
}

/// How a session begins.
pub(crate) struct Begun {
    /// Number of drainers.
    pub(crate) drainers: usize,
    /// How far the checkpoint of this one is, by lane.
    pub(crate) marks: Vec<Mark>,
}

impl Session {
    /// Connects, and creates or migrates the schema.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub(crate) async fn open(target: &Config, context: &SessionContext) -> Result<Self, SessionError> {
        let SessionContext { settings, log, drain, identity, layout, drainer } = context;
        let drainer = *drainer;
        let mut target = target.clone();
        target.application_name.get_or_insert_with(|| APPLICATION_NAME.to_owned());
        let mut conn = connect::connect(&target, &settings.schema, settings.statement_timeout).await?;
        match conn.parameter("server_encoding") {
            None | Some("UTF8") => {}
            Some(encoding) => return Err(SessionError::Encoding { encoding: encoding.to_owned() }),
        }
        // Another database is refused before anything is created in it.
        let database = database::identify(&mut conn).await?;
        if let Err(mismatch) = same_database(drain.local_state().and_then(|state| state.database), database) {
            let choice = choice_in_other_database(&mut conn, context).await?;
            return Err(SessionError::Checkpoint { mismatch, choice });
        }
        // A schema that has disappeared is not created again: whoever moved it may want to put it back.
        let name = &settings.schema.name;
        if drain.is_checkpoint_known() && schema::version(&mut conn, name).await? == 0 {
            return Err(SessionError::SchemaGone { schema: name.clone() });
        }
        let migrate = settings.migrate && !drain.has_checkpoint.load(Ordering::Relaxed);
        schema::ensure(&mut conn, name, migrate).await?;
        let schema_watch = SchemaWatch::begin(&mut conn, settings).await?;
        let schema = quoted(name);
        let checkpoint = CheckpointStore::prepare(&mut conn, &schema, identity.log_id(), drainer).await?;
        let round = RoundTransaction::prepare(&mut conn, &schema, settings.statement_timeout).await?;
        let is_list_needed = !settings.auto_create_queues;
        let mut queues = QueueList::new(Arc::clone(drain), &schema, is_list_needed);
        queues.update(&mut conn).await?;
        Ok(Self {
            conn,
            drainer,
            schema_watch,
            database,
            checkpoint,
            ownership: Ownership::new(Arc::clone(identity), Arc::clone(log), layout.clone(), name),
            partitions: PartitionRegistry::new(&schema, settings.statement_timeout),
            letters: DeadLetterKeeper::new(Arc::clone(log), identity.log_id(), Arc::clone(drain), &schema, drainer),
            queues,
            local_state: LocalStateKeeper::new(context, database),
            round,
            identity: Arc::clone(identity),
            log: Arc::clone(log),
            drain: Arc::clone(drain),
            schema,
        })
    }

    /// Reads the checkpoint, or creates it if there is none.
    ///
    /// First it sees whether the checkpoint is this data directory's. Then it ends the backend of the session before this one, and
    /// waits for a transaction that is still being decided: only then is the checkpoint known. It also decides about files of dead
    /// letters whose transaction ended unseen.
    ///
    /// `drainers` is the number of drainers at work; `None` for the first session of the process, which finds it out: `wanted`
    /// unless the checkpoints say otherwise.
    ///
    /// # Errors
    /// [`SessionError::Checkpoint`] if the checkpoint does not fit the log or the database; else those of PostgreSQL.
    pub(crate) async fn begin(&mut self, drainers: Option<usize>, wanted: usize) -> Result<Begun, SessionError> {
        self.ownership.check(&mut self.conn, &self.checkpoint).await?;
        let only = drainers.map(|_| self.drainer as i32);
        end_sessions(&mut self.conn, &self.schema, self.identity.log_id().into_bytes(), only).await?;
        // Before anything is concluded from a checkpoint.
        let row_database = self.checkpoint.database(&mut self.conn).await?;
        let local_state = self.drain.local_state();
        if local_state.as_ref().is_none_or(|state| state.database.is_none())
            && let Err(mismatch) = same_database(row_database, self.database)
        {
            return Err(SessionError::Checkpoint { mismatch, choice: Some(Place::Database) });
        }
        let drainers = match drainers {
            Some(drainers) => drainers,
            None => {
                let Self { conn, checkpoint, ownership, letters, log, .. } = self;
                plan(conn, checkpoint, ownership, letters, log, wanted).await?
            }
        };
        let rows = self.checkpoint.count(&mut self.conn).await?;
        if rows == 0 && self.drainer > 0 {
            return Err(SessionError::NoCheckpoint);
        }
        let row = self.checkpoint.lock(&mut self.conn).await?;
        if rows != if row.is_some() { drainers } else { 0 } {
            return Err(CheckpointMismatch::RowCount { rows, drainers }.into());
        }
        let is_known = self.drain.is_checkpoint_known();
        let found = match &row {
            Some(row) => self.ownership.judge(&mut self.conn, self.drainer, row).await?,
            None => {
                let views = views(&self.log, &self.identity, self.drainer);
                let found = CheckpointMatch::find(None, &views, is_known)?;
                let has_messages = database_state::has_messages(&mut self.conn, &self.schema).await?;
                found.check_emptied(&views, has_messages)?;
                found
            }
        };
        rewind(&self.log, self.drainer, &found)?;
        let row = match row {
            Some(row) => self.ownership.claim(&mut self.conn, &self.checkpoint, self.drainer, row).await?,
            None => self.create_checkpoint(drainers, &found.marks, is_known).await?,
        };
        self.checkpoint.begin(row);
        if let Some(database) = self.database.filter(|database| row_database != Some(*database)) {
            self.checkpoint.name_database(&mut self.conn, database).await?;
        }
        backend::register(&mut self.conn, &self.checkpoint).await?;
        self.drain.has_checkpoint.store(true, Ordering::Relaxed);
        let committed = &self.checkpoint.committed_row().checkpoint;
        self.letters.settle_unseen(self.drainer, committed, !found.rewound.is_empty());
        self.letters.count(&mut self.conn).await?;
        Ok(Begun { drainers, marks: found.marks })
    }

    async fn create_checkpoint(
        &mut self,
        drainers: usize,
        marks: &[Mark],
        is_known: bool,
    ) -> Result<CheckpointRow, SessionError> {
        if !is_known && marks.iter().any(|mark| mark.ordinal > 0) {
            tracing::warn!("this database has no checkpoint of the log, of which a part was drained elsewhere");
        }
        let (owner, round) = self.ownership.claimer()?;
        let checkpoint = Checkpoint::of(&self.log.lanes, marks);
        let row = CheckpointRow { checkpoint, incarnation: Some(owner.incarnation), round: Some(round) };
        match self.checkpoint.insert(&mut self.conn, &owner, drainers, &row).await? {
            true => Ok(row),
            false => Err(self
                .ownership
                .why_not_claimed(&mut self.conn, &self.checkpoint, (self.drainer, None), round)
                .await?),
        }
    }

    /// Whether the connection is of no more use. That is not known while answers are outstanding.
    pub(crate) fn is_lost(&self) -> bool {
        self.conn.is_broken() && !self.round.is_under_way()
    }

    /// What differs in the schema, as far as delivery goes on.
    pub(crate) fn remarks(&self) -> &Remarks {
        self.schema_watch.remarks()
    }

    /// Whether it is time to look whether somebody changed the schema.
    pub(crate) fn is_schema_look_due(&self) -> bool {
        self.schema_watch.is_due()
    }

    /// Looks whether the schema is still what delivery relies on. Nothing may be under way.
    ///
    /// # Errors
    /// [`SessionError::Schema`] if something stops delivery; those of PostgreSQL.
    pub(crate) async fn look_at_schema(&mut self) -> Result<(), SessionError> {
        self.schema_watch.look(&mut self.conn).await
    }

    /// Why the password file was not used although it exists; the server asked for no password.
    pub(crate) fn pass_file_warning(&self) -> Option<&PassFileWarning> {
        self.conn.pass_file_warning()
    }

    /// Whether `batch` is the last round that was committed: what a COMMIT without an answer came to. Only the round's own id
    /// tells: another round may have come to the same place.
    pub(crate) fn has_committed(&self, batch: &Batch) -> bool {
        self.checkpoint.committed_row().round == Some(batch.id())
    }

    /// Checks an idle connection, and reads what others changed in the database.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        self.conn.simple("SELECT 1").await?;
        self.letters.count(&mut self.conn).await?;
        self.queues.update(&mut self.conn).await
    }

    /// Writes down in the data directory how far the drain is, if that is due.
    pub(crate) async fn update_local_state(&mut self, is_idle: bool) {
        if let Err(error) = self.local_state.update(&mut self.conn, is_idle).await {
            // It ends the connection: the next transaction meets it again, and reports it.
            tracing::debug!(%error, "PostgreSQL could not be asked where it stands");
        }
    }

    /// Whether questions have to be asked before `batch` is sent, which needs a connection on which nothing is under way.
    pub(crate) fn needs_questions(&self, batch: &Batch) -> bool {
        !self.partitions.knows(batch)
            || self.queues.is_due()
            || self.letters.is_count_due()
            || self.schema_watch.is_due()
            || self.local_state.is_due(false)
    }

    /// Sends the round of `batch`. `uncreated` are names that PostgreSQL does not create.
    ///
    /// # Errors
    /// See [`RoundError`].
    pub(crate) async fn send(
        &mut self,
        batch: &mut Batch,
        uncreated: &mut UncreatedNames,
        mode: SendMode,
    ) -> Result<(), RoundError> {
        if !mode.is_behind_commit {
            self.queues.update(&mut self.conn).await?;
            self.letters.count(&mut self.conn).await?;
        }
        self.partitions.identify(&mut self.conn, batch, uncreated).await?;
        batch.forget_duplicates();
        // If the first of several is refused, the next one is no repeat.
        if !mode.is_sifting {
            batch.find_repeats();
        }
        for (progress, mark) in self.log.lanes.iter().zip(batch.after()) {
            progress.set_reachable(mark.position);
        }
        let after = CheckpointRow {
            checkpoint: Checkpoint::of(&self.log.lanes, batch.after()),
            incarnation: Some(self.identity.incarnation()),
            round: Some(batch.id()),
        };
        self.identity.add_round(batch.id());
        self.round.send(&mut self.conn, &self.checkpoint, after, batch, mode).await
    }

    /// Waits until the round that was sent needs only its COMMIT. `refused_before`: messages that were refused since one was
    /// accepted.
    ///
    /// # Errors
    /// See [`RoundError`]; [`roll_back`](Self::roll_back) is the next step unless the connection is lost.
    pub(crate) async fn finish_round(&mut self, batch: &mut Batch, refused_before: u64) -> Result<(), RoundError> {
        let first = match self.round.first_answer(&mut self.conn, batch).await {
            Err(RoundError::CheckpointMoved) => return Err(self.why_not_moved().await?),
            first => first?,
        };
        let after = match first {
            FirstAnswer::Copied { after } => after,
            FirstAnswer::Asked { after, is_sifting } => {
                if is_sifting {
                    self.sift(batch).await?;
                    self.check_refusals(batch, refused_before).await?;
                }
                self.letters.keep(&mut self.conn, batch).await?;
                match self.round.copy(&mut self.conn, batch).await {
                    Err(RoundError::NumberingChanged) => return Err(self.why_not_numbered().await?),
                    copied => copied?,
                }
                after
            }
        };
        self.checkpoint.moved(after);
        self.partitions.advance(batch);
        Ok(())
    }

    /// Why a round did not move the checkpoint: it is elsewhere, or a trigger holds it where it is.
    async fn why_not_moved(&mut self) -> Result<RoundError, Error> {
        // A later statement may have failed, so that the transaction answers nothing.
        self.conn.simple("ROLLBACK").await?;
        let found = self.checkpoint.lock(&mut self.conn).await?;
        if found.as_ref() != Some(self.checkpoint.row()) {
            return Ok(RoundError::CheckpointMoved);
        }
        let skipped = SchemaObstacle::skipped(&mut self.conn, self.schema_watch.schema(), "drain_checkpoints").await?;
        Ok(skipped.map_or(RoundError::CheckpointMoved, RoundError::NoRowFits))
    }

    /// Why a round did not reserve the numbers behind those that it read under its locks: nobody but a trigger can prevent that.
    async fn why_not_numbered(&mut self) -> Result<RoundError, Error> {
        self.conn.simple("ROLLBACK").await?;
        let skipped = SchemaObstacle::skipped(&mut self.conn, self.schema_watch.schema(), "partitions").await?;
        Ok(skipped.map_or(RoundError::NumberingChanged, RoundError::NoRowFits))
    }

    /// Finds the rows that PostgreSQL does not take, and makes them dead letters.
    async fn sift(&mut self, batch: &mut Batch) -> Result<(), RoundError> {
        let mut sift = batch.take_sift();
        let tried = self.round.try_rows(&mut self.conn, batch, &mut sift).await;
        let finding = tried.map(|()| sift.finding());
        batch.set_sift(sift);
        match finding? {
            Finding::Refused(refused) => refused.into_iter().for_each(|(row, refusal)| batch.refuse(row, refusal)),
            Finding::Undecided(obstacle) => return Err(RoundError::Undecided(obstacle)),
            Finding::NoneAccepted(obstacle) => {
                let explains = |of_schema: &SchemaObstacle| of_schema.explains(&obstacle.refusal().sqlstate);
                return Err(match SchemaObstacle::find(&mut self.conn, &self.schema).await?.filter(explains) {
                    Some(of_schema) => RoundError::NoRowFits(of_schema),
                    None => RoundError::NoneAccepted(obstacle),
                });
            }
        }
        batch.find_repeats();
        Ok(())
    }

    /// All messages of a batch are refused: looks whether the schema can take any, at the first of them and from time to time.
    async fn check_refusals(&mut self, batch: &Batch, refused_before: u64) -> Result<(), RoundError> {
        let refused = batch.refused().count() as u64;
        let is_due = refused_before % REFUSED_IN_A_ROW + refused >= REFUSED_IN_A_ROW || refused_before == 0;
        if refused == 0 || !is_due || batch.copy_order().next().is_some() {
            return Ok(());
        }
        match SchemaObstacle::find(&mut self.conn, &self.schema).await? {
            Some(obstacle) if batch.refused().all(|(_, refusal)| obstacle.explains(&refusal.sqlstate)) => {
                Err(RoundError::NoRowFits(obstacle))
            }
            _ => Ok(()),
        }
    }

    /// Sends the COMMIT of the round that is finished.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn send_commit(&mut self) -> Result<(), Error> {
        self.round.send_commit(&mut self.conn).await
    }

    /// Waits until the round of `batch` is committed.
    ///
    /// # Errors
    /// See [`RoundError`]; [`roll_back`](Self::roll_back) is the next step unless the connection is lost.
    pub(crate) async fn commit_answer(&mut self, batch: &mut Batch) -> Result<(), RoundError> {
        self.round.commit_answer(&mut self.conn).await?;
        self.checkpoint.committed();
        self.letters.settle(batch, true);
        Ok(())
    }

    /// Rolls back what is under way; `batches` are the rounds that may be part of it.
    ///
    /// # Errors
    /// Those that end the connection.
    pub(crate) async fn roll_back(&mut self, batches: impl Iterator<Item = &mut Batch>) -> Result<(), Error> {
        // They may be deleted or numbered otherwise.
        self.partitions.forget();
        self.round.roll_back(&mut self.conn).await?;
        self.checkpoint.rolled_back();
        batches.for_each(|batch| self.letters.settle(batch, false));
        Ok(())
    }
}

/// Where the drain should continue in a database into which the log was not drained: at its checkpoint, if that is a place of
/// the log, as after a move with all data.
async fn choice_in_other_database(conn: &mut Connection, context: &SessionContext) -> Result<Option<Place>, Error> {
    let SessionContext { settings, log, drain, identity, layout, .. } = context;
    let state = match DatabaseState::read(conn, &settings.schema.name, identity.log_id()).await {
        Err(error) if error.ends_connection() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the other database does not show a checkpoint");
            return Ok(Some(Place::Mismatch));
        }
        Ok(state) => state,
    };
    if state.rows.is_empty() {
        return Ok(Some(Place::Mismatch));
    }
    let places = LogPlaces::of(log, drain, identity, layout);
    Ok(match places.map(|places| places.judge(&state)) {
        Ok(Ok(())) => Some(Place::Database),
        Ok(Err(mismatch)) => mismatch.choice(),
        Err(error) => {
            tracing::debug!(%error, "the oldest record of the log is not known");
            Some(Place::Mismatch)
        }
    })
}
