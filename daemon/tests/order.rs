//! Order and batching: pushes keep their order across cores and buffering, and they share drain transactions.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    Client, Daemon,
    load::{self, Load, Spec},
    stage::Stage,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// The maximum number of connections to open until every core has one. The kernel spreads them by hash.
const CONNECTIONS_MAX: usize = 200;

/// Records appended to each lane.
fn appended(daemon: &Daemon) -> Vec<u64> {
    let buffers = daemon.buffers();
    buffers["lanes"].as_array().unwrap().iter().map(|lane| lane["appendedOrdinal"].as_u64().unwrap()).collect()
}

/// One connection to each of two cores. The lane of a push through it identifies the core.
fn a_connection_to_each_core(daemon: &Daemon) -> [Client; 2] {
    let mut found: [Option<Client>; 2] = [None, None];
    for _ in 0..CONNECTIONS_MAX {
        let mut client = daemon.connect();
        let before = appended(daemon);
        let body = json!({"items": [{"queue": "which core", "payload": 1}], "qos0": true});
        assert_eq!(client.push(&body).unwrap().status, 201);
        let after = appended(daemon);
        assert_eq!(before.len(), 2);
        let lane = usize::from(before[0] == after[0]);
        assert_eq!(after[lane], before[lane] + 1);
        found[lane].get_or_insert(client);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(|client| client.expect("connections are spread over both cores"))
}

/// Pushes `count` messages alternately over both cores, plain and buffered, each after the reply to the previous one.
fn push_alternating(clients: &mut [Client; 2], queue: &str, count: u64) {
    for n in 0..count {
        let item = json!({"queue": queue, "payload": n});
        let body = match n % 7 {
            // From each core to each core, plain after buffered and buffered after plain.
            0 | 3 => json!({"items": [item]}),
            1 | 4 => json!({"items": [item], "bufferMs": 1000}),
            _ => json!({"items": [item], "bufferMs": 5, "bufferMax": 10}),
        };
        let response = clients[(n % 2) as usize].push(&body).unwrap();
        assert_eq!(response.status, 201);
    }
}

fn check_order(stage: &Stage, queue: &str, count: u64) {
    let sql = format!("SELECT payload FROM forebay.message_log WHERE queue = '{queue}' ORDER BY seq");
    let numbers: Vec<u64> = stage.rows(&sql).iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers.len() as u64, count);
    let wrong = numbers.iter().zip(0..).find(|(stored, pushed)| *stored != pushed);
    assert_eq!(wrong, None, "(stored, pushed)");
}

#[test]
fn ten_thousand_pushes_from_two_cores_one_after_the_other_s_answer_are_never_out_of_order() {
    let stage = Stage::start(&[]);
    let mut clients = a_connection_to_each_core(&stage.daemon);
    let before = appended(&stage.daemon);
    push_alternating(&mut clients, "turns", 10_000);
    stage.daemon.wait_until_drained();
    let after = appended(&stage.daemon);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [5000, 5000], "both lanes took their half");
    check_order(&stage, "turns", 10_000);
}

#[test]
fn case_53_the_order_between_two_cores_holds_across_an_outage_in_the_midst_of_it() {
    let stage = Stage::start(&["--commit-wait-ms", "20"]);
    let mut clients = a_connection_to_each_core(&stage.daemon);
    push_alternating(&mut clients, "across", 700);
    std::thread::scope(|scope| {
        let outage = scope.spawn(|| {
            for _ in 0..2 {
                stage.cluster.stop(forebay_cluster::StopMode::Fast, common::PATIENCE).unwrap();
                stage.cluster.start().unwrap();
            }
        });
        let mut next = 700;
        while !outage.is_finished() {
            let item = json!({"queue": "across", "payload": next});
            let body = if next % 2 == 0 { json!({"items": [item]}) } else { json!({"items": [item], "qos0": true}) };
            let client = &mut clients[(next / 2 % 2) as usize];
            assert_eq!(client.push(&body).unwrap().status, 201);
            next += 1;
        }
        stage.daemon.wait_until_drained();
        check_order(&stage, "across", next);
    });
}

#[test]
fn a_thousand_single_buffered_pushes_cost_at_most_twelve_drain_transactions() {
    let stage = Stage::start(&[]);
    let before = stage.daemon.figure("drainTransactions");
    let started = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..4 {
            let mut client = stage.daemon.connect();
            scope.spawn(move || {
                for n in 0..250 {
                    let item = json!({"queue": "thrift", "payload": [connection, n]});
                    let body = json!({"items": [item], "bufferMs": 100, "bufferMax": 100});
                    assert_eq!(client.push(&body).unwrap().status, 201);
                }
            });
        }
    });
    let took = started.elapsed();
    stage.daemon.wait_until_drained();
    let transactions = stage.daemon.figure("drainTransactions") - before;
    // A round is due when 100 messages wait or one has waited for 100 ms. 1,000 messages make ten rounds of the first
    // kind. Rounds of the second kind are at least 100 ms apart, so more than one or two of them occur only on a
    // machine on which the pushes take long.
    let company = Duration::from_millis(100);
    let more = if took > 5 * company { took.as_millis() / company.as_millis() } else { 0 };
    println!("{transactions} drain transactions for 1,000 pushes in {took:?}");
    assert!(u128::from(transactions) <= 12 + more, "{transactions} drain transactions in {took:?}");
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.messages"), [["1000"]]);
}

#[test]
fn a_request_may_ask_for_less_company_than_the_next_and_each_gets_what_it_asked_for() {
    // By default, messages wait for an hour.
    let stage = Stage::start(&["--flush-ms", "3600000", "--flush-max", "1000000"]);
    let mut client = stage.daemon.connect();
    let mut push = |body| assert_eq!(client.push(&body).unwrap().status, 201);
    let item = json!({"queue": "company", "payload": 1});
    // A drain that starts takes everything at hand, so the test continues after its first round.
    push(json!({"items": [item]}));
    let before = stage.daemon.figure("drainTransactions");
    push(json!({"items": [item], "qos0": true}));
    push(json!({"items": [item], "bufferMs": 3_600_000, "bufferMax": 1_000_000}));
    assert_eq!((stage.daemon.figure("pending"), stage.daemon.figure("drainTransactions")), (2, before));
    // Three messages wait, and this one accepts at most that many.
    push(json!({"items": [item], "bufferMax": 3}));
    stage.daemon.wait_until_drained();
    push(json!({"items": [item], "qos0": true}));
    assert_eq!(stage.daemon.figure("pending"), 1);
    push(json!({"items": [item], "bufferMs": 1}));
    stage.daemon.wait_until_drained();
    push(json!({"items": [item], "qos0": true}));
    // A plain push does not wait, and it takes all earlier messages along.
    push(json!({"items": [item]}));
    assert_eq!(stage.daemon.figure("pending"), 0);
    assert_eq!(stage.rows("SELECT count(*) FROM forebay.messages"), [["8"]]);
}

#[test]
fn eight_producers_into_one_partition_are_each_in_their_own_order() {
    let stage = Stage::start(&[]);
    let spec = Spec { queue: "crowd", label: "c", producers: 8, partitions: 1, fill_bytes: 300 };
    let load = Load::start(&spec, stage.daemon.address);
    load.wait_for(4000);
    assert_eq!(load.refusals(), [""; 0]);
    let sent = load.stop();
    stage.daemon.wait_until_drained();
    assert!(load::check(&stage.cluster, &sent) >= 4000);
}
