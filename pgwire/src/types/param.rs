//! The parameters of a statement. They are sent in binary format.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;

use super::PG_EPOCH_UNIX_US;
use super::array::put_array;
use super::oid::{self, Oid};
use crate::error::Error;

/// The version byte at the start of a binary `jsonb`.
pub(super) const JSONB_VERSION: u8 = 1;

/// A parameter. [`Param::Null`] stands for NULL. The elements of an `…OptArray` may be NULL.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Param<'a> {
    /// NULL of this type.
    Null(Oid),
    /// `bool`
    Bool(bool),
    /// `integer`
    I32(i32),
    /// `bigint`
    I64(i64),
    /// `text`, and the types with the same format: `varchar`, `name`, `json`
    Text(&'a str),
    /// `uuid`
    Uuid([u8; 16]),
    /// `bytea`
    Bytea(&'a [u8]),
    /// `jsonb`, as JSON text, which the server checks
    Jsonb(&'a [u8]),
    /// `timestamptz`, in microseconds since 1970-01-01 00:00:00 UTC
    TimestamptzUs(i64),
    /// `integer[]`
    I32Array(&'a [i32]),
    /// `integer[]`
    I32OptArray(&'a [Option<i32>]),
    /// `bigint[]`
    I64Array(&'a [i64]),
    /// `bigint[]`
    I64OptArray(&'a [Option<i64>]),
    /// `text[]`
    TextArray(&'a [&'a str]),
    /// `text[]`
    TextOptArray(&'a [Option<&'a str>]),
    /// `uuid[]`
    UuidArray(&'a [[u8; 16]]),
    /// `uuid[]`
    UuidOptArray(&'a [Option<[u8; 16]>]),
    /// `bytea[]`
    ByteaArray(&'a [&'a [u8]]),
    /// `bytea[]`
    ByteaOptArray(&'a [Option<&'a [u8]>]),
    /// A value of any type that [`Param::encode`] has encoded before.
    Encoded {
        /// Its type.
        oid: Oid,
        /// The value in binary format.
        value: &'a [u8],
    },
}

impl Param<'_> {
    /// The type that is sent with the parameter.
    pub fn oid(&self) -> Oid {
        match self {
            Self::Null(oid) | Self::Encoded { oid, .. } => *oid,
            Self::Bool(_) => oid::BOOL,
            Self::I32(_) => oid::INT4,
            Self::I64(_) => oid::INT8,
            Self::Text(_) => oid::TEXT,
            Self::Uuid(_) => oid::UUID,
            Self::Bytea(_) => oid::BYTEA,
            Self::Jsonb(_) => oid::JSONB,
            Self::TimestamptzUs(_) => oid::TIMESTAMPTZ,
            Self::I32Array(_) | Self::I32OptArray(_) => oid::INT4_ARRAY,
            Self::I64Array(_) | Self::I64OptArray(_) => oid::INT8_ARRAY,
            Self::TextArray(_) | Self::TextOptArray(_) => oid::TEXT_ARRAY,
            Self::UuidArray(_) | Self::UuidOptArray(_) => oid::UUID_ARRAY,
            Self::ByteaArray(_) | Self::ByteaOptArray(_) => oid::BYTEA_ARRAY,
        }
    }

    /// Whether a prepared statement whose parameter has this type accepts the value. For types that users have created,
    /// the server checks the value.
    pub fn fits(&self, expected: Oid) -> bool {
        match self {
            Self::Null(_) => true,
            Self::Text(_) if oid::is_text_like(expected) => true,
            Self::Encoded { oid: oid::TEXT, .. } if oid::is_text_like(expected) => true,
            _ => self.oid() == expected || expected >= oid::FIRST_USER_DEFINED,
        }
    }

    /// Appends the value in binary format, so that it can be sent later as [`Param::Encoded`]. Returns `false`, with
    /// nothing appended, for NULL.
    ///
    /// # Errors
    /// [`Error::Usage`] if an array or one of its elements is longer than 2 GiB.
    pub fn encode(&self, out: &mut BytesMut) -> Result<bool, Error> {
        match encode(self, out) {
            Ok(is_null) => Ok(matches!(is_null, IsNull::No)),
            Err(error) => Err(Error::Usage { what: format!("a parameter: {error}") }),
        }
    }
}

/// Appends the value of a parameter for Bind.
pub(crate) fn encode(param: &Param<'_>, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
    fn present<T: Copy>(values: &[T]) -> impl ExactSizeIterator<Item = Option<T>> {
        values.iter().copied().map(Some)
    }
    fn optional<T: Copy>(values: &[Option<T>]) -> impl ExactSizeIterator<Item = Option<T>> {
        values.iter().copied()
    }
    let int4 = |value: i32, out: &mut BytesMut| out.put_i32(value);
    let int8 = |value: i64, out: &mut BytesMut| out.put_i64(value);
    let text = |value: &str, out: &mut BytesMut| out.put_slice(value.as_bytes());
    let uuid = |value: [u8; 16], out: &mut BytesMut| out.put_slice(&value);
    let bytea = |value: &[u8], out: &mut BytesMut| out.put_slice(value);
    match *param {
        Param::Null(_) => return Ok(IsNull::Yes),
        Param::Bool(value) => out.put_u8(u8::from(value)),
        Param::I32(value) => out.put_i32(value),
        Param::I64(value) => out.put_i64(value),
        Param::Text(value) => out.put_slice(value.as_bytes()),
        Param::Uuid(value) => out.put_slice(&value),
        Param::Bytea(value) => out.put_slice(value),
        Param::Jsonb(value) => {
            out.put_u8(JSONB_VERSION);
            out.put_slice(value);
        }
        Param::TimestamptzUs(value) => out.put_i64(value.saturating_sub(PG_EPOCH_UNIX_US)),
        Param::I32Array(values) => put_array(out, oid::INT4, present(values), int4)?,
        Param::I32OptArray(values) => put_array(out, oid::INT4, optional(values), int4)?,
        Param::I64Array(values) => put_array(out, oid::INT8, present(values), int8)?,
        Param::I64OptArray(values) => put_array(out, oid::INT8, optional(values), int8)?,
        Param::TextArray(values) => put_array(out, oid::TEXT, present(values), text)?,
        Param::TextOptArray(values) => put_array(out, oid::TEXT, optional(values), text)?,
        Param::UuidArray(values) => put_array(out, oid::UUID, present(values), uuid)?,
        Param::UuidOptArray(values) => put_array(out, oid::UUID, optional(values), uuid)?,
        Param::ByteaArray(values) => put_array(out, oid::BYTEA, present(values), bytea)?,
        Param::ByteaOptArray(values) => put_array(out, oid::BYTEA, optional(values), bytea)?,
        Param::Encoded { value, .. } => out.put_slice(value),
    }
    Ok(IsNull::No)
}

macro_rules! from_value {
    ($($from:ty => $variant:ident, $null:path;)*) => {
        $(
            impl<'a> From<$from> for Param<'a> {
                fn from(value: $from) -> Self {
                    Self::$variant(value)
                }
            }
            impl<'a> From<Option<$from>> for Param<'a> {
                fn from(value: Option<$from>) -> Self {
                    value.map_or(Self::Null($null), Self::$variant)
                }
            }
        )*
    };
}

from_value! {
    bool => Bool, oid::BOOL;
    i32 => I32, oid::INT4;
    i64 => I64, oid::INT8;
    &'a str => Text, oid::TEXT;
    [u8; 16] => Uuid, oid::UUID;
    &'a [u8] => Bytea, oid::BYTEA;
    &'a [i32] => I32Array, oid::INT4_ARRAY;
    &'a [i64] => I64Array, oid::INT8_ARRAY;
    &'a [&'a str] => TextArray, oid::TEXT_ARRAY;
    &'a [[u8; 16]] => UuidArray, oid::UUID_ARRAY;
    &'a [&'a [u8]] => ByteaArray, oid::BYTEA_ARRAY;
}
