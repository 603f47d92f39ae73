//! Columns that do not hold what the caller reads from them.

/// A column that does not hold what the caller reads from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {index}: {problem}")]
pub struct ColumnError {
    /// The column's index, from 0.
    pub index: usize,
    /// What is wrong with the column.
    pub problem: ColumnProblem,
}

/// What is wrong with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnProblem {
    /// The row has no such column.
    #[error("no such column")]
    Absent,
    /// The value, or an element of the array, is NULL, and the caller did not ask for an `Option`.
    #[error("unexpected NULL")]
    Null,
    /// The column has another type.
    #[error("unexpected type (oid {type_oid})")]
    WrongType {
        /// The column's type.
        type_oid: u32,
    },
    /// The value is in text format, as in a simple query's result, and only its binary format can be read.
    #[error("a text value, as of a simple query")]
    NotBinary,
    /// The bytes are not a value of the column's type.
    #[error("malformed value")]
    Malformed,
}
