//! A connection, or a channel, to the daemon's database for a command, also to the private server of a stopped daemon.

use super::Exit;
use crate::{
    config::{Config, PostgresTarget},
    datadir::DataDir,
    postgres::{
        channel::{Channel, ChannelOptions},
        client::PgClient,
        connect::{self, ConnectError},
        schema,
    },
    rt,
    serve::schema_settings,
    state::cancel_flag::CancelFlag,
};
use forebay_cluster::{Cluster, ClusterConfig, StopMode};
use forebay_pgwire::Connection;
use std::{future::Future, rc::Rc, sync::Arc, time::Duration};

/// Most operations that a command's ring has in flight.
const RING_OPERATIONS: u32 = 64;

/// Time for the private PostgreSQL to stop after a command that started it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The name of a command's sessions in `pg_stat_activity`.
const APPLICATION_NAME: &str = "forebay command";

/// Runs `work` with a connection to the database that `config` names. A private PostgreSQL that is not running is started for
/// the duration, under the data directory's lock: `held`, or taken here.
///
/// # Errors
/// [`Exit::postgres`] when it cannot be reached, and the errors of `work`.
pub(super) fn with_database<T, W>(
    config: &Config,
    held: Option<&DataDir>,
    work: impl FnOnce(Connection) -> W,
) -> Result<T, Exit>
where
    W: Future<Output = Result<T, Exit>>,
{
    with_target(config, held, async |target| work(open(config, &target).await.map_err(refused)?).await)
}

/// As [`with_database`], but `work` also hears why there is no connection.
///
/// # Errors
/// As [`with_database`].
pub(super) fn with_connect_result<T>(
    config: &Config,
    work: impl AsyncFnOnce(Result<Connection, ConnectError>) -> Result<T, Exit>,
) -> Result<T, Exit> {
    with_target(config, None, async |target| work(open(config, &target).await).await)
}

/// As [`with_database`], but with a channel, once the schema is there as this release knows it.
///
/// # Errors
/// As [`with_database`].
pub(super) fn with_channel<T>(config: &Config, work: impl AsyncFnOnce(PgClient) -> Result<T, Exit>) -> Result<T, Exit> {
    with_target(config, None, async |target| {
        // The columns must be there; nothing is made by looking.
        let mut conn = open(config, &target).await.map_err(refused)?;
        let ensured = schema::ensure(&mut conn, &config.schema, false).await;
        ensured.map_err(|error| Exit::postgres(error.to_string()))?;
        drop(conn);
        let statement_timeout = config.postgres_timeout;
        let channel = Channel::open(ChannelOptions {
            connect_timeout: target.connect_timeout.unwrap_or(forebay_pgwire::DEFAULT_CONNECT_TIMEOUT),
            target: Arc::new(move || Some(target.clone())),
            schema: schema_settings(config),
            application_name: APPLICATION_NAME,
            statement_timeout,
        });
        // PostgreSQL's own time-out comes first.
        work(PgClient::new(channel, statement_timeout.mul_f64(1.5), CancelFlag::default(), Rc::default())).await
    })
}

fn with_target<T>(
    config: &Config,
    held: Option<&DataDir>,
    work: impl AsyncFnOnce(forebay_pgwire::Config) -> Result<T, Exit>,
) -> Result<T, Exit> {
    let target = match &config.postgres {
        PostgresTarget::External(target) => return run((**target).clone(), work),
        PostgresTarget::Embedded => &config.data_dir,
    };
    let own = match held {
        None if !crate::datadir::is_in_use(target) => Some(DataDir::open(target, true)?),
        _ => None,
    };
    let path = held.or(own.as_ref()).map_or_else(|| DataDir::postgres_of(target), DataDir::postgres);
    if !path.is_dir() {
        // A command that is told of no database must not make one.
        return Err(Exit::usage(format!(
            "there is no private PostgreSQL at {}: name the database with --postgres or FOREBAY_POSTGRES",
            path.display()
        )));
    }
    let private = |error: forebay_cluster::ClusterError| Exit::postgres(format!("the private PostgreSQL: {error}"));
    // A server that is running is used as it is.
    let cluster = Cluster::open(ClusterConfig::new(path)).map_err(private)?;
    let outcome = match forebay_pgwire::Config::from_url(&cluster.url()) {
        Ok(target) => run(target, work),
        Err(error) => Err(Exit::postgres(error.to_string())),
    };
    if held.or(own.as_ref()).is_some() {
        cluster.stop(StopMode::Fast, STOP_TIMEOUT).map_err(private)?;
    }
    outcome
}

fn run<T>(
    target: forebay_pgwire::Config,
    work: impl AsyncFnOnce(forebay_pgwire::Config) -> Result<T, Exit>,
) -> Result<T, Exit> {
    let mut runtime = rt::runtime(RING_OPERATIONS).map_err(|error| Exit::usage(error.to_string()))?;
    runtime.block_on(work(target))
}

async fn open(config: &Config, target: &forebay_pgwire::Config) -> Result<Connection, ConnectError> {
    let mut target = target.clone();
    target.application_name.get_or_insert_with(|| APPLICATION_NAME.to_owned());
    connect::connect(&target, &schema_settings(config), config.postgres_timeout).await
}

/// The exit where there is no connection.
pub(super) fn refused(error: ConnectError) -> Exit {
    Exit::postgres(error.to_string())
}

/// The exit for an error of PostgreSQL.
pub(super) fn postgres(error: forebay_pgwire::Error) -> Exit {
    Exit::postgres(error.to_string())
}
