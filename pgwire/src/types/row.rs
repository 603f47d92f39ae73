//! The rows of a result.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::decode::FromColumn;
use super::oid::Oid;
use crate::error::{ColumnError, ColumnProblem, Error, ProtocolError};

/// The format of a value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text: the results of a simple query.
    Text,
    /// The type's binary format: all other results.
    Binary,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// The format of its values.
    pub format: Format,
}

impl Column {
    pub(crate) fn in_binary(&self) -> Self {
        Self { format: Format::Binary, ..self.clone() }
    }
}

/// The values of a row as received.
///
/// **Invariant:** `bytes` holds `fields` values, and nothing else. The walk over a DataRow in `core/message.rs` checks
/// this on arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow {
    fields: usize,
    /// For each value a length as `i32`, which is negative for NULL, and the value's bytes. It is a slice of the chunk
    /// that the row was read with. The chunk lives as long as one of its rows.
    bytes: Bytes,
}

impl DataRow {
    /// A row of this many values, whose bytes were checked.
    pub(crate) fn checked(fields: usize, bytes: Bytes) -> Self {
        Self { fields, bytes }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.fields
    }

    /// Whether the row has no values.
    pub fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// The value with this index, from 0. `None` if there is no such value, `Some(None)` for NULL.
    ///
    /// The search starts at the first value, because rows are narrow and a table of offsets for each row would cost
    /// more.
    fn field(&self, index: usize) -> Option<Option<&[u8]>> {
        if index >= self.fields {
            return None;
        }
        let mut rest: &[u8] = &self.bytes;
        for _ in 0..index {
            take_value(&mut rest);
        }
        Some(take_value(&mut rest))
    }
}

/// Takes the first of the values.
fn take_value<'a>(values: &mut &'a [u8]) -> Option<&'a [u8]> {
    match usize::try_from(values.get_i32()) {
        Ok(length_bytes) => {
            let (value, rest) = values.split_at(length_bytes);
            *values = rest;
            Some(value)
        }
        // NULL has the length -1.
        Err(_) => None,
    }
}

/// A row. Its getters check the type of the column, and never panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    columns: Arc<[Column]>,
    data: DataRow,
}

impl Row {
    pub(crate) fn new(columns: Arc<[Column]>, data: DataRow) -> Result<Self, ProtocolError> {
        if columns.len() != data.len() {
            return Err(ProtocolError::RowWidth { values: data.len(), columns: columns.len() });
        }
        Ok(Self { columns, data })
    }

    /// The row's columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The bytes of a value of any type, as received. `None` for NULL.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column.
    pub fn raw(&self, index: usize) -> Result<Option<&[u8]>, Error> {
        self.data.field(index).ok_or_else(|| column_error(index, ColumnProblem::Absent))
    }

    /// The value of a column that may be NULL.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column, or it has another type.
    pub fn get_opt<'a, T: FromColumn<'a>>(&'a self, index: usize) -> Result<Option<T>, Error> {
        let value = self.raw(index)?;
        // The value exists, and there are as many columns as values.
        let column = &self.columns[index];
        if !T::accepts(column.type_oid) {
            return Err(column_error(index, ColumnProblem::WrongType { type_oid: column.type_oid }));
        }
        let Some(bytes) = value else { return Ok(None) };
        if column.format == Format::Text && !T::READS_TEXT {
            return Err(column_error(index, ColumnProblem::NotBinary));
        }
        T::decode(column.type_oid, column.format, bytes).map(Some).map_err(|problem| column_error(index, problem))
    }

    /// The value of a column that is never NULL.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column, it has another type, or the value is NULL.
    pub fn get<'a, T: FromColumn<'a>>(&'a self, index: usize) -> Result<T, Error> {
        self.get_opt(index)?.ok_or_else(|| column_error(index, ColumnProblem::Null))
    }
}

macro_rules! getters {
    ($($get:ident, $get_opt:ident -> $ty:ty, $doc:literal;)*) => {
        impl Row {
            $(
                #[doc = concat!("The value of a ", $doc, " column.\n\n# Errors\nAs [`Row::get`].")]
                pub fn $get(&self, index: usize) -> Result<$ty, Error> {
                    self.get(index)
                }

                #[doc = concat!("The value of a ", $doc, " column that may be NULL.\n\n# Errors\nAs [`Row::get_opt`].")]
                pub fn $get_opt(&self, index: usize) -> Result<Option<$ty>, Error> {
                    self.get_opt(index)
                }
            )*
        }
    };
}

getters! {
    get_bool, get_opt_bool -> bool, "`bool`";
    get_i32, get_opt_i32 -> i32, "`integer` or `smallint`";
    get_i64, get_opt_i64 -> i64, "`bigint`, `integer`, `smallint` or `oid`";
    get_f64, get_opt_f64 -> f64, "`double precision`";
    get_str, get_opt_str -> &str, "`text`, `varchar`, `char`, `name`, `json` or `jsonb`";
    get_bytes, get_opt_bytes -> &[u8], "`bytea`";
    get_uuid, get_opt_uuid -> [u8; 16], "`uuid`";
    get_i32_array, get_opt_i32_array -> Vec<i32>, "`integer[]`";
    get_i64_array, get_opt_i64_array -> Vec<i64>, "`bigint[]`";
    get_str_array, get_opt_str_array -> Vec<&str>, "`text[]`";
    get_uuid_array, get_opt_uuid_array -> Vec<[u8; 16]>, "`uuid[]`";
}

impl Row {
    /// The value of a `timestamptz` column, in microseconds since 1970-01-01 00:00:00 UTC. The infinities, and values
    /// out of range, are the least and the greatest `i64`.
    ///
    /// # Errors
    /// As [`Row::get`].
    pub fn get_timestamptz_us(&self, index: usize) -> Result<i64, Error> {
        self.get::<super::decode::TimestamptzUs>(index).map(|value| value.0)
    }

    /// The value of a `timestamptz` column that may be NULL, as [`Row::get_timestamptz_us`].
    ///
    /// # Errors
    /// As [`Row::get_opt`].
    pub fn get_opt_timestamptz_us(&self, index: usize) -> Result<Option<i64>, Error> {
        Ok(self.get_opt::<super::decode::TimestamptzUs>(index)?.map(|value| value.0))
    }
}

fn column_error(index: usize, problem: ColumnProblem) -> Error {
    ColumnError { index, problem }.into()
}
