//! Load: each producer pushes one message after the reply to the previous one and records every reply. Afterwards the
//! messages that must be in PostgreSQL are known.

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

/// The parameters of a load.
#[derive(Clone)]
pub struct Spec {
    /// The name of the queue and the prefix of the producers' names.
    pub queue: &'static str,
    pub label: &'static str,
    /// Each producer has its own connection.
    pub producers: u64,
    /// Each producer uses one of them.
    pub partitions: u64,
    /// The maximum number of padding bytes in a payload.
    pub fill_bytes: u64,
}

/// Running producers.
pub struct Load {
    shared: Arc<Progress>,
    threads: Vec<JoinHandle<Sent>>,
}

/// State shared by all producers.
struct Progress {
    address: Mutex<SocketAddr>,
    stop: AtomicBool,
    answered: AtomicU64,
    /// Counts each HTTP status and each `status` of a message.
    statuses: Mutex<BTreeMap<String, u64>>,
}

/// What a producer knows about its messages, which are numbered from 0.
pub struct Sent {
    queue: String,
    partition: String,
    producer: String,
    /// Messages sent.
    sent: u64,
    /// Messages acknowledged; these are the first ones.
    answered: u64,
}

impl Sent {
    /// A producer that got a reply to each of its messages.
    pub fn all_answered(queue: &str, partition: &str, producer: &str, count: u64) -> Self {
        let [queue, partition, producer] = [queue, partition, producer].map(str::to_owned);
        Self { queue, partition, producer, sent: count, answered: count }
    }
}

/// Merges what two loads know about the same producers and messages.
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

    /// Redirects the producers to a daemon at another address.
    pub fn move_to(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap() = address;
    }

    /// Waits until `more` further messages are acknowledged.
    pub fn wait_for(&self, more: u64) {
        let goal = self.shared.answered.load(Ordering::Relaxed) + more;
        wait_until("pushes are answered", || self.shared.answered.load(Ordering::Relaxed) >= goal);
    }

    /// How often `status` occurred: an HTTP status, or the `status` of a message in a reply to a plain push.
    pub fn count_of(&self, status: &str) -> u64 {
        self.shared.statuses.lock().unwrap().get(status).copied().unwrap_or_default()
    }

    /// Each kind of failure: an HTTP status other than 201, or a message's `status` other than the three of a kept
    /// message.
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
                // A refused message was not kept, so it is sent again.
                let closes = response.header("Connection") == Some("close");
                client = client.filter(|_| !closes);
            }
            // Without a reply the message may have been kept or not. It is sent again with the same transaction id.
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

/// Sends the first unacknowledged message in one of three ways.
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

/// Checks that PostgreSQL has every acknowledged message exactly once, each producer's messages in order, and no
/// message that was never sent. Returns the number of messages.
pub fn check(cluster: &TestCluster, sent: &[Sent]) -> u64 {
    check_in(cluster, "forebay", sent)
}

/// Like [`check`], in the given schema.
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
