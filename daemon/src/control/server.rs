//! The daemon's side: a thread that accepts, and a short-lived one for each of a few clients.

use super::{
    protocol::{ControlReply, ControlRequest, read_line, write_line},
    socket,
};
use crate::{
    drain::{Decision, Decisions},
    ignore::ignore,
    limits::{CONTROL_CLIENTS_MAX, CONTROL_REQUEST_TIMEOUT, DECISION_PATIENCE},
};
use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread::Builder,
};

/// What the commands need of the daemon.
pub struct Commands {
    /// The way to the drain.
    pub decisions: Arc<Decisions>,
}

impl Commands {
    fn carry_out(&self, request: &ControlRequest) -> ControlReply {
        let decision = match request {
            ControlRequest::CheckpointSet { to } => Decision::Continue(*to),
            ControlRequest::WalFork { common } => Decision::Fork(*common),
        };
        match self.decisions.decide(decision, DECISION_PATIENCE) {
            Ok(decided) => ControlReply::decided(&decided),
            Err(error) => ControlReply::Refused { exit: error.exit_code(), error: error.to_string() },
        }
    }
}

/// The socket of a running daemon. It is removed when this is dropped; the threads end with the process.
pub struct ControlServer {
    data_dir: PathBuf,
}

impl ControlServer {
    /// Listens in `data_dir`, which this process has locked.
    ///
    /// # Errors
    /// When the socket cannot be made, or the system gives no thread.
    pub fn start(data_dir: &Path, commands: Commands) -> io::Result<Self> {
        let listener = socket::listen(data_dir)?;
        let commands = Arc::new(commands);
        Builder::new().name("control".into()).spawn(move || serve(&listener, &commands))?;
        Ok(Self { data_dir: data_dir.to_path_buf() })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        ignore(socket::remove(&self.data_dir), "the next start replaces the control socket");
    }
}

fn serve(listener: &UnixListener, commands: &Arc<Commands>) {
    let mut clients: Vec<Weak<()>> = Vec::new();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a control connection could not be accepted");
                std::thread::sleep(CONTROL_REQUEST_TIMEOUT);
                continue;
            }
        };
        clients.retain(|client| client.strong_count() > 0);
        if clients.len() >= CONTROL_CLIENTS_MAX {
            let error = "too many commands at once: try again".to_owned();
            answer(&stream, &ControlReply::Refused { error, exit: 4 });
            continue;
        }
        let (client, commands) = (Arc::new(()), Arc::clone(commands));
        clients.push(Arc::downgrade(&client));
        let spawned = Builder::new().name("control-client".into()).spawn(move || {
            converse(&stream, &commands);
            drop(client);
        });
        ignore(spawned.map(drop), "the client sees its connection closed");
    }
}

/// Carries out the request of one client.
fn converse(stream: &UnixStream, commands: &Commands) {
    let limited = stream.set_read_timeout(Some(CONTROL_REQUEST_TIMEOUT));
    let reply = match limited.and_then(|()| read_line(stream)) {
        Ok(request) => {
            tracing::info!(?request, "a command came over the control socket");
            commands.carry_out(&request)
        }
        Err(error) => ControlReply::Refused { error: format!("the request cannot be read: {error}"), exit: 2 },
    };
    answer(stream, &reply);
}

fn answer(stream: &UnixStream, reply: &ControlReply) {
    let sent = stream.set_write_timeout(Some(CONTROL_REQUEST_TIMEOUT)).and_then(|()| write_line(stream, reply));
    ignore(sent, "the client has left");
}
