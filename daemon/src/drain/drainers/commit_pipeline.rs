//! In which order rounds and their COMMITs are sent, and what becomes of a round: a state machine without I/O.
//!
//! While PostgreSQL carries out a round, the drainer takes the next one from the log. The COMMIT of the first round then
//! travels with the second round, which spares a round trip. The pipeline holds at most two rounds, in order. It says which
//! [`Effect`] is next; the drainer carries that out and reports an [`Event`]. A round leaves the pipeline in one of two ways:
//! it is delivered, once, in order, or it is given back to the log.
//!
//! | state | first round | second round | effect |
//! |---|---|---|---|
//! | `Away` | waits; its COMMIT may have been carried out | waits | `Connect` |
//! | `Idle` | none | none | `Take` |
//! | `Idle` | waits | none, or waits | `Send` |
//! | `Sent` | is sent | none; the log has more, and was not asked yet | `TakeAhead` |
//! | `Sent` | is sent | none, or waits | `AwaitRound` |
//! | `Finished` | needs only its COMMIT | waits, and can be sent at once | `Send`, behind the COMMIT |
//! | `Finished` | needs only its COMMIT | none, or has to wait | `SendCommit` |
//! | `CommitSent` | its COMMIT is sent | none, or waits | `AwaitCommit` |
//! | `NextSent` | its COMMIT is sent | is sent behind it | `AwaitCommit` |
//! | `RollingBack` | failed | fails with it | `RollBack` |
//! | `Stopped` | is rolled back | is rolled back, or waits | `Decide` |
//!
//! | state | event | next state | leaves the pipeline |
//! |---|---|---|---|
//! | `Away` | `SessionBegun` | `Idle` | delivered: the rounds that the checkpoint has reached; given back: the others, unless the first of them begins at the checkpoint |
//! | `Idle` | `RoundTaken` | `Idle` | |
//! | `Idle` | `NothingTaken` | `Idle` | |
//! | `Idle` | `RoundSent` | `Sent` | |
//! | `Idle` | `Failed` | `Stopped` | |
//! | `Sent` | `RoundTaken` | `Sent` | |
//! | `Sent` | `NothingTaken` | `Sent` | |
//! | `Sent` | `RoundFinished` | `Finished` | |
//! | `Sent` | `Failed` | `RollingBack` | |
//! | `Finished` | `RoundSent` | `NextSent` | |
//! | `Finished` | `CommitSent` | `CommitSent` | |
//! | `Finished` | `Failed` | `RollingBack` | |
//! | `CommitSent` | `CommitAnswered` | `Idle` | delivered: the first round |
//! | `CommitSent` | `Failed` | `RollingBack` | |
//! | `NextSent` | `CommitAnswered` | `Sent` | delivered: the first round |
//! | `NextSent` | `Failed` | `RollingBack` | |
//! | `RollingBack` | `RolledBack` | `Stopped` | |
//! | `Stopped` | `Repeat` | `Idle` | |
//! | `Stopped` | `TakeFewer` | `Idle` | given back: all rounds |
//! | every state but `Away` | `SessionEnded` | `Away` | |
//!
//! No other event can come in a state: the pipeline panics. `Away` forgets nothing. A COMMIT without an answer may have been
//! carried out, and only the checkpoint tells: it is moved in the transaction that holds the rows, and only from the value
//! that is known. So a round is never delivered twice, and none is skipped.

use std::collections::VecDeque;

/// Rounds that are held at once.
const ROUNDS_MAX: usize = 2;

/// What is under way between the drainer and PostgreSQL. The tables above say what each state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Idle,
    Sent { has_looked_ahead: bool },
    Finished,
    CommitSent,
    NextSent,
    RollingBack,
    Stopped,
}

/// What the drainer is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Open a session.
    Connect,
    /// Take a round from the log.
    Take,
    /// Take a round from the log while another one is under way.
    TakeAhead,
    /// Send the [round](CommitPipeline::round_to_send) that waits.
    Send {
        /// With the COMMIT of the first round in front of it.
        is_behind_commit: bool,
    },
    /// Wait until the first round needs only its COMMIT.
    AwaitRound,
    /// Send the COMMIT of the first round alone.
    SendCommit,
    /// Wait for the answer to the COMMIT of the first round.
    AwaitCommit,
    /// Roll back all that is under way.
    RollBack,
    /// Decide what follows from the failure.
    Decide,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event<R> {
    /// A session was opened, and its checkpoint read.
    SessionBegun {
        /// Number of rounds, from the first on, that the checkpoint has reached.
        reached: usize,
        /// Whether the next round begins at the checkpoint.
        is_next: bool,
    },
    /// A round was taken from the log.
    RoundTaken(R),
    /// The log has no round at present.
    NothingTaken,
    /// The round that waited was sent.
    RoundSent,
    /// The first round needs only its COMMIT.
    RoundFinished,
    /// The COMMIT of the first round was sent alone.
    CommitSent,
    /// The first round is committed.
    CommitAnswered,
    /// PostgreSQL refused the first round; the session stays open.
    Failed,
    /// Nothing is under way any more, and no transaction is open.
    RolledBack,
    /// The rounds are to be sent again.
    Repeat,
    /// The records are to be taken again, in smaller rounds.
    TakeFewer,
    /// The connection was lost, or the session was given up.
    SessionEnded,
}

/// The rounds that leave the pipeline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Output<R> {
    /// Committed; in order.
    pub(super) delivered: Vec<R>,
    /// To be taken from the log again; in order.
    pub(super) given_back: Vec<R>,
}

/// The rounds of one drainer on their way into PostgreSQL.
pub(super) struct CommitPipeline<R> {
    state: State,
    /// In order; at most [`ROUNDS_MAX`].
    rounds: VecDeque<R>,
}

impl<R> CommitPipeline<R> {
    /// Without a session and without a round.
    pub(super) fn new() -> Self {
        Self { state: State::Away, rounds: VecDeque::with_capacity(ROUNDS_MAX) }
    }

    /// What the drainer is to do next. `is_more_left` says whether the log is known to have another round, and `has_to_wait`
    /// whether a round can only be sent while nothing is under way.
    pub(super) fn effect(&self, is_more_left: bool, has_to_wait: impl FnOnce(&R) -> bool) -> Effect {
        match self.state {
            State::Away => Effect::Connect,
            State::Idle if self.rounds.is_empty() => Effect::Take,
            State::Idle => Effect::Send { is_behind_commit: false },
            State::Sent { has_looked_ahead: false } if is_more_left && self.rounds.len() < ROUNDS_MAX => {
                Effect::TakeAhead
            }
            State::Sent { .. } => Effect::AwaitRound,
            State::Finished if self.rounds.get(1).is_some_and(|next| !has_to_wait(next)) => {
                Effect::Send { is_behind_commit: true }
            }
            State::Finished => Effect::SendCommit,
            State::CommitSent | State::NextSent => Effect::AwaitCommit,
            State::RollingBack => Effect::RollBack,
            State::Stopped => Effect::Decide,
        }
    }

    /// Notes what has happened.
    ///
    /// # Panics
    /// If the event cannot come in this state.
    pub(super) fn on(&mut self, event: Event<R>) -> Output<R> {
        let mut output = Output { delivered: Vec::new(), given_back: Vec::new() };
        self.state = match (self.state, event) {
            (State::Away, Event::SessionBegun { reached, is_next }) => {
                output.delivered.extend(self.rounds.drain(..reached));
                if !is_next {
                    output.given_back.extend(self.rounds.drain(..));
                }
                State::Idle
            }
            (State::Idle, Event::RoundTaken(round)) => {
                assert!(self.rounds.is_empty(), "a round is taken once the one before has left");
                self.rounds.push_back(round);
                State::Idle
            }
            (State::Idle, Event::NothingTaken) => State::Idle,
            (State::Idle, Event::RoundSent) => {
                assert!(!self.rounds.is_empty(), "a round was sent");
                State::Sent { has_looked_ahead: false }
            }
            (State::Sent { .. }, Event::RoundTaken(round)) => {
                assert_eq!(self.rounds.len(), 1, "one round is taken ahead");
                self.rounds.push_back(round);
                State::Sent { has_looked_ahead: true }
            }
            (State::Sent { .. }, Event::NothingTaken) => State::Sent { has_looked_ahead: true },
            (State::Sent { .. }, Event::RoundFinished) => State::Finished,
            (State::Finished, Event::RoundSent) => {
                assert_eq!(self.rounds.len(), ROUNDS_MAX, "the second round was sent");
                State::NextSent
            }
            (State::Finished, Event::CommitSent) => State::CommitSent,
            (State::CommitSent, Event::CommitAnswered) => {
                output.delivered.extend(self.rounds.pop_front());
                State::Idle
            }
            (State::NextSent, Event::CommitAnswered) => {
                output.delivered.extend(self.rounds.pop_front());
                State::Sent { has_looked_ahead: false }
            }
            (State::Idle, Event::Failed) => State::Stopped,
            (State::Sent { .. } | State::Finished | State::CommitSent | State::NextSent, Event::Failed) => {
                State::RollingBack
            }
            (State::RollingBack, Event::RolledBack) => State::Stopped,
            (State::Stopped, Event::Repeat) => State::Idle,
            (State::Stopped, Event::TakeFewer) => {
                output.given_back.extend(self.rounds.drain(..));
                State::Idle
            }
            (state, Event::SessionEnded) if state != State::Away => State::Away,
            (state, event) => unreachable!("{} cannot come in the state {state:?}", event.name()),
        };
        output
    }

    /// Whether the drainer may see to something else before the next effect: all rounds are delivered, or the first one needs
    /// only the COMMIT that travels with the second one.
    pub(super) fn is_between_rounds(&self) -> bool {
        match self.state {
            State::Idle => self.rounds.is_empty(),
            State::Finished => self.rounds.len() == ROUNDS_MAX,
            _ => false,
        }
    }

    /// Whether a session is open.
    pub(super) fn has_session(&self) -> bool {
        self.state != State::Away
    }

    /// Whether it holds no round.
    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// The rounds, in order.
    pub(super) fn rounds(&self) -> impl Iterator<Item = &R> {
        self.rounds.iter()
    }

    /// The same, to be changed.
    pub(super) fn rounds_mut(&mut self) -> impl Iterator<Item = &mut R> {
        self.rounds.iter_mut()
    }

    /// The first round, which is the one that a failure is about.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn first_mut(&mut self) -> &mut R {
        &mut self.rounds[0]
    }

    /// The round that [`Effect::Send`] is about.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn round_to_send(&mut self) -> &mut R {
        match self.state {
            State::Finished => &mut self.rounds[1],
            _ => &mut self.rounds[0],
        }
    }
}

impl<R> Event<R> {
    fn name(&self) -> &'static str {
        match self {
            Self::SessionBegun { .. } => "SessionBegun",
            Self::RoundTaken(_) => "RoundTaken",
            Self::NothingTaken => "NothingTaken",
            Self::RoundSent => "RoundSent",
            Self::RoundFinished => "RoundFinished",
            Self::CommitSent => "CommitSent",
            Self::CommitAnswered => "CommitAnswered",
            Self::Failed => "Failed",
            Self::RolledBack => "RolledBack",
            Self::Repeat => "Repeat",
            Self::TakeFewer => "TakeFewer",
            Self::SessionEnded => "SessionEnded",
        }
    }
}

#[cfg(test)]
mod tests;
