//! The statements that are prepared on one connection.

use forebay_pgwire::{Oid, Param, PipelineOutcome, Statement};
use smallvec::SmallVec;
use std::{collections::HashMap, rc::Rc};

/// Statements that are prepared on one connection at most, each of which occupies some 10 to 100 KiB of its backend. Further
/// ones are parsed with each use.
const PREPARED_MAX: usize = 128;

/// The statements of a connection, by their text and the types of their parameters.
///
/// A statement is carried out unprepared for the first time, and is prepared behind the pipeline in which that happens: so its
/// preparation holds up nobody, and nobody depends on it.
#[derive(Default)]
pub(super) struct Statements {
    by_sql: HashMap<Rc<str>, SmallVec<[Prepared; 1]>>,
    count: usize,
}

struct Prepared {
    types: SmallVec<[Oid; 8]>,
    /// `None` until the server has prepared it.
    statement: Option<Statement>,
}

impl Prepared {
    fn takes(&self, params: &[Param<'_>]) -> bool {
        self.types.iter().copied().eq(params.iter().map(Param::oid))
    }
}

/// How a statement is to be carried out.
pub(super) enum Use<'s> {
    /// It is prepared.
    Prepared(&'s Statement),
    /// It has to be parsed. `prepare`: it is to be prepared as well.
    Once {
        /// See there.
        prepare: bool,
    },
}

impl Statements {
    /// Says how a statement with such parameters is carried out now.
    pub(super) fn look_up(&mut self, sql: &Rc<str>, params: &[Param<'_>]) -> Use<'_> {
        let known = self.by_sql.get(sql).and_then(|same_text| same_text.iter().position(|one| one.takes(params)));
        let Some(index) = known else {
            let prepare = self.count < PREPARED_MAX;
            if prepare {
                self.count += 1;
                let types = params.iter().map(Param::oid).collect();
                self.by_sql.entry(Rc::clone(sql)).or_default().push(Prepared { types, statement: None });
            }
            return Use::Once { prepare };
        };
        match &self.by_sql[sql][index].statement {
            Some(statement) => Use::Prepared(statement),
            None => Use::Once { prepare: false },
        }
    }

    /// Takes what became of a preparation. A statement that the server refused is forgotten; whoever carries it out hears why.
    pub(super) fn prepared(&mut self, sql: &Rc<str>, types: &[Oid], outcome: PipelineOutcome) {
        let Some(same_text) = self.by_sql.get_mut(sql) else { panic!("a statement is noted before it is prepared") };
        let Some(index) = same_text.iter().position(|one| one.types[..] == *types) else {
            panic!("a statement is noted with the types of its parameters before it is prepared")
        };
        match outcome.statements.into_iter().next() {
            Some(statement) => same_text[index].statement = Some(statement),
            None => {
                tracing::debug!(%sql, failure = ?outcome.failure, "a statement was not prepared");
                same_text.remove(index);
                self.count -= 1;
            }
        }
    }
}
