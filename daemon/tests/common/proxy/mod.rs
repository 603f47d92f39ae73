//! A proxy between the daemon and its PostgreSQL that causes a fault at a chosen place.
//!
//! It does not parse SQL. It knows the boundaries of messages and when a flight of them is answered. It treats a
//! transaction with a COPY and a COMMIT as a drain transaction. Everything else is forwarded unchanged.
//!
//! ```text
//!   Proxy   accepts connections, and is told what to do
//!     pump     a connection: two threads, each of which asks the plan before it forwards a message
//!     fault    the plan: the next fault, and whether it strikes at this message
//!     wire     message boundaries, and messages that the proxy builds
//!   Rig     a daemon behind a proxy, and the messages pushed through it
//! ```

pub mod fault;
mod pump;
pub mod rig;
pub mod wire;

pub use fault::{Deed, Fault, From, Outcome, Place, Point, ResponseOptions, Since};
pub use rig::Rig;
pub use wire::Complaint;

use super::{PATIENCE, wait_until};
use fault::Plan;
use forebay_cluster::TestCluster;
use pump::Conn;
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The interval at which a held connection is checked for its end.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Applies to everything that passes through.
#[derive(Clone, Copy, Default)]
pub struct Style {
    /// The delay before each message.
    pub delay: Option<Duration>,
    /// Each byte is written by itself.
    pub single_bytes: bool,
}

/// The treatment of a new connection.
#[derive(Clone, Default)]
enum Door {
    #[default]
    Open,
    /// Closed at once.
    Closed,
    /// Accepted, but never answered.
    Silent,
    /// Refused with this PostgreSQL error.
    Refusing(Complaint),
}

/// State shared by all threads.
pub struct Shared {
    plan: Mutex<Plan>,
    struck: Condvar,
    style: Mutex<Style>,
    door: Mutex<Door>,
    held: Mutex<bool>,
    released: Condvar,
    conns: Mutex<Vec<Weak<Conn>>>,
    /// Accepted connections that are never answered.
    silent: Mutex<Vec<TcpStream>>,
    ends: AtomicBool,
}

/// A running proxy; it stops when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Starts a proxy in front of this cluster. The cluster may be stopped and started meanwhile.
    pub fn start(cluster: &TestCluster) -> Self {
        let socket = cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.port()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            plan: Mutex::default(),
            struck: Condvar::new(),
            style: Mutex::default(),
            door: Mutex::default(),
            held: Mutex::default(),
            released: Condvar::new(),
            conns: Mutex::default(),
            silent: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &socket, &accepting));
        Self { shared, address }
    }

    /// The URL for the daemon.
    pub fn url(&self) -> String {
        format!("postgres://forebay@{}/forebay?sslmode=disable", self.address)
    }

    /// Arms these faults, which strike one after the other, and drops all earlier ones.
    pub fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.lock().unwrap().arm(faults);
    }

    /// Arms one fault, see [`arm`](Self::arm).
    pub fn arm_one(&self, from: From, point: Point, since: Since, deed: Deed) {
        self.arm([Fault { place: Place { from, point, since }, deed }]);
    }

    /// The state of the armed faults.
    pub fn outcome(&self) -> Outcome {
        self.shared.plan.lock().unwrap().outcome.unwrap_or(Outcome::WentBy)
    }

    /// Waits until all faults have struck or the next drain transaction has ended. Returns whether they have struck.
    pub fn wait_for_outcome(&self) -> bool {
        let plan = self.shared.plan.lock().unwrap();
        let is_open = |plan: &mut Plan| plan.outcome == Some(Outcome::Armed);
        let (plan, waited) = self.shared.struck.wait_timeout_while(plan, PATIENCE, is_open).unwrap();
        assert!(!waited.timed_out(), "a fault strikes, or a drain transaction goes by");
        plan.outcome == Some(Outcome::Struck)
    }

    /// Drain transactions completed so far.
    pub fn transactions(&self) -> u64 {
        self.shared.plan.lock().unwrap().transactions
    }

    /// Messages seen so far, from both sides.
    pub fn messages(&self) -> u64 {
        self.shared.plan.lock().unwrap().messages.iter().sum()
    }

    /// Releases what is held back.
    pub fn release(&self) {
        *self.shared.held.lock().unwrap() = false;
        self.shared.released.notify_all();
    }

    /// Waits until a message is held back.
    pub fn wait_until_holding(&self) {
        wait_until("something is held back", || *self.shared.held.lock().unwrap());
    }

    /// Sets the style of everything from here on.
    pub fn set_style(&self, style: Style) {
        *self.shared.style.lock().unwrap() = style;
    }

    /// Resets every connection and refuses new ones.
    pub fn close(&self) {
        *self.shared.door.lock().unwrap() = Door::Closed;
        self.reset_all();
    }

    /// Becomes a black hole. The messages of these sides are discarded without notice. New connections are accepted but
    /// not answered.
    pub fn fall_silent(&self, lost: &[From]) {
        *self.shared.door.lock().unwrap() = Door::Silent;
        for conn in self.live() {
            lost.iter().for_each(|from| conn.lose(*from));
        }
    }

    /// Closes the server's side of the lost connections.
    pub fn give_up_lost(&self) {
        self.live().iter().for_each(|conn| conn.give_up_if_lost());
    }

    /// Refuses each login with this error.
    pub fn refuse(&self, complaint: Complaint) {
        *self.shared.door.lock().unwrap() = Door::Refusing(complaint);
        self.reset_all();
    }

    /// Forwards new connections again. Lost connections stay lost.
    pub fn open(&self) {
        *self.shared.door.lock().unwrap() = Door::Open;
    }

    /// Resets every connection on both sides.
    pub fn reset_all(&self) {
        self.live().iter().for_each(|conn| conn.reset());
        self.shared.silent.lock().unwrap().clear();
    }

    /// The number of connections.
    pub fn connections(&self) -> usize {
        self.live().len()
    }

    fn live(&self) -> Vec<Arc<Conn>> {
        self.shared.conns.lock().unwrap().iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits until a client connects that is not answered.
    pub fn wait_for_silent_connection(&self) {
        wait_until("somebody connects in vain", || !self.shared.silent.lock().unwrap().is_empty());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.release();
        self.reset_all();
        // Wakes the accepting thread, which may have ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Waits until the message held back on `conn` is released or the connection ends.
    fn hold(&self, conn: &Conn) {
        let mut held = self.held.lock().unwrap();
        *held = true;
        while *held && !conn.is_over() && !self.ends.load(Ordering::SeqCst) {
            // The end of a connection notifies nobody, so it is polled.
            held = self.released.wait_timeout(held, LOOK_INTERVAL).unwrap().0;
        }
        *held = false;
    }

    fn refusal(&self) -> Option<Complaint> {
        match &*self.door.lock().unwrap() {
            Door::Refusing(complaint) => Some(complaint.clone()),
            _ => None,
        }
    }
}

fn accept(listener: &TcpListener, socket: &PathBuf, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ends.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let door = shared.door.lock().unwrap().clone();
        match door {
            Door::Closed => drop(client),
            Door::Silent => shared.silent.lock().unwrap().push(client),
            Door::Open | Door::Refusing(_) => {
                // The server is not running.
                let Ok(server) = UnixStream::connect(socket) else { continue };
                let Ok(conn) = Conn::new(client, server).map(Arc::new) else { continue };
                let mut conns = shared.conns.lock().unwrap();
                conns.retain(|conn| conn.strong_count() > 0);
                conns.push(Arc::downgrade(&conn));
                drop(conns);
                pump::start(&conn, shared);
            }
        }
    }
}
