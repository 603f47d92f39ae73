//! The plan of the proxy's faults: it decides for each message whether a fault strikes.

use super::wire::{self, Complaint};
use std::collections::VecDeque;

/// The server's reply to a successful COMMIT.
const COMMITTED: &[u8] = b"COMMIT\0";

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// Where a fault strikes. All counts start at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub from: From,
    pub point: Point,
    pub since: Since,
}

/// The point in the byte stream of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the byte with this index.
    Byte(u64),
    /// At the message with this index. Client messages that only end a flight (Sync, Flush) do not count.
    Message(u64),
    /// At the first message with that tag.
    Tag(u8),
    /// At the COMMIT, or at the reply to it.
    Commit,
}

/// Where counting starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// At the start of a drain transaction, which is recognized by its COPY. An exchange that has no COPY and ends
    /// outside a transaction resets the count.
    Transaction,
    /// When the fault is armed, on any connection.
    Armed,
}

/// The effect of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The connection ends. Nothing after the place arrives.
    Cut(ResponseOptions),
    /// The messages of this side are held back until [`Proxy::release`](super::Proxy::release).
    Hold,
    /// The server fails at this client statement with this error. The failure is real, so the transaction is aborted.
    Fail(Complaint),
    /// The server sends this error before the client's statement arrives, then closes the connection.
    Close(Complaint),
    /// The server sends these bytes before its own message.
    Insert(Vec<u8>),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseOptions {
    /// Reset. Bytes that the other side is sending are lost.
    Reset,
    /// Closed. Bytes that the other side is sending still arrive before it is closed as well.
    Close,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub place: Place,
    pub deed: Deed,
}

/// The state of the armed faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Some have not struck yet.
    Armed,
    /// All have struck.
    Struck,
    /// A drain transaction ended, and a fault for it did not strike.
    WentBy,
}

/// The protocol state of one connection.
#[derive(Default)]
pub struct Progress {
    /// Client flights that the server has not completed.
    flights: u64,
    copies: bool,
    committed: bool,
    /// The progress of the count for the fault of `generation`, on this connection.
    counted: u64,
    generation: u64,
    /// Names of the prepared statements that commit.
    commits: Vec<Vec<u8>>,
    /// The error to put in place of the server's next one.
    pub complaint: Option<Complaint>,
}

/// The faults that have not struck.
#[derive(Default)]
pub struct Plan {
    faults: VecDeque<Fault>,
    /// The progress of the count for the first fault, over all connections.
    counted: u64,
    /// Changes whenever another fault becomes the first.
    generation: u64,
    pub outcome: Option<Outcome>,
    /// Drain transactions completed since the proxy started.
    pub transactions: u64,
    /// Messages seen since the proxy started, by side.
    pub messages: [u64; 2],
}

/// The decision about a message.
pub enum Act {
    Forward,
    /// Forward this many bytes of it, then apply the fault.
    Strike {
        keep: usize,
        deed: Deed,
    },
}

impl Plan {
    pub fn arm(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults = faults.into_iter().collect();
        self.begin_count();
        self.outcome = Some(Outcome::Armed);
    }

    fn begin_count(&mut self) {
        self.counted = 0;
        self.generation += 1;
    }

    /// Decides about a message before it is forwarded.
    pub fn on_message(&mut self, from: From, message: &[u8], progress: &mut Progress) -> Act {
        self.messages[from as usize] += 1;
        if from == From::Client && matches!(message[0], b'Q' | b'S') {
            progress.flights += 1;
        }
        progress.note_commits(from, message);
        let act = self.strike(from, message, progress);
        if from == From::Server && matches!(act, Act::Forward | Act::Strike { deed: Deed::Insert(_), .. }) {
            self.follow(message, progress);
        }
        act
    }

    fn strike(&mut self, from: From, message: &[u8], progress: &mut Progress) -> Act {
        if progress.generation != self.generation {
            (progress.counted, progress.generation) = (0, self.generation);
        }
        let Some(fault) = self.faults.front().filter(|fault| fault.place.from == from) else { return Act::Forward };
        let is_commit = progress.is_commit(from, message);
        let counted = match fault.place.since {
            Since::Transaction => &mut progress.counted,
            Since::Armed => &mut self.counted,
        };
        let ends_flight = from == From::Client && matches!(message[0], b'S' | b'H');
        let keep = match fault.place.point {
            Point::Byte(at) => {
                let before = *counted;
                *counted += message.len() as u64;
                (*counted > at).then(|| (at - before) as usize)
            }
            Point::Message(_) if ends_flight => None,
            Point::Message(at) => {
                *counted += 1;
                (*counted > at).then_some(0)
            }
            Point::Tag(tag) => (message[0] == tag).then_some(0),
            Point::Commit => is_commit.then_some(0),
        };
        let Some(keep) = keep else { return Act::Forward };
        let Some(Fault { deed, .. }) = self.faults.pop_front() else { return Act::Forward };
        self.begin_count();
        if self.faults.is_empty() {
            self.outcome = Some(Outcome::Struck);
        }
        Act::Strike { keep, deed }
    }

    /// Updates the connection's state from a server message.
    fn follow(&mut self, message: &[u8], progress: &mut Progress) {
        match message[0] {
            b'G' => progress.copies = true,
            b'C' if message[5..].starts_with(COMMITTED) => progress.committed = true,
            b'Z' => {
                progress.flights = progress.flights.saturating_sub(1);
                if progress.flights > 0 || message.get(5) != Some(&b'I') {
                    return;
                }
                if progress.copies && progress.committed {
                    self.transactions += 1;
                    if !self.faults.is_empty() {
                        self.faults.clear();
                        self.outcome = Some(Outcome::WentBy);
                    }
                }
                (progress.copies, progress.committed, progress.counted) = (false, false, 0);
            }
            _ => {}
        }
    }
}

impl Progress {
    /// Records a prepared statement that commits, by its name.
    fn note_commits(&mut self, from: From, message: &[u8]) {
        if from == From::Client && message[0] == b'P' && holds_commit(message) {
            let name = name_at(&message[5..]);
            if !name.is_empty() {
                self.commits.push(name.to_vec());
            }
        }
    }

    /// Whether a client message requests the COMMIT of a transaction, or a server message confirms it.
    fn is_commit(&self, from: From, message: &[u8]) -> bool {
        match (from, message[0]) {
            (From::Server, b'C') => message[5..].starts_with(COMMITTED),
            (From::Client, b'Q') => holds_commit(message),
            (From::Client, b'P') => holds_commit(message) && name_at(&message[5..]).is_empty(),
            // The statement's name follows the portal's name.
            (From::Client, b'B') => {
                let portal = name_at(&message[5..]);
                self.commits.iter().any(|name| name == name_at(&message[5 + portal.len() + 1..]))
            }
            _ => false,
        }
    }
}

fn holds_commit(message: &[u8]) -> bool {
    message.windows(6).any(|window| window.eq_ignore_ascii_case(b"COMMIT"))
}

/// The text at the start of `bytes`, up to its terminating zero.
fn name_at(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Deed {
    /// The bytes to send in place of the client's message, so that the server fails. In a flight of prepared
    /// statements, the server skips everything after the failure until the end of the flight.
    pub fn failing(message: &[u8]) -> Vec<u8> {
        match message[0] {
            b'Q' => wire::failing_statement(true),
            b'd' | b'c' => wire::copy_fail(),
            _ => [wire::failing_statement(false), message.to_vec()].concat(),
        }
    }
}
