//! A small HTTP server for the tests. It has one thread per connection, replies by a script, and keeps all requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How the server reacts to a request.
pub(crate) enum Reply {
    /// Respond and read on.
    Respond(u16, &'static str),
    /// Respond with `Connection: close`, and close.
    RespondAndClose(u16, &'static str),
    /// Close without a response.
    HangUp,
    /// Read on without a response.
    Silence,
}

/// A request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

type Script = dyn Fn(u64) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    counter: AtomicU64,
    requests: Mutex<Vec<Request>>,
    sockets: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// The server. Dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port. `script` is called with each request's number, from 0.
    pub(crate) fn start(script: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn start_at(address: SocketAddr, script: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            counter: AtomicU64::new(0),
            requests: Mutex::default(),
            sockets: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// All requests received so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.sockets.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor. It does not matter whether the connect succeeds.
        drop(TcpStream::connect(self.address));
        for socket in self.shared.sockets.lock().unwrap().iter() {
            // An error says that the peer has closed the socket already.
            drop(socket.shutdown(Shutdown::Both));
        }
        self.acceptor.take().unwrap().join().unwrap();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let socket = socket.unwrap();
        shared.sockets.lock().unwrap().push(socket.try_clone().unwrap());
        let shared = Arc::clone(shared);
        threads.push(std::thread::spawn(move || serve(&socket, &shared)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Serves a connection until either side closes it.
fn serve(socket: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(socket);
    while let Some(request) = read_request(&mut reader) {
        // One lock for both, so that a request's number is its index.
        let number = {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(request);
            shared.counter.fetch_add(1, Ordering::SeqCst)
        };
        let (status, body, closes) = match (shared.script)(number) {
            Reply::Respond(status, body) => (status, body, false),
            Reply::RespondAndClose(status, body) => (status, body, true),
            Reply::HangUp => break,
            Reply::Silence => continue,
        };
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let response = format!("HTTP/1.1 {status} X\r\n{connection}Content-Length: {}\r\n\r\n{body}", body.len());
        // Two writes, so that the client receives the response in pieces.
        let (first, second) = response.as_bytes().split_at(response.len() / 2);
        let mut writer = socket;
        if writer.write_all(first).and_then(|()| writer.write_all(second)).is_err() || closes {
            break;
        }
    }
    // An error says that the peer has closed the socket already.
    drop(socket.shutdown(Shutdown::Both));
}

/// The next request; none if the connection ends before a whole one.
fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let line_at = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[line_at..].trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { head, body: String::from_utf8(body).unwrap() })
}
