//! A daemon behind its own proxy, and one producer that pushes to it.

use super::Proxy;
use crate::common::{Client, Daemon, PATIENCE, Response, data_dir, load};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The interval at which the daemon's figures are polled.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

pub struct Rig {
    pub daemon: Daemon,
    pub proxy: Proxy,
    dir: TempDir,
    args: Vec<String>,
    /// The queue of all messages; it has the rig's name.
    queue: String,
    schema: String,
    client: Client,
    /// The number of messages pushed to each partition. Each message carries its index in its partition.
    pushed: BTreeMap<String, u64>,
    /// How many of them were pushed before the daemon was restarted.
    pushed_before: u64,
}

impl Rig {
    pub fn start(cluster: &TestCluster, name: &str, args: &[&str]) -> Self {
        Self::start_in(cluster, "forebay", name, args)
    }

    /// Like `start`, in a schema of its own.
    pub fn start_in(cluster: &TestCluster, schema: &str, name: &str, args: &[&str]) -> Self {
        let proxy = Proxy::start(cluster);
        let dir = data_dir();
        let args: Vec<String> =
            ["--cores", "1", "--schema", schema].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let daemon = start_daemon(&dir, &proxy, &args);
        let (client, pushed) = (daemon.connect(), BTreeMap::new());
        let (queue, schema) = (name.to_owned(), schema.to_owned());
        Self { daemon, proxy, dir, args, queue, schema, client, pushed, pushed_before: 0 }
    }

    /// The next items of a partition. Two of five have a transaction id.
    fn items(&mut self, partition: &str, count: u64) -> Vec<Value> {
        let Self { queue, pushed, .. } = self;
        let next = pushed.entry(partition.to_owned()).or_default();
        let numbers = *next..*next + count;
        *next += count;
        let item = |n: u64| {
            let payload = json!({"producer": queue, "n": n, "fill": "x".repeat((n * 7 % 50) as usize)});
            let mut item = json!({"queue": queue, "partition": partition, "payload": payload});
            match n % 5 {
                0 => item["transactionId"] = json!(format!("{queue}-{partition}-{n}")),
                1 => item["transactionId"] = json!(uuid::Uuid::from_u128(u128::from(n)).to_string()),
                _ => {}
            }
            item
        };
        numbers.map(item).collect()
    }

    /// Sends one plain push of `count` messages and returns the reply.
    pub fn try_push(&mut self, partition: &str, count: u64) -> std::io::Result<Response> {
        let items = self.items(partition, count);
        self.client.push(&json!({"items": items}))
    }

    /// Like [`try_push`](Self::try_push), but the push must succeed.
    pub fn push(&mut self, partition: &str, count: u64) -> Value {
        let response = self.try_push(partition, count).unwrap();
        assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// Sends a buffered push of `count` messages, which must succeed.
    pub fn push_buffered(&mut self, partition: &str, count: u64) {
        let items = self.items(partition, count);
        let response = self.client.push(&json!({"items": items, "bufferMs": 1})).unwrap();
        assert_eq!(response.status, 201, "{}", String::from_utf8_lossy(&response.body));
    }

    /// Waits until PostgreSQL has every message. Polls often.
    pub fn wait_until_drained(&mut self) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let buffers = self.client.get("/api/v1/status/buffers").unwrap().json();
            if buffers["pending"] == 0 && buffers["dbHealthy"] == true {
                return;
            }
            assert!(Instant::now() < give_up, "in time: the log is drained, {buffers}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether the daemon reports PostgreSQL as healthy.
    pub fn is_healthy(&mut self) -> bool {
        self.client.get("/api/v1/status/buffers").unwrap().json()["dbHealthy"] == true
    }

    /// Kills the daemon with SIGKILL and restarts it on the same directory.
    pub fn kill9_and_restart(&mut self) {
        self.daemon.signal(rustix::process::Signal::KILL);
        self.daemon.wait();
        self.pushed_before = self.pushed.values().sum();
        self.daemon = start_daemon(&self.dir, &self.proxy, &self.args);
        self.client = self.daemon.connect();
    }

    /// Checks that every message is stored exactly once and in order, that dead letters are empty, and that the figures
    /// are right.
    pub fn check(&mut self, cluster: &TestCluster) -> u64 {
        self.wait_until_drained();
        let producers: Vec<load::Sent> = self
            .pushed
            .iter()
            .map(|(partition, count)| load::Sent::all_answered(&self.queue, partition, &self.queue, *count))
            .collect();
        let stored = load::check_in(cluster, &self.schema, &producers);
        let figures = self.daemon.buffers();
        for name in ["pending", "pendingBytes", "oldestPendingMs", "failed", "lostRecords", "duplicateMessages"] {
            assert_eq!(figures[name], 0, "{name}: {figures}");
        }
        if self.pushed_before == 0 {
            assert_eq!(figures["drainedMessages"], stored, "each is counted once: {figures}");
        }
        stored
    }
}

fn start_daemon(dir: &TempDir, proxy: &Proxy, args: &[String]) -> Daemon {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Daemon::start(dir.path(), &proxy.url(), &args)
}
