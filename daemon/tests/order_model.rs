//! A model that shows why the order holds across lanes (`docs/architecture.md`). Every interleaving of it is explored.
//!
//! Messages are assigned to lanes. A message is numbered when its lane accepts it, durable when its group is written,
//! and acknowledged after that. A message that depends on others is sent after they are acknowledged. Meanwhile the
//! drain takes rounds. It reads the sequence counter and each lane's durable end, each in a separate step, and takes
//! the messages below both. When a message is delivered, all messages that it depends on must have been delivered
//! before.
//!
//! The steps of a round are a list, so that wrong orders are explored too. Each wrong order must break the promise;
//! otherwise the model proves nothing.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;

const MESSAGES: usize = 3;
const LANES: usize = 2;
/// Rounds taken while messages are in flight. One more round takes the rest.
const ROUNDS: usize = 2;

/// A step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    ReadCounter,
    ReadEnd(usize),
    /// Takes the messages before the ends and, if the counter was read, below the counter.
    Take,
}

/// The order of `Sources::take`.
const REAL: [Step; 4] = [Step::ReadCounter, Step::ReadEnd(0), Step::ReadEnd(1), Step::Take];

/// The lane and the dependencies of each message.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    lane_of: [usize; MESSAGES],
    /// `depends[k][j]`: message `k` is sent after the reply to message `j`.
    depends: [[bool; MESSAGES]; MESSAGES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Unsent,
    /// In the lane's open group.
    Numbered,
    /// In the group that is being written.
    Written,
    Durable,
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    stages: [Stage; MESSAGES],
    numbers: [u64; MESSAGES],
    counter: u64,
    /// The next step of the current round.
    step: usize,
    below: u64,
    /// The messages below each lane's durable end, as read.
    ends: [[bool; MESSAGES]; LANES],
    rounds: usize,
    delivered: Vec<usize>,
}

/// A possible next event.
#[derive(Clone, Copy, Debug)]
enum Action {
    Number(usize),
    /// The lane's open group is written. Requires that none is being written.
    Write(usize),
    BecomeDurable(usize),
    Answer(usize),
    Drain,
}

struct Walk<'a> {
    scenario: Scenario,
    round: &'a [Step],
    seen: HashSet<State>,
    path: Vec<Action>,
}

impl State {
    fn start() -> Self {
        Self {
            stages: [Stage::Unsent; MESSAGES],
            numbers: [0; MESSAGES],
            counter: 0,
            step: 0,
            below: u64::MAX,
            ends: [[false; MESSAGES]; LANES],
            rounds: 0,
            delivered: Vec::new(),
        }
    }

    fn is_durable(&self, message: usize) -> bool {
        matches!(self.stages[message], Stage::Durable | Stage::Answered)
    }

    fn in_lane(scenario: &Scenario, lane: usize) -> impl Iterator<Item = usize> + use<> {
        let lane_of = scenario.lane_of;
        (0..MESSAGES).filter(move |message| lane_of[*message] == lane)
    }

    fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions = Vec::new();
        for message in 0..MESSAGES {
            let answered = |on: usize| !scenario.depends[message][on] || self.stages[on] == Stage::Answered;
            match self.stages[message] {
                Stage::Unsent if (0..MESSAGES).all(answered) => actions.push(Action::Number(message)),
                Stage::Durable => actions.push(Action::Answer(message)),
                _ => {}
            }
        }
        for lane in 0..LANES {
            let has = |stage| Self::in_lane(scenario, lane).any(|message| self.stages[message] == stage);
            if has(Stage::Written) {
                actions.push(Action::BecomeDurable(lane));
            } else if has(Stage::Numbered) {
                actions.push(Action::Write(lane));
            }
        }
        if self.rounds < ROUNDS {
            actions.push(Action::Drain);
        }
        actions
    }

    fn after(&self, action: Action, scenario: &Scenario, round: &[Step]) -> Self {
        let mut next = self.clone();
        let mut move_lane = |lane: usize, from: Stage, to: Stage| {
            for message in Self::in_lane(scenario, lane) {
                if next.stages[message] == from {
                    next.stages[message] = to;
                }
            }
        };
        match action {
            Action::Number(message) => {
                (next.stages[message], next.numbers[message]) = (Stage::Numbered, next.counter);
                next.counter += 1;
            }
            Action::Write(lane) => move_lane(lane, Stage::Numbered, Stage::Written),
            Action::BecomeDurable(lane) => move_lane(lane, Stage::Written, Stage::Durable),
            Action::Answer(message) => next.stages[message] = Stage::Answered,
            Action::Drain => next.drain(scenario, round),
        }
        next
    }

    /// Executes the next step of the round.
    fn drain(&mut self, scenario: &Scenario, round: &[Step]) {
        match round[self.step] {
            Step::ReadCounter => self.below = self.counter,
            Step::ReadEnd(lane) => {
                for message in Self::in_lane(scenario, lane) {
                    self.ends[lane][message] = self.is_durable(message);
                }
            }
            Step::Take => {
                let is_taken = |message: &usize| {
                    self.ends[scenario.lane_of[*message]][*message]
                        && self.numbers[*message] < self.below
                        && !self.delivered.contains(message)
                };
                let mut taken: Vec<usize> = (0..MESSAGES).filter(is_taken).collect();
                taken.sort_by_key(|message| self.numbers[*message]);
                self.delivered.extend(taken);
            }
        }
        self.step = (self.step + 1) % round.len();
        if self.step == 0 {
            self.rounds += 1;
            (self.below, self.ends) = (u64::MAX, [[false; MESSAGES]; LANES]);
        }
    }

    /// Whether a message was delivered before one that it depends on.
    fn is_out_of_order(&self, scenario: &Scenario) -> bool {
        self.delivered.iter().enumerate().any(|(place, message)| {
            (0..MESSAGES).any(|on| scenario.depends[*message][on] && !self.delivered[..place].contains(&on))
        })
    }
}

impl Walk<'_> {
    /// Explores all successors of `state`. Returns the path to a state that breaks the promise, if one exists.
    fn go(&mut self, state: &State) -> Result<(), Vec<Action>> {
        if state.is_out_of_order(&self.scenario) {
            return Err(self.path.clone());
        }
        if !self.seen.insert(state.clone()) {
            return Ok(());
        }
        let actions = state.actions(&self.scenario);
        if actions.is_empty() {
            self.check_the_end(state);
        }
        for action in actions {
            self.path.push(action);
            self.go(&state.after(action, &self.scenario, self.round))?;
            self.path.pop();
        }
        Ok(())
    }

    /// After all events, one more round leaves no message behind.
    fn check_the_end(&self, state: &State) {
        let mut state = state.clone();
        for _ in 0..self.round.len() {
            state.drain(&self.scenario, self.round);
        }
        assert_eq!(state.delivered.len(), MESSAGES, "{:?} {:?}", self.scenario, self.path);
        assert!(!state.is_out_of_order(&self.scenario));
    }
}

/// All assignments of messages to lanes with all dependencies on earlier messages.
fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for lanes in 0..LANES.pow(MESSAGES as u32) {
        for edges in 0..1 << (MESSAGES * (MESSAGES - 1) / 2) {
            let lane_of = std::array::from_fn(|message| lanes / LANES.pow(message as u32) % LANES);
            let depends = std::array::from_fn(|message: usize| {
                let first_edge = message * message.saturating_sub(1) / 2;
                std::array::from_fn(|on| on < message && edges >> (first_edge + on) & 1 == 1)
            });
            scenarios.push(Scenario { lane_of, depends });
        }
    }
    scenarios
}

/// Explores every scenario with rounds of these steps. Returns the number of states, or a path that breaks the promise.
fn walk_all(round: &[Step]) -> Result<usize, (Scenario, Vec<Action>)> {
    let mut states = 0;
    for scenario in scenarios() {
        let mut walk = Walk { scenario, round, seen: HashSet::new(), path: Vec::new() };
        walk.go(&State::start()).map_err(|path| (scenario, path))?;
        states += walk.seen.len();
    }
    Ok(states)
}

#[test]
fn in_every_interleaving_a_message_comes_after_those_whose_answers_its_sender_had() {
    assert_eq!(scenarios().len(), 64);
    let states = walk_all(&REAL).unwrap_or_else(|(scenario, path)| panic!("{scenario:?}: {path:?}"));
    println!("{states} states");
    assert!(states > 50_000, "the walk went somewhere: {states} states");
    // The order in which the ends are read does not matter.
    let other = [Step::ReadCounter, Step::ReadEnd(1), Step::ReadEnd(0), Step::Take];
    assert!(walk_all(&other).is_ok());
}

#[test]
fn with_the_counter_read_after_the_ends_or_between_them_or_not_at_all_the_model_finds_the_order_broken() {
    let wrong: [&[Step]; 3] = [
        &[Step::ReadEnd(0), Step::ReadEnd(1), Step::ReadCounter, Step::Take],
        &[Step::ReadEnd(0), Step::ReadCounter, Step::ReadEnd(1), Step::Take],
        &[Step::ReadEnd(0), Step::ReadEnd(1), Step::Take],
    ];
    for round in wrong {
        let (scenario, path) = walk_all(round).expect_err("a counterexample");
        println!("{round:?}: {scenario:?}: {path:?}");
        let lanes: HashSet<usize> = scenario.lane_of.into_iter().collect();
        assert_eq!(lanes.len(), LANES, "within one lane the order is the lane's own");
    }
}
