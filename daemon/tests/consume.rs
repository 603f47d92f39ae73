//! Consumers over HTTP: pops, acks, leases, groups.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, client::Client, data_dir, stage::Stage, wait_until};
use forebay_cluster::{StopMode, TestCluster};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

fn push(client: &mut Client, queue: &str, partition: &str, payloads: impl Iterator<Item = u64>) {
    let items: Vec<Value> =
        payloads.map(|n| json!({"queue": queue, "partition": partition, "payload": {"n": n}})).collect();
    let answer = client.push(&json!({"items": items})).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.error());
    assert!(answer.json().as_array().unwrap().iter().all(|item| item["status"] == "queued"), "{}", answer.json());
}

/// The answer to a pop; `None`: there was nothing.
fn pop(client: &mut Client, queue: &str, query: &str) -> Option<Value> {
    let answer = client.get(&format!("/api/v1/pop/queue/{queue}?{query}")).unwrap();
    match answer.status {
        204 => None,
        200 => Some(answer.json()),
        status => panic!("{status}: {}", answer.error()),
    }
}

fn numbers(popped: &Value) -> Vec<u64> {
    popped["messages"].as_array().unwrap().iter().map(|message| message["data"]["n"].as_u64().unwrap()).collect()
}

/// Acknowledges messages as the newer clients do.
fn ack(client: &mut Client, messages: &[Value], status: &str, group: Option<&str>) -> Vec<Value> {
    let items: Vec<Value> = messages
        .iter()
        .map(|message| {
            json!({
                "transactionId": message["transactionId"], "partitionId": message["partitionId"],
                "leaseId": message["leaseId"], "status": status, "error": format!("it was {status}"),
            })
        })
        .collect();
    let body = json!({"acknowledgments": items, "consumerGroup": group});
    let answer = client.post("/api/v1/ack/batch", body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.error());
    answer.json().as_array().unwrap().clone()
}

fn all_count(answers: &[Value]) -> bool {
    answers.iter().all(|answer| answer["success"] == true)
}

fn messages(popped: &Value) -> Vec<Value> {
    popped["messages"].as_array().unwrap().clone()
}

#[test]
fn what_was_pushed_is_taken_in_order_by_each_group_once_and_is_visible_to_the_next_pop() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    assert_eq!(pop(&mut client, "orders", "wait=false"), None, "there is no such queue");
    for n in 0..10 {
        push(&mut client, "orders", "eu", n..n + 1);
        let taken = pop(&mut client, "orders", "autoAck=true&batch=5").unwrap();
        assert_eq!(numbers(&taken), [n], "{taken}");
        assert_eq!(
            (&taken["queue"], &taken["partition"], &taken["leaseId"]),
            (&json!("orders"), &json!("eu"), &Value::Null)
        );
    }
    assert_eq!(pop(&mut client, "orders", "autoAck=true"), None);
    // HEAD takes nothing.
    push(&mut client, "headed", "p", 0..1);
    let answer = client.request("HEAD", "/api/v1/pop/queue/headed?autoAck=true", &[], None).unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(numbers(&pop(&mut client, "headed", "autoAck=true").unwrap()), [0]);
    // Each group begins at the beginning, or with what comes.
    let taken = pop(&mut client, "orders", "autoAck=true&batch=100&consumerGroup=audit").unwrap();
    assert_eq!(numbers(&taken), (0..10).collect::<Vec<_>>());
    assert_eq!(taken["messages"][0]["consumerGroup"], "audit");
    assert_eq!(pop(&mut client, "orders", "autoAck=true&consumerGroup=late&subscriptionMode=new"), None);
    push(&mut client, "orders", "eu", 10..12);
    let taken = pop(&mut client, "orders", "autoAck=true&consumerGroup=late&batch=9").unwrap();
    assert_eq!(numbers(&taken), [10, 11]);
}

#[test]
fn a_lease_keeps_others_away_until_its_messages_are_done() {
    let stage = Stage::shared();
    let (mut one, mut other) = (stage.daemon.connect(), stage.daemon.connect());
    push(&mut one, "leased", "p", 0..6);
    let taken = pop(&mut one, "leased", "batch=4").unwrap();
    assert_eq!(numbers(&taken), [0, 1, 2, 3]);
    assert_eq!(pop(&mut other, "leased", "batch=4"), None, "the partition is leased");
    let first = messages(&taken);
    let answers = ack(&mut one, &first[..1], "completed", None);
    assert!(all_count(&answers) && answers[0]["leaseReleased"] == false, "{answers:?}");
    assert_eq!(pop(&mut other, "leased", "batch=4"), None);
    // The last one of four, then those between.
    assert!(all_count(&ack(&mut one, &first[3..], "completed", None)));
    let answers = ack(&mut one, &first[1..3], "completed", None);
    assert!(all_count(&answers) && answers[0]["leaseReleased"] == true, "{answers:?}");
    let taken = pop(&mut other, "leased", "batch=4").unwrap();
    assert_eq!(numbers(&taken), [4, 5]);
    // Once more: the answer may have been lost.
    assert!(all_count(&ack(&mut one, &first, "completed", None)));
    // In one partition that is named.
    assert!(all_count(&ack(&mut other, &messages(&taken), "completed", None)));
    push(&mut one, "leased", "q", 6..8);
    assert_eq!(pop(&mut one, "leased/partition/p", ""), None);
    let taken = pop(&mut one, "leased/partition/q", "batch=2").unwrap();
    assert_eq!(numbers(&taken), [6, 7]);
    // An unknown transaction id, a lease of nobody's, a partition of nobody's.
    let mut wrong = messages(&taken).remove(0);
    wrong["transactionId"] = json!("nothing");
    assert_eq!(ack(&mut one, &[wrong], "completed", None)[0]["error"], "Message not found");
    let mut wrong = messages(&taken).remove(0);
    wrong["leaseId"] = json!("0190f5fe-0000-7000-8000-000000000000");
    assert_eq!(ack(&mut one, &[wrong], "completed", None)[0]["error"], "Invalid or expired lease");
    let mut wrong = messages(&taken).remove(0);
    wrong["partitionId"] = json!("123456789");
    assert_eq!(ack(&mut one, &[wrong], "completed", None)[0]["success"], false);
}

#[test]
fn what_fails_comes_again_as_often_as_the_queue_allows_and_then_is_a_letter_of_the_group() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    push(&mut client, "tasks", "p", 0..3);
    let options = json!({"queue": "tasks", "options": {"retryLimit": 2, "retryDelay": 1}});
    assert_eq!(client.post("/api/v1/configure", options.to_string().as_bytes()).unwrap().status, 200);
    for attempt in 0..3 {
        let taken = pop(&mut client, "tasks", "batch=3&wait=true&consumerGroup=g").unwrap();
        // What was done beside it does not come again.
        assert_eq!(numbers(&taken), if attempt == 0 { vec![0, 1, 2] } else { vec![1] });
        let taken = messages(&taken);
        let failing = taken.iter().find(|message| message["data"]["n"] == 1).unwrap().clone();
        assert_eq!(failing["retryCount"], attempt);
        let others: Vec<Value> = taken.into_iter().filter(|message| *message != failing).collect();
        assert!(all_count(&ack(&mut client, &others, "completed", Some("g"))));
        let answers = ack(&mut client, &[failing], "failed", Some("g"));
        assert!(all_count(&answers), "{answers:?}");
        assert_eq!(answers[0]["dlq"], attempt == 2);
    }
    assert_eq!(pop(&mut client, "tasks", "batch=3&consumerGroup=g"), None);
    let letters = stage.rows("SELECT seq, attempts, error, payload FROM forebay.consumer_letters");
    assert_eq!(letters, [["2", "3", "it was failed", "{\"n\": 1}"]]);
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.retries"), [["0"]]);
    // Another group is not concerned; given back and given up at once.
    let taken = messages(&pop(&mut client, "tasks", "batch=2&consumerGroup=h").unwrap());
    let answers = ack(&mut client, &taken[..1], "retry", Some("h"));
    assert!(answers[0]["success"] == true && answers[0]["leaseReleased"] == true, "{answers:?}");
    let taken = pop(&mut client, "tasks", "batch=3&consumerGroup=h").unwrap();
    assert_eq!((numbers(&taken), &taken["messages"][0]["retryCount"]), (vec![0, 1, 2], &json!(0)));
    assert_eq!(ack(&mut client, &messages(&taken)[..2], "dlq", Some("h"))[0]["dlq"], true);
    assert!(all_count(&ack(&mut client, &messages(&taken)[2..], "completed", Some("h"))));
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.consumer_letters"), [["3"]]);
    assert_eq!(pop(&mut client, "tasks", "consumerGroup=h"), None);
}

#[test]
fn the_oldest_clients_get_objects_and_name_no_partition() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    push(&mut client, "old", "p", 0..4);
    let taken = messages(&pop(&mut client, "old", "batch=4").unwrap());
    let mut single = |message: &Value, status: &str, lease: &Value| {
        let body = json!({"transactionId": message["transactionId"], "status": status, "leaseId": lease,
                          "error": null, "consumerGroup": null});
        client.post("/api/v1/ack", body.to_string().as_bytes()).unwrap()
    };
    let answer = single(&taken[0], "completed", &taken[0]["leaseId"]);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("completed")));
    assert_eq!(single(&taken[1], "failed", &Value::Null).json()["status"], "failed_dlq");
    let refused = single(&taken[2], "completed", &json!("0190f5fe-0000-7000-8000-000000000000"));
    assert_eq!((refused.status, refused.code()), (409, "invalid_lease".into()));
    let unknown = single(&json!({"transactionId": "nothing"}), "completed", &taken[0]["leaseId"]);
    assert_eq!((unknown.status, unknown.code()), (404, "message_not_found".into()));
    let items: Vec<Value> = taken[2..]
        .iter()
        .map(|message| json!({"transactionId": message["transactionId"], "status": "completed"}))
        .collect();
    let body = json!({"acknowledgments": items, "consumerGroup": null});
    let answer = client.post("/api/v1/ack/batch", body.to_string().as_bytes()).unwrap().json();
    assert_eq!(answer["processed"], 2);
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == "completed"), "{answer}");
    for (path, body, text) in [
        ("/api/v1/ack", "{}", "transactionId is required"),
        ("/api/v1/ack/batch", "{}", "acknowledgments array is required"),
        ("/api/v1/ack/batch", r#"{"acknowledgments":[{}]}"#, "transactionId string"),
        ("/api/v1/ack", r#"{"transactionId":"t","status":"later"}"#, "status"),
    ] {
        let answer = client.post(path, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().contains(text), "{}", answer.error());
    }
}

#[test]
fn a_waiting_pop_is_woken_by_the_commit_an_ack_or_the_end_of_a_lease_and_else_gets_204_at_its_time() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let wait = |path: &'static str| {
        let mut waiting = stage.daemon.connect();
        std::thread::spawn(move || {
            let start = Instant::now();
            (pop(&mut waiting, path, "wait=true&timeout=20000&batch=9"), start.elapsed())
        })
    };
    // Neither the queue nor its partition exist yet.
    let (any, named) = (wait("waited"), wait("waited/partition/late"));
    std::thread::sleep(Duration::from_millis(300));
    push(&mut client, "waited", "p", 0..1);
    let (taken, _) = any.join().unwrap();
    assert_eq!(numbers(&taken.unwrap()), [0]);
    push(&mut client, "waited", "late", 1..3);
    let (taken, _) = named.join().unwrap();
    let taken = taken.unwrap();
    assert_eq!(numbers(&taken), [1, 2]);
    // Leased: the ack of a part with a release lets the next one have the rest.
    let next = wait("waited/partition/late");
    std::thread::sleep(Duration::from_millis(200));
    let taken = messages(&taken);
    assert!(all_count(&ack(&mut client, &taken[..1], "completed", None)));
    assert!(all_count(&ack(&mut client, &taken[1..], "retry", None)));
    let (again, _) = next.join().unwrap();
    assert_eq!(numbers(&again.unwrap()), [2]);
    // Leases of a second end by themselves, unless they are extended.
    // Of a queue that has consumers already.
    let options = json!({"queue": "waited", "options": {"leaseTime": 1}});
    assert_eq!(client.post("/api/v1/configure", options.to_string().as_bytes()).unwrap().status, 200);
    push(&mut client, "waited", "short", 3..4);
    let path = "waited/partition/short";
    let taken = pop(&mut client, path, "consumerGroup=s").unwrap();
    let lease = taken["leaseId"].as_str().unwrap().to_owned();
    let start = Instant::now();
    let extend = format!("/api/v1/lease/{lease}/extend");
    let answer = client.post(&extend, b"{\"seconds\": 3}").unwrap();
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)));
    let again = pop(&mut client, path, "consumerGroup=s&wait=true&timeout=20000").unwrap();
    assert!(start.elapsed() > Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(numbers(&again), [3]);
    assert_ne!(again["leaseId"].as_str().unwrap(), lease);
    assert_eq!(client.post(&extend, b"").unwrap().code(), "lease_not_found");
    assert_eq!(ack(&mut client, &messages(&taken), "completed", Some("s"))[0]["error"], "Invalid or expired lease");
    let start = Instant::now();
    assert_eq!(pop(&mut client, "waited/partition/none", "wait=true&timeout=300"), None);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_consumer_that_left_gets_nothing_leased_and_an_ending_daemon_answers_204() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    push(&mut client, "left", "p", 0..1);
    assert_eq!(numbers(&pop(&mut client, "left", "autoAck=true").unwrap()), [0]);
    for _ in 0..5 {
        let mut leaving = stage.daemon.connect();
        leaving.send(b"GET /api/v1/pop/queue/left?wait=true HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_until("their connections are closed", || stage.daemon.buffers()["connections"].as_u64() <= Some(2));
    std::thread::sleep(Duration::from_millis(300));
    push(&mut client, "left", "p", 1..2);
    assert_eq!(numbers(&pop(&mut client, "left", "wait=true").unwrap()), [1]);
    let mut waiting = stage.daemon.connect();
    waiting.send(b"GET /api/v1/pop/queue/none?wait=true&timeout=60000 HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let daemon = stage.daemon;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(waiting.receive(false).unwrap().status, 204);
}

#[test]
fn during_an_outage_pops_are_held_and_answered_204_and_afterwards_all_goes_on() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    daemon.wait_until_drained();
    let mut client = daemon.connect();
    push(&mut client, "away", "p", 0..4);
    let taken = messages(&pop(&mut client, "away", "batch=2").unwrap());
    cluster.stop(StopMode::Fast, Duration::from_secs(60)).unwrap();
    for query in ["wait=false", "wait=true&timeout=500", "consumerGroup=new&wait=true&timeout=500", "consumerGroup=new"]
    {
        assert_eq!(pop(&mut client, "away", query), None, "{query}");
    }
    let body = json!({"acknowledgments": [{"transactionId": taken[0]["transactionId"], "partitionId": taken[0]["partitionId"],
                      "leaseId": taken[0]["leaseId"], "status": "failed"}]});
    // One of them needs an answer of PostgreSQL's at once, the other one waits for it for a while.
    for body in [body.to_string(), body.to_string().replace("failed", "completed")] {
        let refused = client.post("/api/v1/ack/batch", body.as_bytes()).unwrap();
        assert_eq!((refused.status, refused.code()), (503, "postgres_away".into()));
        assert!(refused.error().contains("connection"), "{}", refused.error());
    }
    let mut waiting = daemon.connect();
    waiting.send(b"GET /api/v1/pop/queue/away/partition/p?wait=true&timeout=60000&batch=9&consumerGroup=x HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    cluster.start().unwrap();
    assert_eq!(numbers(&waiting.receive(false).unwrap().json()), [0, 1, 2, 3]);
    wait_until("acks go on", || {
        let body = body.to_string().replace("failed", "completed");
        client.post("/api/v1/ack/batch", body.as_bytes()).unwrap().status == 200
    });
    assert!(all_count(&ack(&mut client, &taken, "completed", None)));
    assert_eq!(numbers(&pop(&mut client, "away", "batch=9&wait=true").unwrap()), [2, 3]);
}

#[test]
fn many_consumers_of_many_partitions_get_each_message_once_and_in_order_across_a_kill() {
    const PARTITIONS: u64 = 40;
    const MESSAGES: u64 = 50;
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dir = data_dir();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    let mut client = daemon.connect();
    for partition in 0..PARTITIONS {
        push(&mut client, "many", &format!("p{partition}"), 0..MESSAGES);
    }
    let consume = |daemon: &Daemon, most: usize| -> Vec<(String, u64)> {
        let consumers: Vec<_> = (0..8)
            .map(|_| {
                let mut client = daemon.connect();
                std::thread::spawn(move || {
                    let mut got = Vec::new();
                    while got.len() < most {
                        let Some(taken) = pop(&mut client, "many", "batch=7&wait=true&timeout=1000&consumerGroup=g")
                        else {
                            break;
                        };
                        let partition = taken["partition"].as_str().unwrap().to_owned();
                        assert!(all_count(&ack(&mut client, &messages(&taken), "completed", Some("g"))));
                        got.extend(numbers(&taken).into_iter().map(|n| (partition.clone(), n)));
                    }
                    got
                })
            })
            .collect();
        consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
    };
    let mut got = consume(&daemon, 60);
    daemon.kill9();
    let daemon = Daemon::start(dir.path(), &cluster.url(), &["--cores", "2"]);
    got.extend(consume(&daemon, usize::MAX));
    let mut by_partition: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (partition, n) in &got {
        by_partition.entry(partition).or_default().push(*n);
    }
    assert_eq!(by_partition.len() as u64, PARTITIONS);
    for (partition, numbers) in by_partition {
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "{partition}: once each");
        assert!(distinct.into_iter().eq(0..MESSAGES), "{partition}: all");
    }
}

#[test]
fn two_daemons_on_one_database_share_the_work_and_see_what_was_pushed_at_the_other() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let dirs = [data_dir(), data_dir()];
    let daemons = dirs.each_ref().map(|dir| Daemon::start(dir.path(), &cluster.url(), &["--cores", "1"]));
    daemons.iter().for_each(Daemon::wait_until_drained);
    let [mut one, mut other] = daemons.each_ref().map(Daemon::connect);
    push(&mut one, "shared", "p", 0..1);
    assert_eq!(numbers(&pop(&mut other, "shared", "autoAck=true").unwrap()), [0]);
    std::thread::sleep(Duration::from_secs(2));
    for n in 1..10 {
        push(&mut one, "shared", "p", n..n + 1);
        assert_eq!(numbers(&pop(&mut other, "shared", "autoAck=true").unwrap()), [n]);
    }
    let waiting = std::thread::spawn(move || {
        let taken = pop(&mut other, "shared", "wait=true&timeout=20000");
        (taken.unwrap(), other)
    });
    std::thread::sleep(Duration::from_millis(1500));
    push(&mut one, "shared", "q", 10..11);
    let (taken, _other) = waiting.join().unwrap();
    assert_eq!(numbers(&taken), [10]);
    // An ack at the daemon that did not hand the lease out.
    assert!(all_count(&ack(&mut one, &messages(&taken), "completed", None)));
    assert_eq!(pop(&mut one, "shared", ""), None);
}

#[test]
fn consumers_that_read_nothing_hold_a_bounded_amount_of_memory_and_others_go_on_once_they_have_left() {
    const CROWD: u64 = 60;
    const PAYLOAD_BYTES: usize = 6 << 20;
    /// Answers that are not taken, the budgets of two cores, statements under way, and what the allocator keeps.
    const MEMORY_MAX: u64 = (32 + 2 * 32 + 48) << 20;
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let text = "x".repeat(PAYLOAD_BYTES);
    for n in 0..CROWD {
        let item = json!({"queue": "big", "partition": n.to_string(), "payload": {"n": n, "text": text}});
        assert_eq!(client.push(&json!({"items": [item], "qos0": true})).unwrap().status, 201);
    }
    stage.daemon.wait_until_drained();
    let before = stage.daemon.memory_bytes();
    let crowd: Vec<Client> = (0..CROWD)
        .map(|_| {
            let mut hog = stage.daemon.connect();
            hog.send(b"GET /api/v1/pop/queue/big?autoAck=true&wait=true HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            hog
        })
        .collect();
    let mut peak = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        peak = peak.max(stage.daemon.memory_bytes().saturating_sub(before));
    }
    println!("{} MiB more", peak >> 20);
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
    drop(crowd);
    let mut numbers_left = BTreeSet::new();
    while let Some(taken) = pop(&mut client, "big", "autoAck=true&wait=true&timeout=2000") {
        numbers_left.extend(numbers(&taken));
    }
    assert!(!numbers_left.is_empty(), "what was not taken for the crowd is there for others");
}

#[test]
fn a_queue_is_configured_and_says_what_it_is_like() {
    let stage = Stage::shared();
    let mut client = stage.daemon.connect();
    let mut configure = |body: Value| client.post("/api/v1/configure", body.to_string().as_bytes()).unwrap();
    let body = json!({"queue": "made", "namespace": "n", "task": null, "options": {"leaseTime": 7, "priority": -1, "partitions": 3}});
    let answer = configure(body);
    assert_eq!(answer.status, 200, "{}", answer.error());
    let made = answer.json();
    assert_eq!((&made["configured"], &made["namespace"], &made["task"]), (&json!(true), &json!("n"), &Value::Null));
    let option = |answer: &Value, name: &str| answer["options"][name].clone();
    assert_eq!(
        (option(&made, "leaseTime"), option(&made, "priority"), option(&made, "ttl")),
        (json!(7), json!(-1), json!(3600))
    );
    assert_eq!(made["options"].as_object().unwrap().len(), 15);
    let merged = configure(json!({"queue": "made", "mode": "merge", "options": {"retryLimit": 0}})).json();
    assert_eq!(
        (option(&merged, "leaseTime"), option(&merged, "retryLimit"), &merged["namespace"]),
        (json!(7), json!(0), &json!("n"))
    );
    let replaced = configure(json!({"queue": "made", "options": {"retryLimit": 1}})).json();
    assert_eq!((option(&replaced, "leaseTime"), &replaced["namespace"]), (json!(300), &Value::Null));
    assert_eq!((&replaced["queueId"], &replaced["partitionId"]), (&made["queueId"], &made["partitionId"]));
    for (body, text) in [
        (json!({}), "queue is required"),
        (json!({"queue": 1}), "queue is required"),
        (json!({"queue": "q", "options": {"leaseTime": "x"}}), "options.leaseTime: must be a whole number"),
        (json!({"queue": "q", "options": {"retentionEnabled": 1}}), "must be true or false"),
        (json!({"queue": "q", "mode": "other"}), "mode"),
    ] {
        let answer = configure(body);
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(text), "{}", answer.error());
    }
}

#[test]
fn takes_find_cursors_by_their_key_also_where_the_table_was_empty_when_they_were_planned() {
    const PARTITIONS: u64 = 300;
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    let lines: Vec<Value> =
        (0..PARTITIONS).map(|n| json!({"queue": "planned", "partition": n.to_string(), "payload": {"n": n}})).collect();
    assert_eq!(client.push(&json!({"items": lines})).unwrap().status, 201);
    stage.daemon.wait_until_drained();
    // PostgreSQL knows that it is empty.
    stage.cluster.psql("VACUUM forebay.cursors").unwrap();
    let drain = |client: &mut Client, group: &str| {
        let query = format!("autoAck=true&consumerGroup={group}");
        let popped = (0..PARTITIONS).filter(|_| pop(client, "planned", &query).is_some()).count();
        assert_eq!(popped as u64, PARTITIONS);
    };
    let read = || {
        // Sessions tell what they read after a second.
        std::thread::sleep(Duration::from_millis(2500));
        let sql = "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE indexrelname = 'cursors_pkey'";
        stage.rows(sql)[0][0].parse::<u64>().unwrap()
    };
    drain(&mut client, "first");
    let before = read();
    drain(&mut client, "second");
    let each = (read() - before) / PARTITIONS;
    // A take that reads all reads some hundred of them.
    assert!(each < 50, "{each} entries of the index for each pop");
}

#[test]
fn a_pop_that_postgresql_refuses_is_answered_in_its_time_and_goes_on_once_it_does_not() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    push(&mut client, "refused", "p", 0..2);
    let rule = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$; \
                CREATE TRIGGER refuse BEFORE UPDATE ON forebay.cursors FOR EACH ROW EXECUTE FUNCTION refuse()";
    stage.cluster.psql(rule).unwrap();
    assert_eq!(pop(&mut client, "refused", ""), None);
    assert_eq!(pop(&mut client, "refused/partition/p", ""), None);
    assert_eq!(pop(&mut client, "refused", "wait=true&timeout=500"), None);
    assert_eq!(stage.daemon.log().matches("queue_refused").count(), 1, "{}", stage.daemon.log());
    stage.cluster.psql("DROP TRIGGER refuse ON forebay.cursors").unwrap();
    assert_eq!(numbers(&pop(&mut client, "refused", "batch=2&wait=true").unwrap()), [0, 1]);
}

#[test]
fn a_lease_over_deleted_messages_ends_with_those_that_are_there() {
    let stage = Stage::start(&[]);
    let mut client = stage.daemon.connect();
    push(&mut client, "holes", "p", 0..20);
    stage.cluster.psql("DELETE FROM forebay.messages WHERE seq BETWEEN 3 AND 5 OR seq = 10").unwrap();
    let taken = pop(&mut client, "holes", "batch=10").unwrap();
    assert_eq!(numbers(&taken), [0, 1, 5, 6, 7, 8]);
    // In two parts, the later one first.
    let taken = messages(&taken);
    assert!(all_count(&ack(&mut client, &taken[3..], "completed", None)));
    assert!(all_count(&ack(&mut client, &taken[..3], "completed", None)));
    let taken = pop(&mut client, "holes", "batch=20").unwrap();
    assert_eq!(numbers(&taken), (10..20).collect::<Vec<_>>());
}
