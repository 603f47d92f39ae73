//! The daemon as a process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Microseconds per clock tick of `/proc/PID/stat`.
const TICK_US: f64 = 10_000.0;

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
}

/// What the daemon used.
pub(crate) struct Usage {
    pub(crate) cpu_us: f64,
    pub(crate) memory_peak_kib: u64,
}

impl Daemon {
    pub(crate) fn start(data_dir: &Path, postgres: &str, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--postgres", postgres, "--log", "warn"])
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if postgres.contains("nobody") { Stdio::null() } else { Stdio::inherit() })
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("listening on http://").map(|(_, at)| at.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("the daemon listens") }
    }

    /// Waits until PostgreSQL has all messages. Returns when that was.
    pub(crate) fn wait_until_drained(&self) -> SystemTime {
        let give_up = Instant::now() + PATIENCE;
        let mut stream = TcpStream::connect(&self.address).unwrap();
        while Instant::now() < give_up {
            stream.write_all(b"GET /api/v1/status/buffers HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let mut piece = [0; 4096];
            while !answer.trim_ascii_end().ends_with(b"}") {
                let count = stream.read(&mut piece).unwrap();
                answer.extend_from_slice(&piece[..count]);
            }
            if String::from_utf8_lossy(&answer).contains(r#""pending":0,"#) {
                return SystemTime::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not drained in time");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Drain transactions committed so far.
    pub(crate) fn transactions(&self) -> f64 {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .write_all(b"GET /api/v1/status/buffers HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["drainTransactions"].as_f64().unwrap()
    }

    pub(crate) fn usage(&self) -> Usage {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap();
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let memory_peak_kib = peak.trim().trim_end_matches(" kB").parse().unwrap();
        Usage { cpu_us: ticks * TICK_US, memory_peak_kib }
    }

    pub(crate) fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}
