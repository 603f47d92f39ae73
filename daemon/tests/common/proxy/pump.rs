//! One connection through the proxy, with a thread for each direction.

use super::{
    Shared,
    fault::{Act, Deed, From, Progress, ResponseOptions},
    wire::{Complaint, First, Framer},
};
use rustix::net::sockopt::set_socket_linger;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The size of a read.
const READ_BYTES: usize = 64 << 10;

pub struct Conn {
    client: TcpStream,
    server: UnixStream,
    /// Held while a message is written: the thread of the other direction may also write to the client.
    writing: Mutex<()>,
    progress: Mutex<Progress>,
    /// Whether all messages of the client, or of the server, are discarded without notice.
    lost: [AtomicBool; 2],
    /// The connection was reset. What was held back until then is dropped.
    over: AtomicBool,
}

impl Conn {
    pub fn new(client: TcpStream, server: UnixStream) -> io::Result<Self> {
        client.set_nodelay(true)?;
        let (writing, progress) = (Mutex::default(), Mutex::default());
        Ok(Self { client, server, writing, progress, lost: Default::default(), over: AtomicBool::new(false) })
    }

    /// Ends the connection at once.
    pub fn reset(&self) {
        self.over.store(true, Ordering::SeqCst);
        // With zero linger, the last close sends a reset. Either end may already be closed.
        let _ = set_socket_linger(&self.client, Some(Duration::ZERO));
        let _ = self.client.shutdown(Shutdown::Read);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Ends the stream that forwards the messages of `from`.
    fn close_after(&self, from: From) {
        if self.is_lost(from) {
            return;
        }
        let _ = match from {
            From::Client => self.server.shutdown(Shutdown::Write),
            From::Server => self.client.shutdown(Shutdown::Write),
        };
    }

    /// Discards all further messages of `from` without notice to either side.
    pub fn lose(&self, from: From) {
        self.lost[from as usize].store(true, Ordering::SeqCst);
    }

    fn is_lost(&self, from: From) -> bool {
        self.lost[from as usize].load(Ordering::SeqCst)
    }

    /// Tells the server that a lost client is gone, as the server's own system eventually does.
    pub fn give_up_if_lost(&self) {
        if self.is_lost(From::Client) || self.is_lost(From::Server) {
            // The server may already have closed it.
            let _ = self.server.shutdown(Shutdown::Both);
        }
    }
}

/// Forwards the client's messages until the client or the plan ends the stream.
pub fn from_client(conn: &Conn, shared: &Shared) {
    let mut framer = Framer::default();
    let mut begun = false;
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(length) = (&conn.client).read(&mut buffer) {
        if length == 0 {
            break;
        }
        framer.push(&buffer[..length]);
        while !begun {
            let Some((first, message)) = framer.next_first() else { break };
            let refusal = shared.refusal();
            let outcome = match (first, refusal) {
                (First::Encryption, _) => (&conn.client).write_all(b"N"),
                (First::Startup, Some(refusal)) => {
                    say_and_close(conn, &refusal);
                    return;
                }
                _ => {
                    begun = true;
                    (&conn.server).write_all(&message)
                }
            };
            if outcome.is_err() {
                return conn.reset();
            }
        }
        if !begun {
            continue;
        }
        while let Some(message) = framer.next() {
            if !forward(conn, shared, From::Client, message) {
                return;
            }
        }
    }
    conn.close_after(From::Client);
}

/// Forwards the server's messages until the server or the plan ends the stream.
pub fn from_server(conn: &Conn, shared: &Shared) {
    let mut framer = Framer::default();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(length) = (&conn.server).read(&mut buffer) {
        if length == 0 {
            break;
        }
        framer.push(&buffer[..length]);
        while let Some(message) = framer.next() {
            if !forward(conn, shared, From::Server, message) {
                return;
            }
        }
    }
    conn.close_after(From::Server);
}

/// Forwards one message or applies the planned fault. Returns whether the direction continues.
fn forward(conn: &Conn, shared: &Shared, from: From, mut message: Vec<u8>) -> bool {
    let act = {
        let mut progress = conn.progress.lock().unwrap();
        if from == From::Server
            && message[0] == b'E'
            && let Some(complaint) = progress.complaint.take()
        {
            message = complaint.response();
        }
        shared.plan.lock().unwrap().on_message(from, &message, &mut progress)
    };
    shared.struck.notify_all();
    match act {
        Act::Forward => write(conn, shared, from, &message),
        Act::Strike { keep, deed: Deed::Cut(manner) } => {
            let kept = write(conn, shared, from, &message[..keep]);
            match manner {
                ResponseOptions::Reset => conn.reset(),
                ResponseOptions::Close => conn.close_after(from),
            }
            // The rest is read and discarded: closing a socket with unread data would reset the connection.
            kept && manner == ResponseOptions::Close && swallow(conn, from)
        }
        Act::Strike { deed: Deed::Hold, .. } => {
            shared.hold(conn);
            write(conn, shared, from, &message)
        }
        Act::Strike { deed: Deed::Fail(complaint), .. } => {
            conn.progress.lock().unwrap().complaint = Some(complaint);
            write(conn, shared, from, &Deed::failing(&message))
        }
        Act::Strike { deed: Deed::Close(complaint), .. } => {
            say_and_close(conn, &complaint);
            false
        }
        Act::Strike { deed: Deed::Insert(words), .. } => {
            write(conn, shared, from, &words) && write(conn, shared, from, &message)
        }
    }
}

/// Sends the client an error in the server's name and closes the connection.
fn say_and_close(conn: &Conn, complaint: &Complaint) {
    let writing = conn.writing.lock().unwrap();
    // The client may already be gone.
    let _ = (&conn.client).write_all(&complaint.response());
    let _ = conn.client.shutdown(Shutdown::Write);
    let _ = conn.server.shutdown(Shutdown::Both);
    drop(writing);
    swallow(conn, From::Client);
}

/// Reads one side's stream until it ends.
fn swallow(conn: &Conn, from: From) -> bool {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = match from {
            From::Client => (&conn.client).read(&mut buffer),
            From::Server => (&conn.server).read(&mut buffer),
        };
        if !matches!(read, Ok(1..)) {
            return false;
        }
    }
}

fn write(conn: &Conn, shared: &Shared, from: From, bytes: &[u8]) -> bool {
    let style = *shared.style.lock().unwrap();
    if let Some(delay) = style.delay {
        std::thread::sleep(delay);
    }
    if conn.is_over() {
        return false;
    }
    if conn.is_lost(from) {
        return true;
    }
    let piece_bytes = if style.single_bytes { 1 } else { bytes.len().max(1) };
    let written = match from {
        From::Client => bytes.chunks(piece_bytes).try_for_each(|piece| (&conn.server).write_all(piece)),
        From::Server => {
            let _writing = conn.writing.lock().unwrap();
            bytes.chunks(piece_bytes).try_for_each(|piece| (&conn.client).write_all(piece))
        }
    };
    if written.is_err() {
        conn.reset();
    }
    written.is_ok()
}

/// Starts both threads of a connection.
pub fn start(conn: &Arc<Conn>, shared: &Arc<Shared>) {
    for pump in [from_client, from_server] {
        let (conn, shared) = (Arc::clone(conn), Arc::clone(shared));
        std::thread::spawn(move || pump(&conn, &shared));
    }
}
