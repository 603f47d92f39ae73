//! Shared by the tests of the whole daemon: the real binary, a real PostgreSQL, and a simple HTTP client.

// Each test binary uses only a part of this module. Test helpers may panic: that fails the test.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::let_underscore_must_use
)]

pub mod client;
pub mod jwt;
pub mod load;
pub mod own_core;
pub mod proxy;
#[path = "../../../wal/tests/simulated/random.rs"]
pub mod random;
pub mod small_disk;
pub mod stage;
pub mod tls;

pub use client::{Client, Response};

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    time::{Duration, Instant},
};

/// The limit for anything that is expected to happen. It is generous because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory on the disk of the build. A temporary directory may not support `O_DIRECT`.
pub fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs the binary until it exits.
pub fn forebay(args: &[&str]) -> std::process::Output {
    command(args).output().unwrap()
}

/// Runs the binary until it exits, through a launcher command.
pub fn forebay_by(launcher: &[&str], args: &[&str]) -> std::process::Output {
    command_by(launcher, args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    command_by(&[], args)
}

fn command_by(launcher: &[&str], args: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_forebay");
    let mut command = match launcher {
        [] => Command::new(binary),
        [program, rest @ ..] => {
            let mut command = Command::new(program);
            command.args(rest).arg(binary);
            command
        }
    };
    command.args(args).stdin(Stdio::null());
    // The user's own settings must not affect the tests.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("FOREBAY_") && name != "FOREBAY_PG_BINDIR"
            || name.starts_with("PG")
            || name == "DATABASE_URL"
        {
            command.env_remove(name.as_ref());
        }
    }
    // The host that requests of the tests name, for short.
    command.env("FOREBAY_HOST", "t");
    command
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    /// The address on which it listens.
    pub address: SocketAddr,
    data_dir: PathBuf,
    log_path: PathBuf,
}

impl Daemon {
    /// Starts a daemon on a free port and waits until it listens.
    pub fn start(data_dir: &Path, postgres: &str, args: &[&str]) -> Self {
        Self::start_by(&[], data_dir, postgres, args)
    }

    /// Like [`start`](Self::start), through a launcher that executes the command it is given.
    pub fn start_by(launcher: &[&str], data_dir: &Path, postgres: &str, args: &[&str]) -> Self {
        let log_path = data_dir.with_extension("log");
        let log = File::options().create(true).append(true).open(&log_path).unwrap();
        let dir = data_dir.to_str().unwrap();
        let fixed =
            ["serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--postgres", postgres, "--log-format", "text"];
        let all_args = [&fixed[..], args].concat();
        let mut child = command_by(launcher, &all_args).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (found, address) = channel();
        std::thread::spawn(move || {
            // Standard output is read until it ends: a full pipe would block the daemon.
            while let Some(Ok(line)) = lines.next() {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    // If the daemon was too slow, the receiver is gone.
                    let _ = found.send(address.parse().unwrap());
                }
            }
        });
        match address.recv_timeout(PATIENCE) {
            Ok(address) => Self { child, address, data_dir: data_dir.to_path_buf(), log_path },
            Err(_) => {
                // The daemon may already have exited.
                let _ = child.kill();
                panic!("the daemon did not start:\n{}", std::fs::read_to_string(&log_path).unwrap());
            }
        }
    }

    /// Starts a daemon through a launcher that sets up its standard streams, and waits until it serves. Nobody hears the address:
    /// it listens on a port that was free a moment before.
    pub fn start_unheard(launcher: &[&str], data_dir: &Path, postgres: &str, args: &[&str]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (dir, listen) = (data_dir.to_str().unwrap(), address.to_string());
        let fixed = ["serve", "--listen", &listen, "--data-dir", dir, "--postgres", postgres];
        let child = command_by(launcher, &[&fixed[..], args].concat()).spawn().unwrap();
        let log_path = data_dir.with_extension("log");
        std::fs::write(&log_path, "the log lines went elsewhere").unwrap();
        let daemon = Self { child, address, data_dir: data_dir.to_path_buf(), log_path };
        wait_until("it serves", || Client::connect(address).is_ok_and(|mut client| client.get("/health").is_ok()));
        daemon
    }

    /// A new connection to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// A connection to the core of `lane`. Pushes a message to queue `knock` over each connection that it tries.
    pub fn connect_to_lane(&self, lane: u64) -> Client {
        let appended = || -> Vec<u64> {
            let buffers = self.buffers();
            let lanes = buffers["lanes"].as_array().unwrap().iter();
            lanes.map(|lane| lane["appendedOrdinal"].as_u64().unwrap()).collect()
        };
        for _ in 0..1000 {
            let mut client = self.connect();
            let before = appended();
            assert_eq!(client.post("/push/knock", b"0").unwrap().status, 201);
            if appended()[lane as usize] > before[lane as usize] {
                return client;
            }
        }
        panic!("the kernel gives every core a connection");
    }

    /// Kills the daemon with SIGKILL and waits until it is gone.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops the daemon with SIGTERM and waits until it exits.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits until the daemon exits.
    pub fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < give_up, "the daemon ends:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The log output so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's private memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The daemon's peak resident memory, in bytes, including shared pages.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The number of open sockets. Other descriptors are not counted, because those of segments come and go.
    pub fn sockets(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The reply of `/api/v1/status/buffers`.
    pub fn buffers(&self) -> serde_json::Value {
        let response = self.connect().get("/api/v1/status/buffers").unwrap();
        assert_eq!(response.status, 200);
        response.json()
    }

    /// One number of that reply.
    pub fn figure(&self, name: &str) -> u64 {
        self.buffers()[name].as_u64().unwrap_or_else(|| panic!("{name} is a number"))
    }

    /// Waits until delivery is paused, and for the log line that says so with all of `words`. Pushes go on.
    pub fn wait_until_paused(&self, code: &str, words: &[&str]) {
        let is_told =
            |line: &str| line.contains("ERROR") && line.contains(code) && words.iter().all(|word| line.contains(word));
        wait_until(&format!("it is told: {code} {words:?}"), || self.log().lines().any(is_told));
        wait_until("/ready says that delivery is paused", || {
            let ready = self.connect().get("/ready").unwrap();
            assert_eq!(ready.status, 200);
            ready.json() == serde_json::json!({"status": "ready", "delivery": "paused", "code": code})
        });
        let delivery = self.buffers()["delivery"].clone();
        assert_eq!((&delivery["state"], &delivery["code"]), (&"paused".into(), &code.into()));
    }

    /// Waits until PostgreSQL has every message.
    pub fn wait_until_drained(&self) {
        wait_until("the log is drained", || {
            let buffers = self.buffers();
            buffers["pending"] == 0 && buffers["dbHealthy"] == true
        });
    }
}

impl Daemon {
    /// Waits until PostgreSQL is reachable and has taken something since. Under load the log is seldom empty.
    pub fn wait_until_draining(&self) {
        let before = self.figure("drainTransactions");
        wait_until("the drain goes on", || {
            let buffers = self.buffers();
            buffers["dbHealthy"] == true && buffers["drainTransactions"].as_u64() > Some(before)
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `kill9` or `terminate` the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The rows of a query; each is a list of columns.
pub fn rows(cluster: &forebay_cluster::TestCluster, sql: &str) -> Vec<Vec<String>> {
    let copy = format!("COPY ({sql}) TO STDOUT");
    let output = cluster.psql(&copy).unwrap();
    output.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// An address at which nothing listens.
pub const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/none";

/// The seed from the variable `FOREBAY_TEST_SEED`, or else from the clock. It is printed, so that a failed run can be
/// repeated.
pub fn test_seed() -> u64 {
    let given = std::env::var("FOREBAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64);
    let seed = given.unwrap_or_else(clock);
    println!("FOREBAY_TEST_SEED={seed}");
    seed
}
