//! What this crate asks of its server: whether it accepts connections, and to create a database.
//!
//! The callers are blocking code, while [`forebay_pgwire`] needs a monoio runtime on io_uring. Each call therefore runs a
//! runtime on a thread of its own and waits for it. The calling thread cannot run it: it may be inside a runtime already,
//! and monoio does not nest runtimes. Thread and ring cost 0.1 to 0.2 ms, beside 1.5 ms for a log-in.

use std::io;
use std::thread;
use std::time::Duration;

use forebay_pgwire::{Config, Connection, Error, Host, SearchPath, SqlState};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::error::{ClusterError, IoContext};
use crate::layout::Layout;
use crate::limits::{CREATE_DATABASE_TIMEOUT, PING_TIMEOUT, RING_ENTRIES};

/// The database that every cluster has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// SQLSTATE `duplicate_database`.
const DUPLICATE_DATABASE: &str = "42P04";

/// SQLSTATE `invalid_authorization_specification`: a log-in as a role that does not exist.
const NO_SUCH_ROLE: &str = "28000";

/// What a server answers to a log-in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The log-in succeeded.
    Ready,
    /// The server accepts connections, but not this one.
    Refused,
    /// The server runs, but does not accept connections now: it is starting, recovering or stopping.
    Starting,
    /// Nothing listens on the socket, or what listens does not answer within [`PING_TIMEOUT`].
    Away,
}

/// Logs in to the server of `layout` as `user`, and out again.
///
/// # Errors
/// [`ClusterError::Io`] if this process cannot start a thread or a ring, [`ClusterError::Client`] if `user` is no
/// possible name of a role.
pub(crate) fn ping(layout: &Layout, user: &str) -> Result<Answer, ClusterError> {
    let config = config(layout, user, MAINTENANCE_DATABASE, PING_TIMEOUT);
    // No statement follows whose names could be found somewhere else.
    match run(layout, async || Connection::connect(&config, SearchPath::Inherited).await.map(drop))? {
        Ok(()) => Ok(Answer::Ready),
        Err(error) if error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW) => Ok(Answer::Starting),
        // A server that asks for a password accepts connections.
        Err(Error::Server(_) | Error::Auth(_)) => Ok(Answer::Refused),
        Err(Error::Connect { .. } | Error::Io { .. } | Error::Timeout { .. } | Error::Protocol(_)) => Ok(Answer::Away),
        Err(error) => Err(ClusterError::client(error)),
    }
}

/// Creates `role`, which is no superuser, and `database`, which belongs to it, unless they exist. If they are one role, the
/// superuser creates the database.
///
/// # Errors
/// [`ClusterError::Refused`] with the server's error, [`ClusterError::Client`] if the server cannot be reached,
/// [`ClusterError::Io`] as [`ping`].
pub(crate) fn create_role_and_database(
    layout: &Layout,
    (superuser, role): (&str, &str),
    database: &str,
) -> Result<(), ClusterError> {
    run(layout, async || {
        if role != superuser {
            create_role(layout, superuser, role, database).await?;
        }
        create_database(layout, role, database).await
    })?
    .map_err(ClusterError::client)
}

/// Creates the role unless it exists. In a cluster of an earlier release `role` is the superuser that `initdb` made: that one
/// gets another name, and what it owns of the database goes to the new role.
async fn create_role(layout: &Layout, superuser: &str, role: &str, database: &str) -> Result<(), Error> {
    match Connection::connect(&config(layout, role, database, CREATE_DATABASE_TIMEOUT), SearchPath::System).await {
        Ok(mut connection) => connection.simple(&demotion(superuser, role, database)).await.map(drop),
        Err(error) if error.sqlstate() == Some(SqlState::INVALID_CATALOG_NAME) => {
            let config = config(layout, role, MAINTENANCE_DATABASE, CREATE_DATABASE_TIMEOUT);
            let mut connection = Connection::connect(&config, SearchPath::System).await?;
            connection.simple(&demotion(superuser, role, database)).await.map(drop)
        }
        Err(error) if error.sqlstate().is_some_and(|state| state.as_str() == NO_SUCH_ROLE) => {
            let config = config(layout, superuser, MAINTENANCE_DATABASE, CREATE_DATABASE_TIMEOUT);
            let mut connection = Connection::connect(&config, SearchPath::System).await?;
            connection.simple(&format!("CREATE ROLE {} LOGIN CREATEDB", identifier(role))).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

/// One statement, so that it is carried out whole or not at all. It does nothing unless the session's role is the superuser
/// that `initdb` made, whose number is 10 (`BOOTSTRAP_SUPERUSERID`). That one can be renamed by another superuser only.
fn demotion(superuser: &str, role: &str, database: &str) -> String {
    let literal = |name: &str| format!("'{}'", name.replace('\'', "''"));
    DEMOTION
        .replace("$superuser", &literal(superuser))
        .replace("$role", &literal(role))
        .replace("$database", &literal(database))
}

const DEMOTION: &str = include_str!("demotion.sql");

async fn create_database(layout: &Layout, role: &str, database: &str) -> Result<(), Error> {
    match Connection::connect(&config(layout, role, database, PING_TIMEOUT), SearchPath::System).await {
        Err(error) if error.sqlstate() == Some(SqlState::INVALID_CATALOG_NAME) => {}
        connected => return connected.map(drop),
    }
    let config = config(layout, role, MAINTENANCE_DATABASE, CREATE_DATABASE_TIMEOUT);
    let mut connection = Connection::connect(&config, SearchPath::System).await?;
    let created = connection.simple(&format!("CREATE DATABASE {}", identifier(database))).await;
    match created {
        // Another process was faster.
        Err(error) if error.sqlstate().is_some_and(|state| state.as_str() == DUPLICATE_DATABASE) => Ok(()),
        created => created.map(drop),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `timeout` bounds the log-in and each statement.
fn config(layout: &Layout, user: &str, database: &str, timeout: Duration) -> Config {
    let mut config = Config::new(Host::Unix(layout.socket_dir()), user);
    config.port = layout.port;
    config.database = Some(database.to_owned());
    config.application_name = Some("forebay".to_owned());
    config.connect_timeout = Some(timeout);
    config.statement_deadline = Some(timeout);
    config
}

/// Runs `request` to its end in a runtime of its own. `layout` is for the error.
fn run<T: Send>(layout: &Layout, request: impl AsyncFnOnce() -> T + Send) -> Result<T, ClusterError> {
    let run_here = || {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).enable_timer().build()?;
        Ok(runtime.block_on(request()))
    };
    let result: io::Result<T> = thread::scope(|scope| {
        let thread = thread::Builder::new().name("postgres-client".to_owned()).spawn_scoped(scope, run_here)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    result.context("setting up a client for", &layout.socket())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// The answer to a ping if the server replies to the start-up message with `reply` and then does `then`.
    fn answer_to(reply: &[u8], then: impl FnOnce() + Send) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::unmade(dir.path());
        fs::create_dir(layout.socket_dir()).unwrap();
        let listener = UnixListener::bind(layout.socket()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listener.accept().unwrap().0;
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(reply).unwrap();
                then();
            });
            ping(&layout, "forebay").unwrap()
        })
    }

    #[test]
    fn a_server_that_lets_us_in_is_ready() {
        let reply = [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), message(b'Z', b"I")].concat();
        assert_eq!(answer_to(&reply, || {}), Answer::Ready);
    }

    #[test]
    fn a_server_in_recovery_is_starting_and_one_that_gives_another_error_refuses() {
        let starting = message(b'E', b"SFATAL\0C57P03\0Mthe database system is starting up\0\0");
        assert_eq!(answer_to(&starting, || {}), Answer::Starting);
        let refused = message(b'E', b"SFATAL\0C3D000\0Mno such database\0\0");
        assert_eq!(answer_to(&refused, || {}), Answer::Refused);
        let wants_a_password = message(b'R', &3_u32.to_be_bytes());
        assert_eq!(answer_to(&wants_a_password, || {}), Answer::Refused);
    }

    #[test]
    fn a_server_that_hangs_up_or_violates_the_protocol_is_away() {
        assert_eq!(answer_to(&[], || {}), Answer::Away);
        assert_eq!(answer_to(&message(b'R', &[0; 4]), || {}), Answer::Away);
        for length in [0_u32, 3, u32::MAX] {
            let reply = [&b"S"[..], &length.to_be_bytes(), &[0; 8]].concat();
            assert_eq!(answer_to(&reply, || {}), Answer::Away, "a message of length {length}");
        }
    }

    #[test]
    fn a_server_that_keeps_silent_is_away() {
        assert_eq!(answer_to(&[], || thread::sleep(2 * PING_TIMEOUT)), Answer::Away);
    }

    #[test]
    fn a_socket_without_a_server_is_away() {
        let layout = Layout::unmade("/nonexistent");
        assert_eq!(ping(&layout, "forebay").unwrap(), Answer::Away);
    }

    #[test]
    fn a_thread_that_runs_a_runtime_may_ask() {
        let layout = Layout::unmade("/nonexistent");
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        assert_eq!(runtime.block_on(async { ping(&layout, "forebay").unwrap() }), Answer::Away);
    }

    #[test]
    fn a_name_that_no_role_can_have_is_an_error_and_no_server_that_is_away() {
        let layout = Layout::unmade("/nonexistent");
        assert!(matches!(ping(&layout, ""), Err(ClusterError::Client(_))));
    }
}
