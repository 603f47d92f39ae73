//! Producers that push one message after the other's answer, note every answer, and know afterwards what must be there.

use super::{Client, Response, rows, stage::literal, wait_until};
use forebay_cluster::TestCluster;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// What a load is made of.
#[derive(Clone)]
pub struct Spec {
    /// Of the queue, and of producers: the first letters of their names.
    pub queue: &'static str,
    pub label: &'static str,
    /// Each has a connection of its own.
    pub producers: u64,
    /// Each producer keeps to one of them.
    pub partitions: u64,
    /// Bytes that a payload is padded with at most.
    pub fill_bytes: u64,
}

/// Producers at work.
pub struct Load {
    shared: Arc<Progress>,
    threads: Vec<JoinHandle<Sent>>,
}

/// What all producers see.
struct Progress {
    address: Mutex<SocketAddr>,
    stop: AtomicBool,
    answered: AtomicU64,
    /// How often each status was answered, and each of a message's own.
    statuses: Mutex<BTreeMap<String, u64>>,
}

/// What a producer knows of its messages, numbered from 0.
pub struct Sent {
    queue: String,
    partition: String,
    producer: String,
    /// How many it sent.
    sent: u64,
    /// How many of them, from the first on, were answered.
    answered: u64,
}

impl Sent {
    /// A producer that had an answer to each of its messages.
    pub fn all_answered(queue: &str, partition: &str, producer: &str, count: u64) -> Self {
        let [queue, partition, producer] = [queue, partition, producer].map(str::to_owned);
        Self { queue, partition, producer, sent: count, answered: count }
    }
}

/// What is known of producers with the same names and messages, of which each was at two loads.
pub fn merged(one: Vec<Sent>, other: Vec<Sent>) -> Vec<Sent> {
    let merge = |(one, other): (Sent, Sent)| {
        assert_eq!((&one.queue, &one.partition, &one.producer), (&other.queue, &other.partition, &other.producer));
        Sent { sent: one.sent.max(other.sent), answered: one.answered.max(other.answered), ..one }
    };
    one.into_iter().zip(other).map(merge).collect()
}

impl Load {
    pub fn start(spec: &Spec, address: SocketAddr) -> Self {
        let shared = Arc::new(Progress {
            address: Mutex::new(address),
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            statuses: Mutex::default(),
        });
        let threads = (0..spec.producers).map(|id| {
            let (spec, shared) = (spec.clone(), Arc::clone(&shared));
            std::thread::spawn(move || produce(&spec, id, &shared))
        });
        Self { threads: threads.collect(), shared }
    }

    /// Where the daemon is from now on.
    pub fn move_to(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = address;
    }

    /// Waits until so many more messages were answered.
    pub fn wait_for(&self, more: u64) {
        let goal = self.shared.answered.load(Ordering::Relaxed) + more;
        wait_until("pushes are answered", || self.shared.answered.load(Ordering::Relaxed) >= goal);
    }

    /// How often this was answered: an HTTP status, or the `status` of a message of a plain push.
    pub fn count_of(&self, status: &str) -> u64 {
        self.shared.statuses.lock().unwrap().get(status).copied().unwrap_or_default()
    }

    /// What was answered that is no success: HTTP statuses but 201, and each `status` of a message but those three of a
    /// message that is kept.
    pub fn refusals(&self) -> Vec<String> {
        let kept = ["201", "queued", "buffered", "duplicate"];
        self.shared.statuses.lock().unwrap().keys().filter(|status| !kept.contains(&status.as_str())).cloned().collect()
    }

    pub fn stop(self) -> Vec<Sent> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

fn produce(spec: &Spec, id: u64, progress: &Progress) -> Sent {
    let producer = format!("{}{id}", spec.label);
    let partition = format!("p{}", id % spec.partitions);
    let mut sent = Sent { queue: spec.queue.to_owned(), partition, producer, sent: 0, answered: 0 };
    let mut client = None;
    while !progress.stop.load(Ordering::Relaxed) {
        if sent.sent == sent.answered {
            sent.sent += 1;
        }
        let response = connected(&mut client, progress).and_then(|client| push(client, spec, &sent));
        match response {
            Ok(response) => {
                progress.note(&response);
                if response.status == 201 {
                    sent.answered += 1;
                    progress.answered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // Refused, so that it was not kept: it is sent again.
                let closes = response.header("Connection") == Some("close");
                client = client.filter(|_| !closes);
            }
            // No answer: it may be there or not, and is sent again with its id.
            Err(_) => client = None,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    sent
}

fn connected<'a>(client: &'a mut Option<Client>, progress: &Progress) -> io::Result<&'a mut Client> {
    match client {
        Some(client) => Ok(client),
        None => Ok(client.insert(Client::connect(*progress.address.lock().unwrap())?)),
    }
}

/// Sends the message that has no answer yet, in one of three ways.
fn push(client: &mut Client, spec: &Spec, sent: &Sent) -> io::Result<Response> {
    let number = sent.answered;
    let transaction_id = format!("{}-{number}", sent.producer);
    let fill = "x".repeat(if spec.fill_bytes == 0 { 0 } else { number * 997 % spec.fill_bytes } as usize);
    let payload = json!({"producer": sent.producer, "n": number, "fill": fill});
    if number % 3 == 2 {
        let path = format!("/push/{}/{}?bufferMs=20", spec.queue, sent.partition);
        let body = payload.to_string();
        return client.request("POST", &path, &[("Idempotency-Key", &transaction_id)], Some(body.as_bytes()));
    }
    let item = json!({
        "queue": spec.queue, "partition": sent.partition, "transactionId": transaction_id, "payload": payload
    });
    let mut body = json!({"items": [item]});
    if number % 3 == 1 {
        body["bufferMs"] = json!(20);
    }
    client.push(&body)
}

impl Progress {
    fn note(&self, response: &Response) {
        let mut statuses = self.statuses.lock().unwrap();
        *statuses.entry(response.status.to_string()).or_default() += 1;
        if let Some(status) = response.json()[0]["status"].as_str() {
            *statuses.entry(status.to_owned()).or_default() += 1;
        }
    }
}

/// Checks that every answered message is there once, each producer's in order, and nothing that was never sent; returns
/// how many there are.
pub fn check(cluster: &TestCluster, sent: &[Sent]) -> u64 {
    check_in(cluster, "forebay", sent)
}

/// The same, in that schema.
pub fn check_in(cluster: &TestCluster, schema: &str, sent: &[Sent]) -> u64 {
    let queue = &sent[0].queue;
    let sql = format!(
        "SELECT partition, seq, payload->>'producer', payload->>'n' FROM {schema}.message_log WHERE queue = {} \
         ORDER BY partition, seq",
        literal(queue)
    );
    let (mut last_seq, mut stored) = (HashMap::new(), HashMap::<(String, String), u64>::new());
    for row in rows(cluster, &sql) {
        let [partition, seq, producer, number] = <[String; 4]>::try_from(row).unwrap();
        let seq: u64 = seq.parse().unwrap();
        let before = last_seq.insert(partition.clone(), seq).unwrap_or(0);
        assert_eq!(seq, before + 1, "seq has no gaps in partition {partition}");
        let next = stored.entry((partition, producer)).or_default();
        assert_eq!(number.parse::<u64>().unwrap(), *next, "once each and in order: {queue} at seq {seq}");
        *next += 1;
    }
    let mut total = 0;
    for sent in sent {
        let stored = stored.remove(&(sent.partition.clone(), sent.producer.clone())).unwrap_or_default();
        let Sent { producer, answered, sent, .. } = sent;
        assert!(stored >= *answered, "{producer}: {answered} were answered, {stored} are there");
        assert!(stored <= *sent, "{producer}: {sent} were sent, {stored} are there");
        total += stored;
    }
    assert!(stored.is_empty(), "nothing is there that was never sent: {:?}", stored.keys());
    total
}
