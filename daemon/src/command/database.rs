//! A connection to the daemon's database for a command, also to the private server of a stopped daemon.

use super::Exit;
use crate::{
    config::{Config, PostgresTarget},
    datadir::DataDir,
    postgres::connect,
    rt,
};
use forebay_cluster::{Cluster, ClusterConfig, StopMode};
use forebay_pgwire::Connection;
use std::{future::Future, time::Duration};

/// Most operations that a command's ring has in flight.
const RING_OPERATIONS: u32 = 64;

/// Time for the private PostgreSQL to stop after a command that started it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

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
    let target = match &config.postgres {
        PostgresTarget::External(target) => return connect(config, (**target).clone(), work),
        PostgresTarget::Embedded => &config.data_dir,
    };
    let own = match held {
        None if !crate::datadir::is_in_use(target) => Some(DataDir::open(target)?),
        _ => None,
    };
    let path = held.or(own.as_ref()).map_or_else(|| DataDir::postgres_of(target), DataDir::postgres);
    let private = |error: forebay_cluster::ClusterError| Exit::postgres(format!("the private PostgreSQL: {error}"));
    // A server that is running is used as it is.
    let cluster = Cluster::open(ClusterConfig::new(path)).map_err(private)?;
    let outcome = match forebay_pgwire::Config::from_url(&cluster.url()) {
        Ok(target) => connect(config, target, work),
        Err(error) => Err(Exit::postgres(error.to_string())),
    };
    if held.or(own.as_ref()).is_some() {
        cluster.stop(StopMode::Fast, STOP_TIMEOUT).map_err(private)?;
    }
    outcome
}

fn connect<T, W>(
    config: &Config,
    mut target: forebay_pgwire::Config,
    work: impl FnOnce(Connection) -> W,
) -> Result<T, Exit>
where
    W: Future<Output = Result<T, Exit>>,
{
    target.application_name.get_or_insert_with(|| "forebay command".to_owned());
    let mut runtime = rt::runtime(RING_OPERATIONS).map_err(|error| Exit::usage(error.to_string()))?;
    runtime.block_on(async {
        let conn = connect::connect(&target, config.postgres_timeout).await.map_err(postgres)?;
        work(conn).await
    })
}

/// The exit for an error of PostgreSQL.
pub(super) fn postgres(error: forebay_pgwire::Error) -> Exit {
    Exit::postgres(error.to_string())
}
