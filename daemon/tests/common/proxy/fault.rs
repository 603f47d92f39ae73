//! What the proxy does to whom and when, decided message by message.

use super::wire::{self, Complaint};
use std::collections::VecDeque;

/// How the server says that a COMMIT was carried out.
const COMMITTED: &[u8] = b"COMMIT\0";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// Where a fault strikes. All counts begin with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub from: From,
    pub point: Point,
    pub since: Since,
}

/// The point in what one side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the byte of that number.
    Byte(u64),
    /// At the message of that number. Of the client's, those that only end a flight (Sync, Flush) do not count.
    Message(u64),
    /// At the first message with that tag.
    Tag(u8),
    /// At the COMMIT, or at its answer.
    Commit,
}

/// From where on is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From the first word of a drain transaction, which is known by its COPY: what is exchanged without one, and ends
    /// outside of a transaction, begins the count anew.
    Transaction,
    /// From when the fault was armed, on whatever connection.
    Armed,
}

/// What happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The connection ends. Nothing behind the place arrives.
    Cut(Manner),
    /// This side's words are held back until [`Proxy::release`](super::Proxy::release).
    Hold,
    /// The server fails at this statement of the client's, and says this: it really does, so the transaction is gone.
    Fail(Complaint),
    /// Before the client's statement arrives the server says this and closes.
    Close(Complaint),
    /// The server says this before its own message.
    Insert(Vec<u8>),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reset; what the other side is saying is lost with it.
    Reset,
    /// Closed; what the other side still has to say arrives before it is closed as well.
    Close,
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub place: Place,
    pub deed: Deed,
}

/// What became of the faults that were armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Some are still to come.
    Armed,
    /// All struck.
    Struck,
    /// A drain transaction went by without one that was to strike.
    WentBy,
}

/// What one connection is in the midst of.
#[derive(Default)]
pub struct Progress {
    /// Flights of the client's that the server has not ended.
    flights: u64,
    copies: bool,
    committed: bool,
    /// How far the count for the fault of that generation is here.
    counted: u64,
    generation: u64,
    /// Names of prepared statements that commit.
    commits: Vec<Vec<u8>>,
    /// What the server's next error is to say.
    pub complaint: Option<Complaint>,
}

/// The faults to come.
#[derive(Default)]
pub struct Plan {
    faults: VecDeque<Fault>,
    /// How far the count for the first of them is, over all connections.
    counted: u64,
    /// Changes whenever another fault is the first.
    generation: u64,
    pub outcome: Option<Outcome>,
    /// Drain transactions that went through since the proxy began.
    pub transactions: u64,
    /// Messages seen since the proxy began, by their side.
    pub messages: [u64; 2],
}

/// What to do with a message.
pub enum Act {
    Forward,
    /// Only so many bytes of it, then the deed.
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

    /// Sees a message before it goes on.
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

    /// Learns from what the server says where the connection is.
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
    /// Notes a statement that is prepared under a name, and commits.
    fn note_commits(&mut self, from: From, message: &[u8]) {
        if from == From::Client && message[0] == b'P' && holds_commit(message) {
            let name = name_at(&message[5..]);
            if !name.is_empty() {
                self.commits.push(name.to_vec());
            }
        }
    }

    /// Whether the message asks for the COMMIT of a transaction, or says that it was carried out.
    fn is_commit(&self, from: From, message: &[u8]) -> bool {
        match (from, message[0]) {
            (From::Server, b'C') => message[5..].starts_with(COMMITTED),
            (From::Client, b'Q') => holds_commit(message),
            (From::Client, b'P') => holds_commit(message) && name_at(&message[5..]).is_empty(),
            // Behind the name of the portal stands that of the statement.
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

/// The text that `bytes` begin with, up to its zero.
fn name_at(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Deed {
    /// The words in place of the client's message that make the server fail, if the message is one to fail at. What of a
    /// flight of prepared statements follows the failure is passed over by the server up to its end.
    pub fn failing(message: &[u8]) -> Vec<u8> {
        match message[0] {
            b'Q' => wire::failing_statement(true),
            b'd' | b'c' => wire::copy_fail(),
            _ => [wire::failing_statement(false), message.to_vec()].concat(),
        }
    }
}
