//! A unit: the statements of one request, encoded and owned, so that they can wait for their turn.

use bytes::BytesMut;
use forebay_pgwire::{Error, Oid, Param};
use smallvec::SmallVec;
use std::{ops::Range, rc::Rc};

/// The longest value or statement of a unit, in bytes: PostgreSQL takes no message beyond 1 GiB.
const VALUE_BYTES_MAX: usize = 1 << 30;

/// The most parameters of a statement: the protocol has 16 bits for their number.
const PARAMS_MAX: usize = u16::MAX as usize;

/// What a unit occupies beside its values, in bytes: statements, places of values, and the ticket. It is an estimate.
const UNIT_BYTES: usize = 512;

/// One or more statements that are carried out together: they are one transaction, which ends behind the last of them.
///
/// A unit must not contain `BEGIN`, `COMMIT` or other statements that control transactions.
#[derive(Debug, Default)]
pub struct Unit {
    statements: SmallVec<[Statement; 1]>,
    values: SmallVec<[Value; 4]>,
    bytes: BytesMut,
    is_read: bool,
    /// Why a statement could not be added.
    error: Option<Error>,
}

#[derive(Debug)]
struct Statement {
    sql: Rc<str>,
    values: Range<usize>,
}

/// A value; `None` is NULL.
#[derive(Debug)]
struct Value {
    type_oid: Oid,
    bytes: Option<Range<usize>>,
}

impl Unit {
    /// A unit of one statement.
    #[must_use]
    pub fn of(sql: &Rc<str>, params: &[Param<'_>]) -> Self {
        Self::default().and(sql, params)
    }

    /// A unit of one statement that only reads.
    ///
    /// Such units share a transaction with those before and behind them, which costs the server a third less than one for each.
    /// Each has a snapshot of its own all the same, but `now()` is that of the first one. Where one of them fails, those
    /// behind it are sent again by themselves: they may be carried out behind units that were submitted later.
    #[must_use]
    pub fn read(sql: &Rc<str>, params: &[Param<'_>]) -> Self {
        Self { is_read: true, ..Self::of(sql, params) }
    }

    /// Adds a statement. A statement that cannot be sent makes the whole unit fail with [`Error::Usage`] when it is submitted.
    #[must_use]
    pub fn and(mut self, sql: &Rc<str>, params: &[Param<'_>]) -> Self {
        self.is_read = false;
        if self.error.is_none() {
            self.error = self.add(sql, params).err();
        }
        self
    }

    fn add(&mut self, sql: &Rc<str>, params: &[Param<'_>]) -> Result<(), Error> {
        let usage = |what: String| Err(Error::Usage { what });
        if params.len() > PARAMS_MAX {
            return usage(format!("{} parameters, at most {PARAMS_MAX} are possible", params.len()));
        }
        if sql.contains('\0') {
            return usage("a statement that contains a NUL".to_owned());
        }
        let first = self.values.len();
        for param in params {
            let start = self.bytes.len();
            let has_value = param.encode(&mut self.bytes)?;
            let bytes = has_value.then_some(start..self.bytes.len());
            self.values.push(Value { type_oid: param.oid(), bytes });
        }
        if sql.len().max(self.bytes.len()) > VALUE_BYTES_MAX {
            return usage(format!("more than {VALUE_BYTES_MAX} bytes in one unit"));
        }
        self.statements.push(Statement { sql: Rc::clone(sql), values: first..self.values.len() });
        Ok(())
    }

    /// The unit, if it can be sent.
    pub(super) fn checked(mut self) -> Result<Self, Error> {
        match self.error.take() {
            Some(error) => Err(error),
            None if self.statements.is_empty() => Err(Error::Usage { what: "a unit without statements".to_owned() }),
            None => Ok(self),
        }
    }

    /// Whether it is one statement that only reads.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    /// The memory that it occupies, in bytes.
    pub(super) fn bytes(&self) -> usize {
        UNIT_BYTES + self.bytes.len()
    }

    /// Its statements with their parameters, in order.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&Rc<str>, SmallVec<[Param<'_>; 8]>)> {
        self.statements.iter().map(|statement| {
            let values = self.values[statement.values.clone()].iter();
            let params = values.map(|value| match &value.bytes {
                Some(bytes) => Param::Encoded { oid: value.type_oid, value: &self.bytes[bytes.clone()] },
                None => Param::Null(value.type_oid),
            });
            (&statement.sql, params.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_keeps_its_values_until_it_is_sent() {
        let (first, second): (Rc<str>, Rc<str>) = ("first".into(), "second".into());
        let unit = Unit::of(&first, &[Param::I64(7), Param::Null(20), Param::Text("é")]).and(&second, &[]);
        let unit = unit.checked().unwrap();
        let statements: Vec<_> = unit.statements().collect();
        assert_eq!((statements[0].0, statements[1].0), (&first, &second));
        let seven = 7_i64.to_be_bytes();
        let expected = [
            Param::Encoded { oid: 20, value: &seven },
            Param::Null(20),
            Param::Encoded { oid: 25, value: "é".as_bytes() },
        ];
        assert_eq!((&statements[0].1[..], statements[1].1.len()), (&expected[..], 0));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_when_it_is_submitted() {
        let nul: Rc<str> = "SELECT '\0'".into();
        let good: Rc<str> = "SELECT 1".into();
        for unit in [Unit::default(), Unit::of(&good, &[]).and(&nul, &[]).and(&good, &[])] {
            assert!(matches!(unit.checked(), Err(Error::Usage { .. })));
        }
        let many = vec![Param::I64(0); PARAMS_MAX + 1];
        assert!(Unit::of(&good, &many).checked().is_err());
    }
}
