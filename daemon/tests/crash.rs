//! SIGKILL of the daemon and of PostgreSQL under load. PostgreSQL has every acknowledged message exactly once and in
//! order, and no message that was never sent.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Client, Daemon, data_dir, random::Random, rows, test_seed, wait_until};
use forebay_cluster::TestCluster;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const PRODUCERS: u64 = 8;
const PARTITIONS_PER_PRODUCER: u64 = 2;
const DAEMON_KILLS: u32 = 25;
const POSTGRES_KILLS: u32 = 5;

/// The messages of one producer by partition, in sending order, each with whether it was acknowledged.
type Sent = BTreeMap<String, Vec<(u64, bool)>>;

/// The daemon's current address.
type Address = Arc<Mutex<SocketAddr>>;

/// A producer with its own partitions that sends each push after the reply to the previous one.
struct Producer {
    id: u64,
    random: Random,
    address: Address,
    stop: Arc<AtomicBool>,
    client: Option<Client>,
    next: u64,
    sent: Sent,
}

impl Producer {
    fn run(mut self) -> Sent {
        while !self.stop.load(Ordering::Relaxed) {
            self.push();
        }
        self.sent
    }

    fn push(&mut self) {
        let partition = format!("{}-{}", self.id, self.random.below(PARTITIONS_PER_PRODUCER));
        let count = if self.random.below(3) == 0 { 1 + self.random.below(20) } else { 1 };
        let numbers: Vec<u64> = (self.next..self.next + count).collect();
        self.next += count;
        let with_ids = self.random.below(2) == 0;
        let kind = self.random.below(3);
        let path = format!("/push/crash/{partition}");
        let payload =
            |number: &u64| json!({"producer": self.id, "n": number, "fill": "x".repeat((number % 700) as usize)});
        // Without a transaction id, a push whose reply was lost cannot be sent again: it may have been kept or not.
        let mut answered = false;
        while !answered && !self.stop.load(Ordering::Relaxed) {
            let address = *self.address.lock().unwrap();
            let Some(client) = self.client.as_mut() else {
                match Client::connect(address) {
                    Ok(client) => self.client = Some(client),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
                continue;
            };
            let response = if kind == 2 {
                let lines: Vec<String> = numbers.iter().map(|number| payload(number).to_string()).collect();
                let key = format!("key-{}-{}", self.id, numbers[0]);
                let mut headers = vec![("Content-Type", "application/x-ndjson")];
                if with_ids {
                    headers.push(("Idempotency-Key", &key));
                }
                client.request("POST", &path, &headers, Some(lines.join("\n").as_bytes()))
            } else {
                let item = |number: &u64| {
                    let mut item = json!({"queue": "crash", "partition": partition, "payload": payload(number)});
                    if with_ids {
                        item["transactionId"] = json!(format!("tx-{}-{number}", self.id));
                    }
                    item
                };
                let mut body = json!({"items": numbers.iter().map(item).collect::<Vec<Value>>()});
                if kind == 1 {
                    body["bufferMs"] = json!(20);
                }
                client.push(&body)
            };
            match response {
                Ok(response) if response.status == 201 => answered = true,
                // A push refused during shutdown was not kept, so it is sent again.
                Ok(response) => {
                    assert_eq!(response.status, 503, "{:?}", String::from_utf8_lossy(&response.body));
                    self.client = None;
                }
                Err(_) => {
                    self.client = None;
                    if !with_ids {
                        break;
                    }
                }
            }
        }
        let sent = self.sent.entry(partition).or_default();
        sent.extend(numbers.into_iter().map(|number| (number, answered)));
    }
}

fn check(cluster: &TestCluster, sent: &Sent) -> usize {
    let sql = "SELECT partition, seq, payload->>'n', (payload->>'fill') FROM forebay.message_log \
               WHERE queue = 'crash' ORDER BY partition, seq";
    let mut stored: HashMap<String, Vec<u64>> = HashMap::new();
    for row in rows(cluster, sql) {
        let (seq, number): (usize, u64) = (row[1].parse().unwrap(), row[2].parse().unwrap());
        let numbers = stored.entry(row[0].clone()).or_default();
        numbers.push(number);
        assert_eq!(seq, numbers.len(), "seq has no gaps in partition {}", row[0]);
        assert_eq!(row[3].len() as u64, number % 700, "the payload of {number} is whole");
    }
    let mut total = 0;
    for (partition, sent) in sent {
        let stored = stored.remove(partition).unwrap_or_default();
        total += stored.len();
        assert!(stored.is_sorted_by(|a, b| a < b), "once each, and in order: {partition} {stored:?}");
        let known: HashSet<u64> = sent.iter().map(|(number, _)| *number).collect();
        let present: HashSet<u64> = stored.into_iter().collect();
        for (number, answered) in sent {
            assert!(!answered || present.contains(number), "{partition}: {number} was answered and is missing");
        }
        assert!(present.is_subset(&known), "nothing is there that was never sent");
    }
    assert!(stored.is_empty(), "no partition is there that was never sent to: {:?}", stored.keys());
    total
}

#[test]
fn case_46_and_54_killed_25_times_and_postgresql_5_times_under_load_nothing_is_lost_doubled_or_out_of_order() {
    let seed = test_seed();
    let cluster = TestCluster::start().unwrap();
    let dir = data_dir();
    let args = ["--cores", "2", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "512MiB"];
    let mut daemon = Daemon::start(dir.path(), &cluster.url(), &args);
    let address: Address = Arc::new(Mutex::new(daemon.address));
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|id| {
            let producer = Producer {
                id,
                random: Random::new(seed + id),
                address: Arc::clone(&address),
                stop: Arc::clone(&stop),
                client: None,
                next: 0,
                sent: Sent::new(),
            };
            std::thread::spawn(move || producer.run())
        })
        .collect();
    let mut random = Random::new(seed ^ 0xdead);
    let every = DAEMON_KILLS / POSTGRES_KILLS;
    for kill in 0..DAEMON_KILLS {
        std::thread::sleep(Duration::from_millis(100 + random.below(500)));
        if kill % every == every / 2 {
            cluster.kill9().unwrap();
            std::thread::sleep(Duration::from_millis(random.below(300)));
        }
        daemon.kill9();
        daemon = Daemon::start(dir.path(), &cluster.url(), &args);
        *address.lock().unwrap() = daemon.address;
        if !cluster.is_alive() {
            std::thread::sleep(Duration::from_millis(random.below(300)));
            cluster.start().unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let mut sent = Sent::new();
    for producer in producers {
        sent.extend(producer.join().unwrap());
    }
    daemon.wait_until_drained();
    let answered = sent.values().flatten().filter(|(_, answered)| *answered).count();
    let stored = check(&cluster, &sent);
    println!("{answered} answered, {stored} stored");
    assert!(answered > 1000, "there was load: {answered}");

    // New pushes are still delivered.
    let fresh = daemon.connect().push(&json!({"items": [{"queue": "after", "payload": 1}]})).unwrap();
    assert_eq!(fresh.json()[0]["status"], "queued");
    wait_until("the figures are right", || daemon.figure("pending") == 0 && daemon.figure("lostRecords") == 0);
    assert!(daemon.terminate().success());
}
