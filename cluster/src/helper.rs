//! A process of its own that keeps a private server: the helper. The process that uses the server then needs no right over it.
//!
//! Its user starts it while it still has its rights, tells it when to open the cluster, and gives its own rights up. The
//! helper opens the cluster and keeps the capabilities with which it starts, watches and stops the server, and no others. Both
//! talk through the helper's standard input and output:
//!
//! | byte | from | means |
//! |---|---|---|
//! | `o` | user | open the cluster |
//! | `s` | user | stop the server, and end |
//! | end of input | user | end, and leave the server running: the user was killed, and the next one adopts the server |
//! | `r` | helper | the server accepts connections; its URL, the path of `psql` and the socket's directory follow, each ended by a zero |
//! | `e` | helper | that failed, or the stop did; the reason follows, up to the end |
//! | `d` | helper | the server is stopped |

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use forebay_os::rights;
use rustix::thread::CapabilitySet;

use crate::cluster::{Cluster, ClusterConfig};
use crate::error::ClusterError;
use crate::limits::HELPER_TEXT_MAX_BYTES;
use crate::watch::Watch;

const OPEN: u8 = b'o';
const STOP: u8 = b's';
const RUNNING: u8 = b'r';
const FAILED: u8 = b'e';
const DONE: u8 = b'd';

/// What the helper needs to start the server as another account and to signal it.
const KEPT: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);

/// Why the helper does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It said why.
    #[error("{0}")]
    Refused(String),
    /// It ended, or does not answer: look at its log lines, and start the user again.
    #[error("the process that keeps PostgreSQL has ended or does not answer")]
    Gone,
    /// It could not be started, or told.
    #[error("the process that keeps PostgreSQL: {0}")]
    Io(#[from] io::Error),
}

/// The server of a helper that has started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelpedServer {
    /// See [`Cluster::url`].
    pub url: String,
    /// The path of `psql`; it may not exist.
    pub psql: PathBuf,
    /// The directory of the unix socket.
    pub socket_dir: PathBuf,
}

/// What the helper says.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Running(HelpedServer),
    Stopped,
    Failed(String),
}

/// A helper, seen by its user. Dropping it ends the helper and leaves the server running.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    input: ChildStdin,
    replies: Receiver<Reply>,
    stopping: Arc<AtomicBool>,
}

impl Helper {
    /// Starts `command`, a program that calls [`keep`]. The signals of the terminal do not reach it.
    ///
    /// # Errors
    /// If no process or thread can be started.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are pipes");
        };
        let (sender, replies) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let expected = Arc::clone(&stopping);
        let listen = move || listen(output, &sender, &expected);
        let start = || thread::Builder::new().name("postgres-helper".to_owned()).spawn(listen);
        // The user gives its rights up later, and only those of the thread that does.
        rights::without_capabilities(start)??;
        Ok(Self { child, input, replies, stopping })
    }

    /// Lets the helper open its cluster, and waits for that, which may take as long as [`Cluster::open`].
    ///
    /// # Errors
    /// [`HelperError`].
    pub fn open(&mut self) -> Result<HelpedServer, HelperError> {
        self.input.write_all(&[OPEN])?;
        match self.replies.recv() {
            Ok(Reply::Running(server)) => Ok(server),
            Ok(Reply::Failed(reason)) => Err(HelperError::Refused(reason)),
            Ok(Reply::Stopped) | Err(_) => Err(HelperError::Gone),
        }
    }

    /// Lets the helper stop the server, and waits for its end.
    ///
    /// # Errors
    /// [`HelperError`]; [`HelperError::Gone`] as well if it does not answer within `timeout`.
    pub fn stop(mut self, timeout: Duration) -> Result<(), HelperError> {
        self.stopping.store(true, Ordering::SeqCst);
        self.input.write_all(&[STOP])?;
        match self.replies.recv_timeout(timeout) {
            Ok(Reply::Stopped) => {
                self.child.wait()?;
                Ok(())
            }
            Ok(Reply::Failed(reason)) => Err(HelperError::Refused(reason)),
            Ok(Reply::Running(_)) | Err(_) => Err(HelperError::Gone),
        }
    }
}

/// Reads what the helper says until it ends.
fn listen(output: ChildStdout, replies: &Sender<Reply>, stopping: &AtomicBool) {
    let mut output = BufReader::new(output.take(HELPER_TEXT_MAX_BYTES));
    while let Ok(Some(reply)) = read_reply(&mut output) {
        if replies.send(reply).is_err() {
            return;
        }
    }
    if !stopping.load(Ordering::SeqCst) {
        tracing::error!(
            code = "embedded_postgres_unwatched",
            "the process that keeps the private PostgreSQL has ended; PostgreSQL is not started again if it ends"
        );
    }
}

/// The next reply; none at the end.
fn read_reply(output: &mut impl io::BufRead) -> io::Result<Option<Reply>> {
    let mut kind = [0];
    if output.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut field = || -> io::Result<OsString> {
        let mut bytes = Vec::new();
        output.read_until(0, &mut bytes)?;
        bytes.pop_if(|last| *last == 0);
        Ok(OsString::from_vec(bytes))
    };
    Ok(Some(match kind[0] {
        RUNNING => {
            let url = field()?.to_string_lossy().into_owned();
            Reply::Running(HelpedServer { url, psql: field()?.into(), socket_dir: field()?.into() })
        }
        DONE => Reply::Stopped,
        _ => Reply::Failed(field()?.to_string_lossy().into_owned()),
    }))
}

/// Keeps the cluster of `config`: the helper's whole life. The caller sees to it that signals meant for the user do not end
/// the helper. `stop_timeout` bounds the stop of the server.
pub fn keep(config: ClusterConfig, stop_timeout: Duration) -> ExitCode {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    if read_order(&mut input) != Some(OPEN) {
        return ExitCode::SUCCESS;
    }
    let watch = match open(config) {
        Ok(watch) => watch,
        Err(error) => return fail(&mut output, &error),
    };
    let cluster = watch.cluster();
    let (url, psql, socket_dir) = (cluster.url(), cluster.binaries().path("psql"), cluster.socket_dir());
    let fields = [url.as_bytes(), psql.as_os_str().as_bytes(), socket_dir.as_os_str().as_bytes()];
    let reply = fields.iter().fold(vec![RUNNING], |reply, field| [&reply, *field, &[0]].concat());
    if output.write_all(&reply).and_then(|()| output.flush()).is_err() || read_order(&mut input) != Some(STOP) {
        // The user is gone. The server stays for the next one.
        return ExitCode::SUCCESS;
    }
    match watch.stop(stop_timeout) {
        Ok(()) => {
            // A user that is gone needs no answer.
            drop(output.write_all(&[DONE]).and_then(|()| output.flush()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&mut output, &error),
    }
}

/// Opens the cluster with all rights that this process has, and watches it with those in [`KEPT`].
fn open(config: ClusterConfig) -> Result<Watch, ClusterError> {
    let path = config.data_dir.clone();
    // Also the first server, and `initdb`, are started without a way to more.
    rights::gain_nothing().map_err(|error| ClusterError::io("giving up rights for", &path, error))?;
    let cluster = Cluster::open(config)?;
    let lent = if cluster.has_lent_capability() { CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() };
    let failed = |doing| {
        let path = path.clone();
        move |error| ClusterError::io(doing, &path, error)
    };
    rights::keep_only(KEPT | lent).map_err(failed("giving up rights for"))?;
    Watch::start(Arc::new(cluster)).map_err(failed("starting a thread for"))
}

/// What the user wants next; none if it is gone.
fn read_order(input: &mut impl Read) -> Option<u8> {
    let mut order = [0];
    loop {
        match input.read(&mut order) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1) => return Some(order[0]),
            _ => return None,
        }
    }
}

fn fail(output: &mut impl Write, error: &ClusterError) -> ExitCode {
    let text = error.to_string();
    // A user that is gone needs no answer.
    drop(output.write_all(&[&[FAILED], text.as_bytes(), &[0]].concat()).and_then(|()| output.flush()));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_one_by_one_and_the_end_is_none() {
        let mut text = &b"rpostgres://a@/b\0/bin/psql\0/run\nx\0d"[..];
        let server =
            HelpedServer { url: "postgres://a@/b".into(), psql: "/bin/psql".into(), socket_dir: "/run\nx".into() };
        assert_eq!(read_reply(&mut text).unwrap(), Some(Reply::Running(server)));
        assert_eq!(read_reply(&mut text).unwrap(), Some(Reply::Stopped));
        assert_eq!(read_reply(&mut text).unwrap(), None);
        assert_eq!(read_reply(&mut &b"eno\nroom\0"[..]).unwrap(), Some(Reply::Failed("no\nroom".to_owned())));
    }
}
