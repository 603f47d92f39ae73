//! The pipeline against the tables in its documentation, and against a model of PostgreSQL that fails at random.

use super::*;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

const STATES: [&str; 8] = ["Away", "Idle", "Sent", "Finished", "CommitSent", "NextSent", "RollingBack", "Stopped"];

/// The rows of the documentation's tables, each as its cells; backquotes are removed.
fn documented(heading: &str) -> Vec<[String; 4]> {
    let source = include_str!("../commit_pipeline.rs");
    let after = source.lines().skip_while(|line| *line != heading).skip(2);
    let rows = after.map_while(|line| line.strip_prefix("//! | "));
    rows.map(|row| {
        let cells: Vec<String> = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        [cells[0].clone(), cells[1].clone(), cells[2].clone(), cells[3].clone()]
    })
    .collect()
}

fn name(state: State) -> &'static str {
    match state {
        State::Away => "Away",
        State::Idle => "Idle",
        State::Sent { .. } => "Sent",
        State::Finished => "Finished",
        State::CommitSent => "CommitSent",
        State::NextSent => "NextSent",
        State::RollingBack => "RollingBack",
        State::Stopped => "Stopped",
    }
}

/// The pipeline in the state of that name, with each number of rounds that the state can have. Rounds are called 1 and 2.
fn pipelines(state: &str) -> Vec<CommitPipeline<u32>> {
    let (states, counts): (&[State], &[u32]) = match state {
        "Away" => (&[State::Away], &[0, 1, 2]),
        "Idle" => (&[State::Idle], &[0, 1, 2]),
        "Sent" => (&[State::Sent { has_looked_ahead: false }, State::Sent { has_looked_ahead: true }], &[1, 2]),
        "Finished" => (&[State::Finished], &[1, 2]),
        "CommitSent" => (&[State::CommitSent], &[1, 2]),
        "NextSent" => (&[State::NextSent], &[2]),
        "RollingBack" => (&[State::RollingBack], &[1, 2]),
        "Stopped" => (&[State::Stopped], &[1, 2]),
        _ => panic!("no state {state}"),
    };
    let of = |state: &State| {
        let state = *state;
        counts.iter().map(move |count| CommitPipeline { state, rounds: (1..=*count).collect() })
    };
    states.iter().flat_map(of).collect()
}

fn events() -> Vec<Event<u32>> {
    vec![
        Event::SessionBegun { reached: 0, is_next: true },
        Event::RoundTaken(9),
        Event::NothingTaken,
        Event::RoundSent,
        Event::RoundFinished,
        Event::CommitSent,
        Event::CommitAnswered,
        Event::Failed,
        Event::RolledBack,
        Event::Repeat,
        Event::TakeFewer,
        Event::SessionEnded,
    ]
}

#[test]
fn each_event_leads_where_the_table_says_and_no_other_event_can_come() {
    let mut table: BTreeMap<(String, String), [String; 2]> = BTreeMap::new();
    for [state, event, next, leaves] in documented("//! | state | event | next state | leaves the pipeline |") {
        let of = match state.as_str() {
            "every state but Away" => {
                STATES.iter().filter(|state| **state != "Away").map(ToString::to_string).collect()
            }
            _ => vec![state],
        };
        of.into_iter().for_each(|state| drop(table.insert((state, event.clone()), [next.clone(), leaves.clone()])));
    }
    assert_eq!(table.len(), 19 + 7, "{table:#?}");
    for state in STATES {
        for event in events() {
            let row = table.get(&(state.to_owned(), event.name().to_owned()));
            let mut possible = 0;
            for mut pipeline in pipelines(state) {
                let rounds: Vec<u32> = pipeline.rounds.iter().copied().collect();
                let outcome = catch_unwind(AssertUnwindSafe(|| pipeline.on(event.clone())));
                let Ok(output) = outcome else { continue };
                let Some([next, leaves]) = row else { panic!("{} came in {state}", event.name()) };
                possible += 1;
                assert_eq!(name(pipeline.state), next, "{state}, {}", event.name());
                let expected = match leaves.as_str() {
                    "delivered: the first round" => Output { delivered: vec![1], given_back: vec![] },
                    "given back: all rounds" => Output { delivered: vec![], given_back: rounds.clone() },
                    _ => Output { delivered: vec![], given_back: vec![] },
                };
                assert_eq!(output, expected, "{state}, {}", event.name());
                let added = usize::from(matches!(event, Event::RoundTaken(_)));
                let left = output.delivered.len() + output.given_back.len();
                assert_eq!(pipeline.rounds.len(), rounds.len() + added - left, "no round is lost");
            }
            assert_eq!(possible > 0, row.is_some(), "{state}, {}", event.name());
        }
    }
}

#[test]
fn the_next_effect_is_the_one_that_the_table_says() {
    let mut table: BTreeMap<&str, BTreeSet<String>> = STATES.map(|state| (state, BTreeSet::new())).into();
    for [state, _, _, effect] in documented("//! | state | first round | second round | effect |") {
        table.get_mut(state.as_str()).unwrap().insert(effect);
    }
    let effect_name = |effect: Effect| match effect {
        Effect::Send { is_behind_commit: true } => "Send, behind the COMMIT".to_owned(),
        Effect::Send { is_behind_commit: false } => "Send".to_owned(),
        effect => format!("{effect:?}"),
    };
    for state in STATES {
        let mut met = BTreeSet::new();
        for pipeline in pipelines(state) {
            for (is_more_left, has_to_wait) in [(false, false), (false, true), (true, false), (true, true)] {
                let effect = pipeline.effect(is_more_left, |_| has_to_wait);
                met.insert(effect_name(effect));
                let has_second = pipeline.rounds.len() == 2;
                let expected = match pipeline.state {
                    State::Idle if pipeline.rounds.is_empty() => Some(Effect::Take),
                    State::Sent { has_looked_ahead } if is_more_left && !has_looked_ahead && !has_second => {
                        Some(Effect::TakeAhead)
                    }
                    State::Finished if has_second && !has_to_wait => Some(Effect::Send { is_behind_commit: true }),
                    State::Finished => Some(Effect::SendCommit),
                    _ => None,
                };
                assert!(expected.is_none_or(|expected| expected == effect), "{:?}: {effect:?}", pipeline.state);
            }
        }
        assert_eq!(met, table[state], "{state}");
    }
}

#[test]
fn after_a_lost_connection_the_checkpoint_says_what_is_delivered_and_what_is_taken_again() {
    let begun = |reached, is_next| {
        let mut pipeline = CommitPipeline { state: State::Away, rounds: VecDeque::from([1, 2]) };
        let output = pipeline.on(Event::SessionBegun { reached, is_next });
        assert_eq!(pipeline.state, State::Idle);
        (output.delivered, output.given_back, pipeline.rounds)
    };
    assert_eq!(begun(0, true), (vec![], vec![], VecDeque::from([1, 2])), "the COMMIT was lost on its way there");
    assert_eq!(begun(1, true), (vec![1], vec![], VecDeque::from([2])), "its answer was lost on the way back");
    assert_eq!(begun(0, false), (vec![], vec![1, 2], VecDeque::new()), "the database went back in time");
    assert_eq!(begun(1, false), (vec![1], vec![2], VecDeque::new()));
    assert_eq!(begun(2, false), (vec![1, 2], vec![], VecDeque::new()));
}

/// Some records of the log, which has the records 0 to [`RECORDS`].
type Round = Range<u32>;

const RECORDS: u32 = 24;

/// What a drainer has sent and PostgreSQL has not carried out.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Round(Round),
    Commit,
}

/// PostgreSQL, its connection, and the log.
#[derive(Default)]
struct Model {
    /// Records below this are committed.
    checkpoint: u32,
    /// The round of the open transaction.
    open: Option<Round>,
    under_way: VecDeque<Message>,
    /// The next record that the log gives.
    next: u32,
    /// Records below this are delivered.
    delivered: u32,
}

impl Model {
    fn send(&mut self, message: Message) {
        self.under_way.push_back(message);
        let commits = self.under_way.iter().filter(|message| **message == Message::Commit).count();
        assert!(commits <= 1, "two COMMITs are under way");
    }

    /// PostgreSQL carries out the next message.
    fn carry_out(&mut self) {
        match self.under_way.pop_front() {
            Some(Message::Round(round)) => {
                assert_eq!(self.open, None, "a transaction begins behind the COMMIT of the one before");
                assert_eq!(self.checkpoint, round.start, "the guard: the checkpoint is where it is believed to be");
                self.open = Some(round);
            }
            Some(Message::Commit) => self.checkpoint = self.open.take().expect("a transaction is open").end,
            None => {}
        }
    }

    /// The connection ends, after PostgreSQL has carried out some of what was sent.
    fn lose_connection(&mut self, carried_out: usize) {
        (0..carried_out).for_each(|_| self.carry_out());
        self.under_way.clear();
        self.open = None;
    }

    fn take(&mut self, length: u32) -> Option<Round> {
        let round = self.next..(self.next + length).min(RECORDS);
        self.next = round.end;
        (!round.is_empty()).then_some(round)
    }

    fn leave(&mut self, output: Output<Round>) {
        for round in output.delivered {
            assert_eq!(round.start, self.delivered, "each record is delivered once, in order");
            assert!(round.end <= self.checkpoint, "only what is committed is delivered");
            self.delivered = round.end;
        }
        if let Some(first) = output.given_back.first() {
            assert_eq!(first.start, self.delivered, "what is given back was not delivered, and nothing is skipped");
            self.next = first.start;
        }
    }

    /// Carries out the next effect; the dice say what goes wrong.
    fn step(&mut self, pipeline: &mut CommitPipeline<Round>, dice: [u8; 3]) {
        let (is_refused, is_lost) = (dice[0] % 8 == 1, dice[0] % 8 == 2);
        let effect = pipeline.effect(self.next < RECORDS, |_| dice[1] % 2 == 1);
        let event = match effect {
            Effect::Connect => return self.connect(pipeline),
            Effect::Take | Effect::TakeAhead => match self.take(u32::from(dice[1] % 4)) {
                Some(round) => Event::RoundTaken(round),
                None => Event::NothingTaken,
            },
            Effect::Send { is_behind_commit: false } if is_refused => Event::Failed,
            Effect::Send { is_behind_commit } => {
                if is_behind_commit {
                    self.send(Message::Commit);
                }
                self.send(Message::Round(pipeline.round_to_send().clone()));
                Event::RoundSent
            }
            Effect::SendCommit => {
                self.send(Message::Commit);
                Event::CommitSent
            }
            Effect::AwaitRound | Effect::AwaitCommit if is_refused => Event::Failed,
            Effect::AwaitRound => {
                self.carry_out();
                Event::RoundFinished
            }
            Effect::AwaitCommit => {
                self.carry_out();
                Event::CommitAnswered
            }
            Effect::RollBack => {
                self.under_way.clear();
                self.open = None;
                Event::RolledBack
            }
            Effect::Decide if dice[1] % 3 == 1 => Event::TakeFewer,
            Effect::Decide => Event::Repeat,
        };
        let lost = is_lost && !matches!(effect, Effect::Take | Effect::TakeAhead);
        if lost {
            // Also while something is being sent, so that half of it may have arrived.
            self.lose_connection(usize::from(dice[2] % 3));
        }
        let output = pipeline.on(if lost { Event::SessionEnded } else { event });
        self.leave(output);
    }

    fn connect(&mut self, pipeline: &mut CommitPipeline<Round>) {
        let reached = pipeline.rounds().take_while(|round| round.end == self.checkpoint).count();
        let is_next = pipeline.rounds().nth(reached).is_some_and(|round| round.start == self.checkpoint);
        let output = pipeline.on(Event::SessionBegun { reached, is_next });
        self.leave(output);
        if !is_next {
            self.next = self.checkpoint;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_each_record_is_delivered_once_and_in_order_and_one_commit_is_under_way_at_most(
        dice in proptest::collection::vec(any::<[u8; 3]>(), 0..200),
    ) {
        let (mut model, mut pipeline) = (Model::default(), CommitPipeline::new());
        dice.into_iter().for_each(|dice| model.step(&mut pipeline, dice));
        // From here on nothing fails, and rounds have one record.
        for _ in 0..8 * RECORDS {
            model.step(&mut pipeline, [0, 1, 0]);
        }
        prop_assert_eq!((model.delivered, model.checkpoint), (RECORDS, RECORDS));
        prop_assert!(pipeline.is_empty());
    }
}
