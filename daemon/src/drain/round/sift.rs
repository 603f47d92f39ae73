//! Finds the rows of a batch that PostgreSQL does not take: which rows are tried together, and what follows from each
//! outcome. A state machine without I/O; [`super::trial`] carries it out.
//!
//! A row is refused at once if the SQLSTATE says that the row is at fault. Any other error may be PostgreSQL's own trouble,
//! so it counts against a row only if the row alone meets it [`LONE_FAILURES`] times while other rows are accepted. The
//! transaction that makes the row a dead letter also stores those other rows: it commits only if PostgreSQL takes them.
//!
//! ```text
//!   start ─► next_groups ─► tried, for each group ─► next_groups … ─► finding
//!                 ▲             │ lost: the session is gone; the next one starts with the rows that were under way
//!                 └─────────────┘
//! ```
//!
//! What is known of a row stays known when the transaction is repeated.

use super::{batch::RowRefusal, obstacle::Obstacle};
use crate::limits::{LONE_FAILURES, SIFT_GROUPS_MAX, SIFT_LATE_SAMPLES, SIFT_SAMPLES_MAX};
use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
};

/// What is known of a row.
#[derive(Clone, Debug)]
enum Verdict {
    Unknown,
    /// PostgreSQL takes it.
    Accepted,
    /// A row of the batch has the same transaction id, and PostgreSQL took that one.
    Repeat,
    /// It is at fault.
    Refused(RowRefusal),
    /// It failed alone so often, for a reason that may be PostgreSQL's.
    Suspect {
        failures: u32,
        obstacle: Obstacle,
    },
}

/// What became of a group.
#[derive(Debug)]
pub(crate) enum Tried {
    /// PostgreSQL took all its rows.
    Accepted,
    /// PostgreSQL took none of them.
    Failed {
        /// The row that failed, counted from the first of the group, if PostgreSQL tells.
        row: Option<usize>,
        /// Why.
        obstacle: Obstacle,
    },
    /// The transaction id of a row was there already; the row is counted from the first of the group.
    Repeat {
        /// `None` if PostgreSQL does not tell.
        row: Option<usize>,
    },
}

/// What is known once no group is left to be tried.
#[derive(Debug)]
pub(crate) enum Finding {
    /// These rows become dead letters, and all others were accepted.
    Refused(Vec<(usize, RowRefusal)>),
    /// A row failed for a reason that may be PostgreSQL's: it is to be tried again.
    Undecided(Obstacle),
    /// PostgreSQL accepted no row, so the trouble is taken for its own.
    NoneAccepted(Obstacle),
}

/// The search in one batch. Rows are named by the indices of their records.
pub(crate) struct Sift {
    verdicts: Vec<Verdict>,
    /// Rows that PostgreSQL took in the last transaction in which rows were tried.
    accepted: usize,
    /// Rows that are at fault by their SQLSTATE.
    refused: usize,
    /// The rows to be tried, in the order in which they are copied.
    rows: Vec<usize>,
    /// Ranges of `rows` that are not tried yet.
    untried: VecDeque<Range<usize>>,
    /// Rows of the next groups.
    group_rows: usize,
    /// Rows of which one may be why a session was lost.
    lost: Vec<usize>,
    /// Whether most rows are expected to be refused.
    are_most_refused: bool,
    /// Whether the first of `rows` is one that PostgreSQL took before, to see whether it still does.
    is_witness_due: bool,
    /// Rows that failed alone in this transaction for a reason that may be PostgreSQL's.
    lone_failures: usize,
    /// Rows that were picked from all over the batch, over all transactions, beyond the seed.
    picked: usize,
}

impl Sift {
    /// Of a batch with so many records, nothing is known. `seed` settles which rows are picked first: others in each batch, so
    /// that rows that are taken again after no picked one was accepted have another chance.
    pub(crate) fn new(records: usize, seed: u8) -> Self {
        Self {
            verdicts: vec![Verdict::Unknown; records],
            accepted: 0,
            refused: 0,
            rows: Vec::new(),
            untried: VecDeque::new(),
            group_rows: 1,
            lost: Vec::new(),
            are_most_refused: false,
            is_witness_due: false,
            lone_failures: 0,
            picked: seed.into(),
        }
    }

    /// Begins in a transaction with `rows`, in the order in which they are copied. Those that are decided are left out, and
    /// those of a lost session come first. `are_most_refused`: to be expected, so that they are tried one by one.
    pub(crate) fn start(&mut self, rows: impl Iterator<Item = usize>, are_most_refused: bool) {
        let mut witness = None;
        let lost: HashSet<usize> = std::mem::take(&mut self.lost).into_iter().collect();
        let mut others = Vec::new();
        let mut is_suspect_left = false;
        for row in rows {
            match &self.verdicts[row] {
                // Sent no more: it only remains to be seen whether others are accepted.
                Verdict::Suspect { failures, .. } if *failures >= LONE_FAILURES => is_suspect_left = true,
                Verdict::Unknown | Verdict::Suspect { .. } if lost.contains(&row) => self.lost.push(row),
                Verdict::Unknown | Verdict::Suspect { .. } => others.push(row),
                Verdict::Accepted => witness = witness.or(Some(row)),
                Verdict::Repeat | Verdict::Refused(_) => {}
            }
        }
        self.rows = self.lost.clone();
        self.untried.clear();
        self.is_witness_due = false;
        if self.lost.is_empty() && others.is_empty() && !is_suspect_left {
            return;
        }
        // A row that fails again proves nothing unless another one is still accepted.
        self.accepted = 0;
        self.is_witness_due = witness.is_some();
        self.rows.extend(witness);
        self.rows.extend(others);
        let lost = self.lost.len();
        let first = lost + usize::from(self.is_witness_due);
        self.untried.extend(parts([0..lost, lost..first, first..self.rows.len()]));
        self.group_rows = if are_most_refused { 1 } else { ((self.rows.len() - first) / SIFT_GROUPS_MAX).max(1) };
        self.are_most_refused = are_most_refused;
        self.lone_failures = 0;
    }

    /// Whether nothing was tried yet.
    pub(crate) fn is_new(&self) -> bool {
        self.rows.is_empty()
    }

    /// Something was accepted beside the rows.
    pub(crate) fn has_witness(&mut self) {
        self.accepted += 1;
    }

    /// All rows that are left, as one group.
    pub(crate) fn all(&mut self) -> Option<Range<usize>> {
        self.untried.clear();
        (!self.rows.is_empty()).then_some(0..self.rows.len())
    }

    /// The groups to be sent next, in this order; none: nothing is left to be tried. `is_late`: this transaction has taken
    /// long already. `singles_max`: groups at most, if each is a single row.
    ///
    /// While no row was accepted, PostgreSQL itself may be in trouble, and each try takes time and leaves a line in its log.
    /// So few rows are tried then, each alone and from all over the batch.
    pub(crate) fn next_groups(&mut self, is_late: bool, singles_max: usize) -> Vec<Range<usize>> {
        if !self.lost.is_empty() {
            let pieces = if self.lost.len() == 1 { 1 } else { SIFT_GROUPS_MAX };
            let rows = self.lost.len();
            return self.cut(rows.div_ceil(pieces), pieces, rows);
        }
        if std::mem::take(&mut self.is_witness_due) {
            return self.cut(1, 1, 1);
        }
        let samples_max = if is_late { SIFT_LATE_SAMPLES } else { SIFT_SAMPLES_MAX };
        let is_hopeless = self.lone_failures >= samples_max;
        if self.accepted == 0 && is_hopeless {
            return Vec::new();
        }
        if self.accepted > 0 || self.refused > 0 || self.are_most_refused && self.lone_failures == 0 {
            let groups_max = if self.group_rows == 1 { singles_max } else { SIFT_GROUPS_MAX };
            return self.cut(self.group_rows, groups_max, usize::MAX);
        }
        let count = (self.lone_failures + 1).min(samples_max - self.lone_failures);
        (0..count).map_while(|_| self.pick()).collect()
    }

    /// Takes up to `count` groups of up to `group_rows` rows from the front, `rows_max` rows in all. A row that failed alone
    /// is a group of its own.
    fn cut(&mut self, group_rows: usize, count: usize, rows_max: usize) -> Vec<Range<usize>> {
        let mut groups = Vec::new();
        let mut rows_left = rows_max;
        while groups.len() < count
            && rows_left > 0
            && let Some(range) = self.untried.front_mut()
        {
            let is_suspect = |row: &usize| matches!(self.verdicts[*row], Verdict::Suspect { .. });
            let rows = &self.rows[range.start..range.end.min(range.start + group_rows.min(rows_left))];
            let len = rows.iter().position(is_suspect).map_or(rows.len(), |at| at.max(1));
            let group = range.start..range.start + len;
            rows_left -= len;
            range.start += len;
            if range.start == range.end {
                self.untried.pop_front();
            }
            groups.push(group);
        }
        groups
    }

    /// Takes a single row from somewhere in the batch.
    fn pick(&mut self) -> Option<Range<usize>> {
        /// Multiples of the golden ratio, without their whole part, come everywhere soon.
        const STEP: f64 = 0.618_033_988_749_895;
        let rows: usize = self.untried.iter().map(Range::len).sum();
        let mut skip = ((self.picked as f64 * STEP).fract() * rows as f64) as usize;
        let index = self.untried.iter().position(|range| match skip.checked_sub(range.len()) {
            Some(behind) => {
                skip = behind;
                false
            }
            None => true,
        })?;
        self.picked += 1;
        let Range { start, end } = self.untried.remove(index)?;
        let at = start + skip;
        parts([at + 1..end, start..at]).for_each(|part| self.untried.insert(index, part));
        Some(at..at + 1)
    }

    /// Whether most of the rows that are decided are refused.
    pub(crate) fn are_most_refused(&self) -> bool {
        self.refused > self.accepted
    }

    /// Whether a row is searched for with which a session was lost. Only separate answers tell it from the others.
    pub(crate) fn needs_separate_answers(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The rows of a group.
    pub(crate) fn group(&self, group: &Range<usize>) -> &[usize] {
        &self.rows[group.clone()]
    }

    /// `groups` are to be tried before all others.
    pub(crate) fn put_back(&mut self, groups: impl IntoIterator<Item = Range<usize>, IntoIter: DoubleEndedIterator>) {
        groups.into_iter().rev().for_each(|group| self.untried.push_front(group));
    }

    /// PostgreSQL has answered for `group`.
    pub(crate) fn tried(&mut self, group: Range<usize>, tried: Tried) {
        if !self.lost.is_empty() {
            let rows = &self.rows[group.clone()];
            self.lost.retain(|row| !rows.contains(row));
        }
        match tried {
            Tried::Accepted => {
                self.group_rows = (self.group_rows * 2).min(self.rows.len());
                self.accepted += group.len();
                group.for_each(|at| self.verdicts[self.rows[at]] = Verdict::Accepted);
            }
            Tried::Failed { row, obstacle } => {
                self.group_rows = (self.group_rows / 2).max(1);
                match place(&group, row) {
                    Some(at) if obstacle.is_own() => {
                        self.refused += 1;
                        self.decide(group, at, Verdict::Refused(obstacle.refusal()));
                    }
                    Some(at) if group.len() == 1 => self.suspect(at, obstacle),
                    // Its code does not tell, so it has to fail alone.
                    Some(at) => self.put_back(parts([at..at + 1, group.start..at, at + 1..group.end])),
                    None => self.halve(group),
                }
            }
            Tried::Repeat { row } => match place(&group, row) {
                Some(at) => self.decide(group, at, Verdict::Repeat),
                None => self.halve(group),
            },
        }
    }

    fn decide(&mut self, group: Range<usize>, at: usize, verdict: Verdict) {
        self.verdicts[self.rows[at]] = verdict;
        self.put_back(parts([group.start..at, at + 1..group.end]));
    }

    fn suspect(&mut self, at: usize, obstacle: Obstacle) {
        self.lone_failures += 1;
        let verdict = &mut self.verdicts[self.rows[at]];
        let before = if let Verdict::Suspect { failures, .. } = verdict { *failures } else { 0 };
        *verdict = Verdict::Suspect { failures: before + 1, obstacle };
    }

    fn halve(&mut self, group: Range<usize>) {
        let middle = group.start + group.len() / 2;
        self.put_back(parts([group.start..middle, middle..group.end]));
    }

    /// The session was lost before PostgreSQL answered for `groups`, of which the first `under_way` may be the cause.
    pub(crate) fn lost(&mut self, groups: &[Range<usize>], under_way: usize, obstacle: Obstacle) {
        let rows = groups.iter().take(under_way).flat_map(|group| &self.rows[group.clone()]);
        self.lost = rows.copied().collect();
        // A single row is the cause only if nothing else was sent.
        if let [only] = groups
            && only.len() == 1
        {
            self.suspect(only.start, obstacle);
        }
    }

    /// What is known once no group is left.
    pub(crate) fn finding(&mut self) -> Finding {
        if self.accepted == 0
            && let Some(obstacle) = self.acquit()
        {
            return Finding::NoneAccepted(obstacle);
        }
        let mut refused = Vec::new();
        let mut undecided = None;
        for (row, verdict) in self.verdicts.iter_mut().enumerate() {
            match verdict {
                Verdict::Suspect { failures, obstacle } if *failures < LONE_FAILURES => {
                    undecided = Some(obstacle.clone());
                }
                Verdict::Suspect { obstacle, .. } => *verdict = Verdict::Refused(obstacle.refusal()),
                Verdict::Unknown | Verdict::Accepted | Verdict::Repeat | Verdict::Refused(_) => {}
            }
            if let Verdict::Refused(refusal) = verdict {
                refused.push((row, refusal.clone()));
            }
        }
        undecided.map_or(Finding::Refused(refused), Finding::Undecided)
    }

    /// What the rows met that are suspected.
    pub(crate) fn suspicions(&self) -> impl Iterator<Item = &Obstacle> {
        self.verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Suspect { obstacle, .. } => Some(obstacle),
            _ => None,
        })
    }

    /// Holds nothing against the rows that are suspected. Returns what the last of them met.
    pub(crate) fn acquit(&mut self) -> Option<Obstacle> {
        let suspects = self.verdicts.iter_mut().filter(|verdict| matches!(verdict, Verdict::Suspect { .. }));
        let obstacles = suspects.filter_map(|verdict| match std::mem::replace(verdict, Verdict::Unknown) {
            Verdict::Suspect { obstacle, .. } => Some(obstacle),
            _ => None,
        });
        obstacles.last()
    }
}

/// The place of the row that an answer is about, if it names one or there is only one.
fn place(group: &Range<usize>, row: Option<usize>) -> Option<usize> {
    let row = if group.len() == 1 { Some(0) } else { row };
    row.map(|row| group.start + row).filter(|at| group.contains(at))
}

/// Those of `ranges` that are not empty.
fn parts(
    ranges: impl IntoIterator<Item = Range<usize>, IntoIter: DoubleEndedIterator>,
) -> impl DoubleEndedIterator<Item = Range<usize>> {
    ranges.into_iter().filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests;
