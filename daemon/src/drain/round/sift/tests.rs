use super::*;
use crate::limits::SIFT_ROWS_MAX;
use forebay_pgwire::{DbError, Error, SqlState};
use proptest::prelude::*;

fn obstacle(code: &str) -> Obstacle {
    let sqlstate = SqlState::from_bytes(code.as_bytes()).unwrap();
    Obstacle::of(&Error::Server(Box::new(DbError { sqlstate, message: code.to_owned(), ..DbError::default() })))
}

/// What PostgreSQL does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Good,
    /// Refused, by a code that says so.
    Own,
    /// Fails by a code that may be PostgreSQL's trouble; the first so many times.
    Foreign(u32),
    /// Its session ends.
    Kills,
}

const ALWAYS: u32 = u32::MAX;

/// Carries a sift out against rows, and counts what that costs.
struct Server {
    rows: Vec<Row>,
    failures: Vec<u32>,
    /// Whether errors name their row.
    names_rows: bool,
    /// Whether most rows are expected to be refused, and many single rows are tried with one statement.
    are_most_refused: bool,
    groups: usize,
    transactions: usize,
    /// Rows that were sent, all groups together.
    sent: usize,
}

impl Server {
    fn new(rows: Vec<Row>, names_rows: bool) -> Self {
        let failures = vec![0; rows.len()];
        Self { rows, failures, names_rows, are_most_refused: false, groups: 0, transactions: 0, sent: 0 }
    }

    /// What PostgreSQL answers for a group; `None`: the session is gone.
    fn answer(&mut self, rows: &[usize]) -> Option<Tried> {
        self.groups += 1;
        self.sent += rows.len();
        for (at, row) in rows.iter().enumerate() {
            let code = match self.rows[*row] {
                Row::Good => continue,
                Row::Own => "22P02",
                Row::Foreign(times) if self.failures[*row] >= times => continue,
                Row::Foreign(_) => {
                    self.failures[*row] += u32::from(rows.len() == 1);
                    "XX000"
                }
                Row::Kills => return None,
            };
            return Some(Tried::Failed { row: self.names_rows.then_some(at), obstacle: obstacle(code) });
        }
        Some(Tried::Accepted)
    }

    /// One transaction; `false`: the session was lost.
    fn transaction(&mut self, sift: &mut Sift) -> bool {
        self.transactions += 1;
        sift.start(0..self.rows.len(), self.are_most_refused);
        loop {
            let groups = sift.next_groups(false, SIFT_GROUPS_MAX);
            if groups.is_empty() {
                return true;
            }
            let are_singles = groups.len() > 1 && groups.iter().all(|group| group.len() == 1);
            if self.are_most_refused && are_singles && !sift.needs_separate_answers() {
                // There is one answer for all of them.
                let answers: Option<Vec<Tried>> = groups.iter().map(|group| self.answer(sift.group(group))).collect();
                let Some(answers) = answers else {
                    sift.lost(&groups, groups.len(), obstacle("57P01"));
                    return false;
                };
                groups.into_iter().zip(answers).for_each(|(group, answer)| sift.tried(group, answer));
                continue;
            }
            for (index, group) in groups.iter().enumerate() {
                let rows = sift.group(group).to_vec();
                match self.answer(&rows) {
                    Some(tried) => sift.tried(group.clone(), tried),
                    None => {
                        sift.lost(&groups[index..], 1, obstacle("57P01"));
                        return false;
                    }
                }
            }
        }
    }

    /// Transactions until there is a finding that is final.
    fn find(&mut self) -> Finding {
        let mut sift = Sift::new(self.rows.len(), 0);
        loop {
            assert!(self.transactions < 1000, "it comes to an end");
            if self.transaction(&mut sift) {
                match sift.finding() {
                    Finding::Undecided(_) => {}
                    finding => return finding,
                }
            }
        }
    }
}

fn refused(finding: Finding) -> Vec<usize> {
    let Finding::Refused(refused) = finding else { panic!("{finding:?}") };
    refused.into_iter().map(|(row, _)| row).collect()
}

#[test]
fn the_cost_of_a_refused_row_does_not_grow_with_their_number() {
    for names_rows in [true, false] {
        for count in [1, 10, 100, SIFT_ROWS_MAX, 10 * SIFT_ROWS_MAX] {
            let mut server = Server::new(vec![Row::Own; count], names_rows);
            assert_eq!(refused(server.find()).len(), count);
            assert!(server.groups <= count + 3 * SIFT_GROUPS_MAX, "{} groups for {count}", server.groups);
            assert!(server.sent <= 4 * count + 3 * SIFT_GROUPS_MAX, "{} rows sent for {count}", server.sent);
            assert_eq!(server.transactions, 1);
        }
    }
}

#[test]
fn one_bad_row_among_many_costs_a_few_groups_more() {
    for bad in [0, 1, 499, 998, 999] {
        let mut rows = vec![Row::Good; SIFT_ROWS_MAX];
        rows[bad] = Row::Own;
        let mut server = Server::new(rows, true);
        assert_eq!(refused(server.find()), [bad]);
        assert!(server.groups <= 2 * SIFT_GROUPS_MAX, "{}", server.groups);
    }
}

#[test]
fn a_row_that_may_not_be_at_fault_has_to_fail_alone_three_times_while_another_one_is_accepted() {
    for times in 0..5 {
        let mut server = Server::new(vec![Row::Foreign(times), Row::Good], true);
        let expected: &[usize] = if times >= LONE_FAILURES { &[0] } else { &[] };
        assert_eq!(refused(server.find()), expected, "{times}");
        assert_eq!(server.transactions as u32, (times + 1).min(LONE_FAILURES));
    }
}

#[test]
fn while_none_is_accepted_few_rows_are_tried_and_none_is_set_aside() {
    let mut server = Server::new(vec![Row::Foreign(ALWAYS); 5000], true);
    assert!(matches!(server.find(), Finding::NoneAccepted(_)));
    assert!(server.groups <= SIFT_SAMPLES_MAX, "{}", server.groups);
    let mut sift = Sift::new(100, 0);
    sift.start(0..100, false);
    let mut tried = 0;
    loop {
        let groups = sift.next_groups(true, SIFT_GROUPS_MAX);
        if groups.is_empty() {
            break;
        }
        tried += groups.iter().map(Range::len).sum::<usize>();
        groups
            .into_iter()
            .for_each(|group| sift.tried(group, Tried::Failed { row: None, obstacle: obstacle("57014") }));
    }
    assert_eq!(tried, SIFT_LATE_SAMPLES, "few that waited for long are enough");
    assert!(matches!(sift.finding(), Finding::NoneAccepted(_)));
}

#[test]
fn an_outage_that_begins_between_the_attempts_is_not_held_against_a_row() {
    let mut server = Server::new(vec![Row::Foreign(1), Row::Good, Row::Good], true);
    let mut sift = Sift::new(3, 0);
    assert!(server.transaction(&mut sift));
    assert!(matches!(sift.finding(), Finding::Undecided(_)));
    server.rows = vec![Row::Foreign(ALWAYS); 3];
    for _ in 0..5 {
        assert!(server.transaction(&mut sift));
        assert!(matches!(sift.finding(), Finding::NoneAccepted(_)));
    }
    server.rows = vec![Row::Good; 3];
    assert!(server.transaction(&mut sift));
    assert_eq!(refused(sift.finding()), [0; 0]);
}

#[test]
fn a_row_that_ends_its_session_is_found_with_few_sessions_and_alone() {
    for killer in [0, 1, 500, 999] {
        let mut rows = vec![Row::Good; SIFT_ROWS_MAX];
        rows[killer] = Row::Kills;
        let mut server = Server::new(rows, true);
        assert_eq!(refused(server.find()), [killer]);
        assert!(server.transactions <= 8, "{}", server.transactions);
    }
    let mut alone = Server::new(vec![Row::Kills], true);
    let mut sift = Sift::new(1, 0);
    for attempt in 1..20 {
        let is_left_out = attempt % (LONE_FAILURES + 1) == 0;
        assert_eq!(alone.transaction(&mut sift), is_left_out);
        if is_left_out {
            assert!(matches!(sift.finding(), Finding::NoneAccepted(_)));
        }
    }
}

#[test]
fn one_row_that_takes_long_is_found_wherever_the_first_picks_fall() {
    for seed in 0..64 {
        let mut sift = Sift::new(2, seed);
        sift.start(0..2, false);
        loop {
            let groups = sift.next_groups(true, SIFT_GROUPS_MAX);
            if groups.is_empty() {
                break;
            }
            for group in groups {
                let tried = match sift.group(&group) {
                    [0] => Tried::Failed { row: None, obstacle: obstacle("57014") },
                    _ => Tried::Accepted,
                };
                sift.tried(group, tried);
            }
        }
        assert!(matches!(sift.finding(), Finding::Undecided(_)), "{seed}");
    }
}

fn any_row() -> impl Strategy<Value = Row> {
    prop_oneof![
        6 => Just(Row::Good),
        2 => Just(Row::Own),
        1 => Just(Row::Foreign(1)),
        1 => Just(Row::Foreign(2)),
        1 => Just(Row::Foreign(ALWAYS)),
        1 => Just(Row::Kills),
    ]
}

proptest! {
    #[test]
    fn exactly_the_rows_at_fault_are_refused_wherever_they_stand(
        rows in proptest::collection::vec(any_row(), 1..120),
        names_rows: bool,
        are_most_refused: bool,
    ) {
        let is_good = |row: &Row| matches!(row, Row::Good | Row::Foreign(1 | 2));
        // Somebody accepts.
        let rows = [&rows[..], &[Row::Good]].concat();
        let mut server = Server::new(rows.clone(), names_rows);
        server.are_most_refused = are_most_refused;
        let expected: Vec<usize> = (0..rows.len()).filter(|row| !is_good(&rows[*row])).collect();
        prop_assert_eq!(refused(server.find()), expected);
    }
}
