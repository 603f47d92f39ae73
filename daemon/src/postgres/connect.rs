//! A connection to PostgreSQL as the drain, the channels and the commands make it: bounded on both sides, to a server that may be
//! written to, without other people's names in its statements, and not with a schema that others rule over.

use super::schema::owner::{SchemaSettings, UntrustedSchema};
use forebay_pgwire::{Config, Connection, Error, Flight, SearchPath, TargetSession};
use std::{sync::Arc, time::Duration};

/// First version of the server with `client_connection_check_interval`.
const CHECK_INTERVAL_SINCE: u32 = 14;

/// How long a lock is waited for at most: others hold those that are taken here for a transaction of theirs.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// When PostgreSQL begins to ask whether the daemon is still there, how often it asks, and how often in vain: 30 s in all. A
/// backend in the midst of a COPY has no other timeout. Nothing of this holds for a unix socket, which cannot fall silent.
const KEEPALIVES_IDLE_S: u32 = 10;
const KEEPALIVES_INTERVAL_S: u32 = 5;
const KEEPALIVES_COUNT: u32 = 4;

/// How long PostgreSQL waits for what it said to arrive; keepalives do not run meanwhile.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Where to connect: settings, or what a private server says once it runs.
pub type TargetSource = Arc<dyn Fn() -> Option<Config> + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// PostgreSQL refused, or cannot be reached. Next step: by the SQLSTATE, see [`super::remedy`].
    #[error(transparent)]
    Postgres(#[from] Error),
    /// A stranger has power over the schema. Next step: as the text says.
    #[error(transparent)]
    Untrusted(#[from] UntrustedSchema),
}

/// Connects to the database that `target` names. PostgreSQL gives a statement `statement_timeout`, and ends by itself what a
/// session that was lost has open; an operation gets the `statement_deadline` of `target`, or half as long again.
///
/// Before the caller can name anything in `schema`, it is known that only trusted roles have power over it.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    target: &Config,
    schema: &SchemaSettings,
    statement_timeout: Duration,
) -> Result<Connection, ConnectError> {
    let mut config = target.clone();
    if !config.more_hosts.is_empty() && config.target_session == TargetSession::Any {
        config.target_session = TargetSession::ReadWrite;
    }
    config.session_settings.extend(settings(statement_timeout));
    // The server's own timeouts come first.
    config.statement_deadline.get_or_insert(statement_timeout.mul_f64(1.5));
    let mut conn = Connection::connect(&config, SearchPath::System).await?;
    settle(&mut conn, schema).await?;
    Ok(conn)
}

/// Settings that bound the life of a session whose daemon was lost, and plans that do not depend on statistics.
fn settings(statement_timeout: Duration) -> [(String, String); 9] {
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
        // Of the transactions that have no BEGIN to say so: the units of a channel.
        ("default_transaction_isolation", "read committed".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// A server or database whose transactions are read-only by default is kept from writes on purpose, for example while it is dumped,
/// and takes none of ours. A role whose setting that is has it for the sessions of people.
const WRITES_IN_SPITE_OF_ROLE: &str = "SELECT set_config('default_transaction_read_only', 'off', false) \
     FROM pg_db_role_setting WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) \
     AND EXISTS (SELECT FROM unnest(setconfig) s WHERE s LIKE 'default\\_transaction\\_read\\_only=%')";

/// Sets what depends on the server, and asks whom the schema belongs to, in one round trip.
async fn settle(conn: &mut Connection, schema: &SchemaSettings) -> Result<(), ConnectError> {
    let version = conn.parameter("server_version").unwrap_or_default();
    let major: u32 = version.split(['.', ' ', 'd', 'b', 'r']).next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let mut flight = Flight::new();
    // Log and files let go of what PostgreSQL has committed, so a commit must be on its disk. A stronger setting stays.
    let durable =
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
    flight.once(durable, &[])?;
    flight.once(WRITES_IN_SPITE_OF_ROLE, &[])?;
    flight.sync();
    let (question, params) = schema.question();
    flight.once(question, &params)?;
    flight.sync();
    if major >= CHECK_INTERVAL_SINCE {
        flight.once("SET client_connection_check_interval = '5s'", &[])?;
        flight.sync();
    }
    flight.send(conn).await?;
    flight.answer(conn).await?.into_results()?;
    let owners = flight.answer(conn).await?.into_results()?;
    if flight.outstanding() > 0 {
        // Not on every system; the other timeouts bound a lost session too.
        let outcome = flight.answer(conn).await?;
        if let Some(failure) = outcome.failure {
            tracing::debug!(error = %failure.error, "PostgreSQL does not look whether the daemon is still there");
        }
    }
    let untrusted = owners.first().map_or(Ok(None), |answer| schema.untrusted(answer))?;
    untrusted.map_or(Ok(()), |untrusted| Err(untrusted.into()))
}
