//! Rows of a result.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::decode::FromColumn;
use super::oid::Oid;
use crate::error::{ColumnError, ColumnProblem, Error, ProtocolError};

/// How a value is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text: results of a simple query.
    Text,
    /// In the type's binary form: everything else.
    Binary,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// How its values are written.
    pub format: Format,
}

impl Column {
    pub(crate) fn in_binary(&self) -> Self {
        Self { format: Format::Binary, ..self.clone() }
    }
}

/// The values of a row as received. Its shape was checked when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow {
    fields: usize,
    /// For each field a length i32 (negative for NULL) and its bytes. A slice of the chunk it was read with, which
    /// lives as long as a row of it does.
    bytes: Bytes,
}

impl DataRow {
    /// Takes bytes that were walked to their end and hold this many fields.
    pub(crate) fn checked(fields: usize, bytes: Bytes) -> Self {
        Self { fields, bytes }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.fields
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// The value at a place from 0: `None` if there is no such place, `Some(None)` for NULL.
    ///
    /// It walks from the front: rows are narrow, and a table of offsets for each would cost more.
    fn field(&self, index: usize) -> Option<Option<&[u8]>> {
        if index >= self.fields {
            return None;
        }
        let mut rest: &[u8] = &self.bytes;
        for place in 0..=index {
            let value = match usize::try_from(rest.try_get_i32().ok()?) {
                Ok(length_bytes) => Some(rest.split_off(..length_bytes)?),
                Err(_) => None,
            };
            if place == index {
                return Some(value);
            }
        }
        None
    }
}

/// A row. Getters check the column's type and never panic.
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

    /// Its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The bytes of a value as received, of whatever type; `None` for NULL.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column.
    pub fn raw(&self, index: usize) -> Result<Option<&[u8]>, Error> {
        self.data.field(index).ok_or_else(|| column_error(index, ColumnProblem::Absent))
    }

    /// The value of a column that may be NULL.
    ///
    /// # Errors
    /// [`Error::Column`] if there is no such column, or it is of another type.
    pub fn get_opt<'a, T: FromColumn<'a>>(&'a self, index: usize) -> Result<Option<T>, Error> {
        let value = self.raw(index)?;
        // `raw` has found the place, and there are as many columns as values.
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
    /// [`Error::Column`] if there is no such column, it is of another type, or NULL.
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
    /// The value of a `timestamptz` column, in microseconds since 1970-01-01 00:00:00 UTC. The infinities, and what
    /// would not fit, are the least and greatest `i64`.
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
