//! A PostgreSQL and a daemon in front of it, shared by the tests of a file that do not disturb each other.

use super::{Daemon, data_dir, rows};
use forebay_cluster::TestCluster;
use serde_json::Value;
use std::sync::{Arc, Mutex, Weak};
use tempfile::TempDir;

/// A running daemon and its PostgreSQL. Both end with the last test that uses them.
pub struct Stage {
    // The fields are dropped in this order.
    pub daemon: Daemon,
    pub cluster: TestCluster,
    pub dir: TempDir,
}

impl Stage {
    /// Starts a daemon of two cores. Its PostgreSQL does not sync.
    pub fn start(args: &[&str]) -> Self {
        let cluster = TestCluster::start_without_fsync().unwrap();
        let dir = data_dir();
        let daemon = Daemon::start(dir.path(), &cluster.url(), &[&["--cores", "2"], args].concat());
        daemon.wait_until_drained();
        Self { daemon, cluster, dir }
    }

    /// The stage shared by the tests that run at the same time.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Stage>> = Mutex::new(Weak::new());
        // A test that fails while it starts the stage must not fail the others.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let stage = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&stage);
            stage
        })
    }

    /// Rows of a query.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.cluster, sql)
    }

    /// The payloads of a queue in PostgreSQL's notation, ordered by partition and `seq`. Waits until there are `count`.
    pub fn payload_texts(&self, queue: &str, count: usize) -> Vec<String> {
        payload_texts(&self.daemon, &self.cluster, queue, count)
    }

    /// Like [`payload_texts`](Self::payload_texts), parsed.
    pub fn payloads(&self, queue: &str, count: usize) -> Vec<Value> {
        self.payload_texts(queue, count).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

/// The payloads of a queue in PostgreSQL's notation, ordered by partition and `seq`. Waits until there are `count`.
pub fn payload_texts(daemon: &Daemon, cluster: &TestCluster, queue: &str, count: usize) -> Vec<String> {
    daemon.wait_until_drained();
    // In hexadecimal, because COPY has its own escapes.
    let sql = format!(
        "SELECT encode(convert_to(payload::text, 'UTF8'), 'hex') FROM forebay.message_log WHERE queue = {} \
         ORDER BY partition, seq",
        literal(queue)
    );
    let texts: Vec<String> = rows(cluster, &sql).iter().map(|row| from_hex(&row[0])).collect();
    assert_eq!(texts.len(), count, "messages of queue {queue:?}");
    texts
}

/// `text` as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn from_hex(digits: &str) -> String {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    String::from_utf8(digits.as_bytes().chunks(2).map(byte).collect()).unwrap()
}
