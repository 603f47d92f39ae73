//! The daemon from start to end.

mod cores;
mod error;
mod incarnation;
mod private_postgres;
mod system;

pub use error::ServeError;
pub use private_postgres::keep as keep_private_postgres;

use crate::{
    access::Gate,
    banner,
    config::{Config, PostgresTarget, ProbeDuplicates, sync_method},
    control::{Commands, ControlServer},
    datadir::DataDir,
    drain::{Decisions, DrainSettings, DrainStart, DrainThread},
    file_system::warn_if_unsuitable,
    ignore::ignore,
    limits::{PG_REQUEST_DEADLINE, PG_REQUEST_STATEMENT_TIMEOUT},
    panics::{PanicWatch, panic_if_planted},
    postgres::{channel::ChannelOptions, connect::TargetSource, schema::owner::SchemaSettings, worker::PgRequests},
    queue::thread::QueueRequests,
    state::{
        commits::Commits,
        database_health::HealthMonitor,
        drain_signal::DrainSignal,
        drain_view::DrainView,
        local_drain_state::LocalDrainState,
        log_identity::LogIdentity,
        log_view::{LogFailure, LogView},
        mailbox::{Letter, Mailboxes},
        pulse::Pulse,
    },
    watchdog,
};
use cores::{start_cores, when_all_serve};
use forebay_os::rights::{keep_only, without_capabilities};
use forebay_wal::{
    log::{self, Log, LogOptions},
    presence::Presence,
    storage::Disk,
};
use rustix::thread::CapabilitySet;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use system::{Taken, take};

/// Time for the last answers to leave when the log has failed.
const FAILURE_GRACE: Duration = Duration::from_millis(300);

/// The views of the daemon's state, which each thread gets its part of.
struct Views {
    config: Arc<Config>,
    gate: Arc<Gate>,
    log: Arc<LogView>,
    drain: Arc<DrainView>,
    decisions: Arc<Decisions>,
    health: Arc<HealthMonitor>,
    mailboxes: Arc<Mailboxes>,
    commits: Arc<Commits>,
    pulses: Arc<[Pulse]>,
    is_stopping: Arc<AtomicBool>,
}

impl Views {
    /// Lets the cores end.
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.mailboxes.send_to_all(|| Letter::Stop);
    }
}

/// What ends the daemon.
enum End {
    Signal(i32),
    Failed(ServeError),
}

/// Runs the daemon until a signal, or a failure, ends it.
///
/// # Errors
/// See [`ServeError`].
pub fn run(config: Config) -> Result<(), ServeError> {
    let (ends, end) = channel();
    let views: Arc<OnceLock<Arc<Views>>> = Arc::default();
    let panics = {
        let (ends, views) = (ends.clone(), Arc::clone(&views));
        PanicWatch::start(config.shutdown_grace, move || {
            if let Some(views) = views.get() {
                views.log.set_failed(LogFailure::Panic);
            }
            tell(&ends, End::Failed(ServeError::Panicked));
        })
        .map_err(|error| ServeError::Setup(error.to_string()))?
    };
    let run = AssertUnwindSafe(|| run_to_end(config, &views, &ends, &end));
    let outcome = catch_unwind(run).unwrap_or(Err(ServeError::Panicked));
    if panics.has_panicked() { Err(ServeError::Panicked) } else { outcome }
}

fn run_to_end(
    config: Config,
    known_views: &OnceLock<Arc<Views>>,
    ends: &Sender<End>,
    end: &Receiver<End>,
) -> Result<(), ServeError> {
    let Taken { gate, cpus, connections_max, data_dir, sockets, address, helper } = take(&config)?;
    let cores = sockets.len() as u16;
    let Opened { mut log, quota_bytes, segment_bytes, presence, identity, views } =
        open(config, gate, &data_dir, cores)?;
    let known = known_views.set(Arc::clone(&views));
    assert!(known.is_ok(), "a daemon is set up once");

    without_capabilities(|| watch_signals(ends, &views)).and_then(|started| started).map_err(setup)?;
    let pg_requests = PgRequests::new(Arc::clone(&views.mailboxes)).map_err(setup)?;
    let queue_requests = QueueRequests::new(Arc::clone(&views.mailboxes), Arc::clone(&views.commits)).map_err(setup)?;
    let requests = (&pg_requests, &queue_requests);
    let threads = start_cores(&views, &mut log, requests, sockets, (&cpus, connections_max), ends).map_err(setup)?;
    let threads = when_all_serve(threads, end)?;
    let cluster: Arc<OnceLock<String>> = Arc::default();
    let target = target(&views.config, &cluster);
    pg_requests.start(channel_options(&views.config, Arc::clone(&target))).map_err(setup)?;
    let queue_options =
        ChannelOptions { application_name: "forebay queue", ..channel_options(&views.config, Arc::clone(&target)) };
    queue_requests.start(queue_options, Arc::clone(&identity)).map_err(setup)?;
    let drain = start_drain(&views, &log, Arc::clone(&identity), target).map_err(setup)?;
    // All rings are made, and their threads have given the capability up that this took.
    keep_only(CapabilitySet::empty()).map_err(setup)?;
    let is_stopping = Arc::clone(&views.is_stopping);
    watchdog::start(Arc::clone(&views.pulses), move || is_stopping.load(Ordering::SeqCst)).map_err(setup)?;
    watch_presence(presence, identity, &views, ends).map_err(setup)?;
    let _control = start_control(&views);
    tracing::info!(%address, cores, quota_bytes, segment_bytes, "listening");
    let postgres = helper.map(|helper| private_postgres::open(helper, &cluster)).transpose()?;
    banner::print(address, postgres.as_ref().map(|(_, server)| server));

    let outcome = match end.recv() {
        Ok(End::Signal(signal)) => {
            tracing::info!(signal, "stopping");
            views.stop();
            end_in_order(threads, drain, &views);
            failure_meanwhile(end, &views)
        }
        Ok(End::Failed(error)) => {
            end_after_failure(&error, drain, &views);
            Err(error)
        }
        Err(_) => Err(ServeError::Setup("all threads ended".to_owned())),
    };
    if let Some((helper, _)) = postgres {
        private_postgres::stop(helper);
    }
    log.keeper.stop();
    outcome
}

/// The open log, and the views of it.
struct Opened {
    log: Log,
    quota_bytes: u64,
    segment_bytes: u64,
    presence: Presence,
    identity: Arc<LogIdentity>,
    views: Arc<Views>,
}

/// Opens the log of so many cores.
fn open(mut config: Config, gate: Gate, data_dir: &DataDir, cores: u16) -> Result<Opened, ServeError> {
    let (quota_bytes, segment_bytes) = data_dir.quota(config.wal_max_bytes, config.wal_segment_bytes, cores)?;
    let disk = Disk::new(data_dir.wal().clone());
    config.sync = sync_method::resolve(config.sync, &disk)?;
    let dir = data_dir.wal().path().to_path_buf();
    let options = LogOptions { dir, lanes: cores, sync: config.sync.method(), segment_bytes, quota_bytes };
    let is_volatile = warn_if_unsuitable(&options.dir);
    let log = without_capabilities(|| log::open_on(disk, &options)).map_err(setup)??;
    let presence = Presence::new(&log, &[config.data_dir.clone()])?;
    report(&log);
    let signal = DrainSignal::new().map_err(setup)?;
    let mailboxes = Arc::new(Mailboxes::new(cores).map_err(setup)?);
    let identity = Arc::new(incarnation::begin(&log, data_dir)?);
    let drained = LocalDrainState::read(data_dir.wal(), identity.log_id().into_bytes());
    let drain = Arc::new(DrainView::new(signal, drained.clone()));
    let views = Arc::new(Views {
        log: Arc::new(LogView::new(&log, drained.as_ref(), (segment_bytes, quota_bytes), is_volatile)),
        decisions: Arc::new(Decisions::new(Arc::clone(&drain))),
        drain,
        health: Arc::new(HealthMonitor::new(Arc::clone(&mailboxes))),
        mailboxes,
        commits: Arc::new(Commits::new().map_err(setup)?),
        pulses: (0..cores).map(|_| Pulse::default()).collect(),
        is_stopping: Arc::default(),
        config: Arc::new(config),
        gate: Arc::new(gate),
    });
    views.log.retain_drained(views.config.retain_drained);
    Ok(Opened { log, quota_bytes, segment_bytes, presence, identity, views })
}

fn setup(error: impl std::fmt::Display) -> ServeError {
    ServeError::Setup(error.to_string())
}

/// What stands durable in the log, in the other lanes and as far as it can be read in the failed one, is drained before the
/// process ends: the next start may find the disk gone. Pushes are refused meanwhile, and those who wait are answered.
fn end_after_failure(error: &ServeError, drain: DrainThread, views: &Views) {
    if let ServeError::Storage(_) | ServeError::Panicked = error {
        views.log.set_failed(LogFailure::Storage);
        if !drain.finish(views.config.shutdown_grace) {
            tracing::warn!("the drain did not end in time");
        }
        tracing::info!(pending = views.log.pending(), "the log keeps what PostgreSQL does not have yet");
    }
    views.stop();
    // A core that failed does not end, and what is not durable never will be; but answers under way leave.
    std::thread::sleep(FAILURE_GRACE);
}

/// A write may fail while the daemon ends in order: the last ones, or the seals.
fn failure_meanwhile(end: &Receiver<End>, views: &Views) -> Result<(), ServeError> {
    if !views.log.has_failed() {
        return Ok(());
    }
    // It is on its way, from the thread that saw it.
    while let Ok(end) = end.recv_timeout(FAILURE_GRACE) {
        if let End::Failed(error) = end {
            return Err(error);
        }
    }
    Err(ServeError::Storage("a write to the log failed".to_owned()))
}

fn end_in_order(threads: Vec<JoinHandle<()>>, drain: DrainThread, views: &Views) {
    for thread in threads {
        ignore(thread.join().map_err(|_| "it panicked"), "the panic was reported when it happened");
    }
    if !drain.finish(views.config.shutdown_grace) {
        tracing::warn!("the drain did not end in time");
    }
    match views.log.pending() {
        0 => tracing::info!("stopped; the log is empty"),
        pending => tracing::info!(pending, "stopped; the log keeps what PostgreSQL does not have yet"),
    }
}

fn report(log: &Log) {
    for (lane, finding) in &log.findings {
        if finding.is_damage() {
            tracing::error!(code = "log_damaged", lane, %finding, "the log is damaged; what verifies is delivered");
        } else {
            tracing::warn!(lane, %finding, "recovery");
        }
    }
    let records: u64 = log.all_lanes.iter().map(|lane| lane.records).sum();
    tracing::info!(records, lanes = log.all_lanes.len(), "the log is recovered");
}

/// Where PostgreSQL is, once that is known.
fn target(config: &Config, cluster: &Arc<OnceLock<String>>) -> TargetSource {
    match &config.postgres {
        PostgresTarget::External(config) => {
            let config = (**config).clone();
            Arc::new(move || Some(config.clone()))
        }
        PostgresTarget::Embedded => {
            let cluster = Arc::clone(cluster);
            Arc::new(move || forebay_pgwire::Config::from_url(cluster.get()?).ok())
        }
    }
}

/// The schema, and whom it may belong to.
pub(crate) fn schema_settings(config: &Config) -> SchemaSettings {
    SchemaSettings { name: config.schema.clone(), owner: config.schema_owner.clone() }
}

/// How the thread `postgres` connects.
fn channel_options(config: &Config, target: TargetSource) -> ChannelOptions {
    ChannelOptions {
        target,
        schema: schema_settings(config),
        application_name: "forebay admin",
        connect_timeout: PG_REQUEST_DEADLINE,
        statement_timeout: config.postgres_timeout.min(PG_REQUEST_STATEMENT_TIMEOUT),
    }
}

fn start_drain(
    views: &Arc<Views>,
    log: &Log,
    identity: Arc<LogIdentity>,
    target: TargetSource,
) -> std::io::Result<DrainThread> {
    let config = &views.config;
    let settings = DrainSettings {
        schema: schema_settings(config),
        migrate: config.migrate,
        auto_create_queues: config.auto_create_queues,
        always_probe: config.probe_duplicates == ProbeDuplicates::Always,
        connections: config.drain_connections,
        statement_timeout: config.postgres_timeout,
    };
    DrainThread::start(DrainStart {
        log: Arc::clone(&views.log),
        drain: Arc::clone(&views.drain),
        decisions: Arc::clone(&views.decisions),
        health: Arc::clone(&views.health),
        mailboxes: Arc::clone(&views.mailboxes),
        commits: Arc::clone(&views.commits),
        identity,
        settings: Arc::new(settings),
        layout: log.layout.clone(),
        target,
    })
}

/// Lets commands reach the drain. The daemon serves without that, on a file system that has no sockets.
fn start_control(views: &Views) -> Option<ControlServer> {
    let commands = Commands { decisions: Arc::clone(&views.decisions) };
    ControlServer::start(&views.config.data_dir, commands)
        .inspect_err(
            |error| tracing::warn!(%error, "the control socket cannot be made; commands need a stopped daemon"),
        )
        .ok()
}

fn tell(ends: &Sender<End>, end: End) {
    // Nobody listens any more once the daemon is ending.
    if ends.send(end).is_err() {
        tracing::debug!("a second reason to end");
    }
}

/// Ends the daemon if the log's files are removed or replaced.
fn watch_presence(
    presence: Presence,
    identity: Arc<LogIdentity>,
    views: &Arc<Views>,
    ends: &Sender<End>,
) -> std::io::Result<()> {
    let (is_stopping, log, ends) = (Arc::clone(&views.is_stopping), Arc::clone(&views.log), ends.clone());
    let is_stopping = move || is_stopping.load(Ordering::SeqCst);
    watchdog::watch_presence(presence, (log, identity), is_stopping, move |error| {
        tell(&ends, End::Failed(error.into()))
    })
}

fn watch_signals(ends: &Sender<End>, views: &Arc<Views>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (ends, views) = (ends.clone(), Arc::clone(views));
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            panic_if_planted("signals");
            match signal {
                SIGHUP => views.gate.reload(),
                _ => tell(&ends, End::Signal(signal)),
            }
        }
    })?;
    Ok(())
}
