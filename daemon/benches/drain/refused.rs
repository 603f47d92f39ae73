//! What refused rows cost beside good ones: the same messages, of which PostgreSQL takes all or none.

use crate::{
    Settings,
    backlog::scratch,
    bare::{self, Server},
    drain::Daemon,
    spread,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

pub(crate) const NAME: &str = "refused";

/// Messages of a round, in one request.
const MESSAGES: usize = 8000;

/// The most times as long that the refused ones may take.
const BAR: f64 = 3.0;

/// Rules that refuse each row, each in its way.
const RULES: [(&str, &[&str]); 2] = [
    (
        "a trigger that raises P0001",
        &[
            "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
            "CREATE TRIGGER no BEFORE INSERT ON forebay.messages FOR EACH ROW WHEN (NEW.payload ? 'bad') EXECUTE FUNCTION public.no()",
        ],
    ),
    ("a CHECK", &["ALTER TABLE forebay.messages ADD CONSTRAINT no CHECK (NOT payload ? 'bad')"]),
];

/// Carries out all rounds. Returns a table.
pub(crate) fn run(settings: &Settings) -> String {
    let server = Server::start();
    let mut table = format!(
        "| {MESSAGES} messages refused by | good ones, ms | refused ones, ms | ratio | bar | |\n|---|---|---|---|---|---|"
    );
    for (what, rule) in RULES {
        let (mut good, mut refused, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..settings.rounds {
            good.push(milliseconds(&server, rule, "good"));
            refused.push(milliseconds(&server, rule, "bad"));
            ratios.push(refused[round] / good[round]);
            eprintln!("  {what}, round {round}: {:.0} and {:.0} ms", good[round], refused[round]);
        }
        let range = |values: &[f64], digits: usize| {
            let (median, least, greatest) = spread(values);
            format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$})")
        };
        let verdict = if spread(&ratios).0 <= BAR { "met" } else { "missed" };
        table += &format!(
            "\n| {what} | {} | {} | {} | at most {BAR} | {verdict} |",
            range(&good, 0),
            range(&refused, 0),
            range(&ratios, 2)
        );
    }
    table
}

/// How long it takes until nothing is pending of messages with the member `name`, pushed to a daemon that has been at work.
fn milliseconds(server: &Server, rule: &[&str], name: &str) -> f64 {
    let url = server.fresh_database("refused");
    let dir = scratch();
    let daemon = Daemon::start(&dir.path().join("data"), &url, &[]);
    push(&daemon, &line("good", 0));
    daemon.wait_until_drained();
    bare::run(&url, rule);
    let lines: String = (0..MESSAGES).map(|n| line(name, n)).collect();
    let began = Instant::now();
    push(&daemon, &lines);
    daemon.wait_until_drained();
    let took = began.elapsed();
    let letters = if name == "bad" { MESSAGES } else { 0 };
    let kept = bare::run(&url, &["SELECT count(*) FROM forebay.messages", "SELECT count(*) FROM forebay.dead_letters"]);
    assert_eq!(kept, [letters.to_string()], "the rule refuses all of them or none");
    daemon.terminate();
    took.as_secs_f64() * 1000.0
}

fn line(name: &str, n: usize) -> String {
    format!("{{\"{name}\":{n},\"fill\":\"................................\"}}\n")
}

fn push(daemon: &Daemon, lines: &str) {
    let mut stream = TcpStream::connect(&daemon.address).unwrap();
    let head = format!(
        "POST /push/q HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
