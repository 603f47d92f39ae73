//! A proxy between the daemon and its PostgreSQL, which does harm at a chosen place.
//!
//! It speaks no SQL. It knows where a message ends, when a flight of them is answered, and that a transaction with a COPY
//! in it which commits is one of the drain's; everything else is forwarded as it comes.
//!
//! ```text
//!   Proxy   accepts, and is told what to do
//!     pump     a connection: two threads, each of which asks before it forwards a message
//!     fault    the plan: which fault comes next, and whether this is its place
//!     wire     borders of messages, and messages of the proxy's own
//!   Rig     a daemon behind a proxy, and what was pushed through it
//! ```

pub mod fault;
mod pump;
pub mod rig;
pub mod wire;

pub use fault::{Deed, Fault, From, Manner, Outcome, Place, Point, Since};
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

/// Time between looks whether a connection on which something is held back has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What is done to everything that goes through.
#[derive(Clone, Copy, Default)]
pub struct Style {
    /// Before each message.
    pub delay: Option<Duration>,
    /// One write for each byte.
    pub single_bytes: bool,
}

/// What the proxy does with a new connection.
#[derive(Clone, Default)]
enum Door {
    #[default]
    Open,
    /// Closed at once.
    Closed,
    /// Taken, and never answered.
    Silent,
    /// Refused by PostgreSQL's words.
    Refusing(Complaint),
}

/// What all threads see.
pub struct Shared {
    plan: Mutex<Plan>,
    struck: Condvar,
    style: Mutex<Style>,
    door: Mutex<Door>,
    held: Mutex<bool>,
    released: Condvar,
    conns: Mutex<Vec<Weak<Conn>>>,
    /// Connections that nobody answers.
    silent: Mutex<Vec<TcpStream>>,
    ends: AtomicBool,
}

/// A running proxy; ends when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Before this cluster, which may be stopped and started meanwhile.
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

    /// Where the daemon finds it.
    pub fn url(&self) -> String {
        format!("postgres://forebay@{}/forebay?sslmode=disable", self.address)
    }

    /// Lets these faults come, one after the other; those of before are forgotten.
    pub fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.lock().unwrap().arm(faults);
    }

    /// One fault, see [`arm`](Self::arm).
    pub fn arm_one(&self, from: From, point: Point, since: Since, deed: Deed) {
        self.arm([Fault { place: Place { from, point, since }, deed }]);
    }

    /// What became of them.
    pub fn outcome(&self) -> Outcome {
        self.shared.plan.lock().unwrap().outcome.unwrap_or(Outcome::WentBy)
    }

    /// Waits until they struck, or the next drain transaction went by; returns whether they struck.
    pub fn wait_for_outcome(&self) -> bool {
        let plan = self.shared.plan.lock().unwrap();
        let is_open = |plan: &mut Plan| plan.outcome == Some(Outcome::Armed);
        let (plan, waited) = self.shared.struck.wait_timeout_while(plan, PATIENCE, is_open).unwrap();
        assert!(!waited.timed_out(), "a fault strikes, or a drain transaction goes by");
        plan.outcome == Some(Outcome::Struck)
    }

    /// Drain transactions that went through so far.
    pub fn transactions(&self) -> u64 {
        self.shared.plan.lock().unwrap().transactions
    }

    /// Messages that came so far, from either side.
    pub fn messages(&self) -> u64 {
        self.shared.plan.lock().unwrap().messages.iter().sum()
    }

    /// Lets go of what is held back.
    pub fn release(&self) {
        *self.shared.held.lock().unwrap() = false;
        self.shared.released.notify_all();
    }

    /// Waits until something is held back.
    pub fn wait_until_holding(&self) {
        wait_until("something is held back", || *self.shared.held.lock().unwrap());
    }

    /// What is done to everything from now on.
    pub fn set_style(&self, style: Style) {
        *self.shared.style.lock().unwrap() = style;
    }

    /// Resets every connection, and refuses new ones.
    pub fn close(&self) {
        *self.shared.door.lock().unwrap() = Door::Closed;
        self.reset_all();
    }

    /// Becomes a black hole: what these sides say goes nowhere, which nobody is told, and new connections are taken and
    /// not answered.
    pub fn fall_silent(&self, lost: &[From]) {
        *self.shared.door.lock().unwrap() = Door::Silent;
        for conn in self.live() {
            lost.iter().for_each(|from| conn.lose(*from));
        }
    }

    /// Lets the server know of the connections that were lost.
    pub fn give_up_lost(&self) {
        self.live().iter().for_each(|conn| conn.give_up_if_lost());
    }

    /// Answers each log-in with these words.
    pub fn refuse(&self, complaint: Complaint) {
        *self.shared.door.lock().unwrap() = Door::Refusing(complaint);
        self.reset_all();
    }

    /// Takes new connections again. Those that were lost stay so.
    pub fn open(&self) {
        *self.shared.door.lock().unwrap() = Door::Open;
    }

    /// Resets every connection that there is, also on the server's side.
    pub fn reset_all(&self) {
        self.live().iter().for_each(|conn| conn.reset());
        self.shared.silent.lock().unwrap().clear();
    }

    /// Connections that there are.
    pub fn connections(&self) -> usize {
        self.live().len()
    }

    fn live(&self) -> Vec<Arc<Conn>> {
        self.shared.conns.lock().unwrap().iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits until somebody connects who finds the door as it is now.
    pub fn wait_for_silent_connection(&self) {
        wait_until("somebody connects in vain", || !self.shared.silent.lock().unwrap().is_empty());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.release();
        self.reset_all();
        // Wakes the thread that accepts; it may have ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Waits until what is held back on `conn` may go on, or the connection ends.
    fn hold(&self, conn: &Conn) {
        let mut held = self.held.lock().unwrap();
        *held = true;
        while *held && !conn.is_over() && !self.ends.load(Ordering::SeqCst) {
            // Nobody tells it of the connection's end.
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
                // Without a server there is nobody to talk to.
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
