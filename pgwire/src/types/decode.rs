//! The decoding of values in a row.

use super::array::read_array;
use super::oid::{self, Oid};
use super::param::JSONB_VERSION;
use super::{Format, PG_EPOCH_UNIX_US};
use crate::error::ColumnProblem;

/// A Rust type that a column can be read as.
pub trait FromColumn<'a>: Sized {
    /// Whether values in text format can be read, too.
    const READS_TEXT: bool = false;

    /// Whether a column of this type can be read.
    fn accepts(type_oid: Oid) -> bool;

    /// Reads a value that is not NULL.
    ///
    /// # Errors
    /// [`ColumnProblem::Malformed`] if the bytes are not a value of the type.
    fn decode(type_oid: Oid, format: Format, bytes: &'a [u8]) -> Result<Self, ColumnProblem>;
}

/// A `timestamptz`, in microseconds since 1970-01-01 00:00:00 UTC.
pub(super) struct TimestamptzUs(pub(super) i64);

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ColumnProblem> {
    bytes.try_into().map_err(|_| ColumnProblem::Malformed)
}

impl FromColumn<'_> for bool {
    fn accepts(type_oid: Oid) -> bool {
        type_oid == oid::BOOL
    }

    fn decode(_: Oid, _: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        Ok(fixed::<1>(bytes)? != [0])
    }
}

impl FromColumn<'_> for i32 {
    fn accepts(type_oid: Oid) -> bool {
        matches!(type_oid, oid::INT4 | oid::INT2)
    }

    fn decode(type_oid: Oid, _: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        match type_oid {
            oid::INT2 => Ok(i16::from_be_bytes(fixed(bytes)?).into()),
            _ => Ok(i32::from_be_bytes(fixed(bytes)?)),
        }
    }
}

impl FromColumn<'_> for i64 {
    fn accepts(type_oid: Oid) -> bool {
        matches!(type_oid, oid::INT8 | oid::INT4 | oid::INT2 | oid::OID)
    }

    fn decode(type_oid: Oid, format: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        match type_oid {
            oid::INT8 => Ok(i64::from_be_bytes(fixed(bytes)?)),
            oid::OID => Ok(u32::from_be_bytes(fixed(bytes)?).into()),
            _ => i32::decode(type_oid, format, bytes).map(i64::from),
        }
    }
}

impl FromColumn<'_> for f64 {
    fn accepts(type_oid: Oid) -> bool {
        type_oid == oid::FLOAT8
    }

    fn decode(_: Oid, _: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        Ok(f64::from_be_bytes(fixed(bytes)?))
    }
}

impl<'a> FromColumn<'a> for &'a str {
    const READS_TEXT: bool = true;

    fn accepts(_: Oid) -> bool {
        // In text format, every type is text. `decode` refuses the binary formats that are not text.
        true
    }

    fn decode(type_oid: Oid, format: Format, bytes: &'a [u8]) -> Result<Self, ColumnProblem> {
        let text = match (format, type_oid) {
            (Format::Text, _) => bytes,
            (Format::Binary, oid::JSONB) => match bytes.split_first() {
                Some((&JSONB_VERSION, text)) => text,
                _ => return Err(ColumnProblem::Malformed),
            },
            (Format::Binary, _) if oid::is_text_like(type_oid) => bytes,
            (Format::Binary, _) => return Err(ColumnProblem::WrongType { type_oid }),
        };
        std::str::from_utf8(text).map_err(|_| ColumnProblem::Malformed)
    }
}

impl<'a> FromColumn<'a> for &'a [u8] {
    fn accepts(type_oid: Oid) -> bool {
        type_oid == oid::BYTEA
    }

    fn decode(_: Oid, _: Format, bytes: &'a [u8]) -> Result<Self, ColumnProblem> {
        Ok(bytes)
    }
}

impl FromColumn<'_> for [u8; 16] {
    fn accepts(type_oid: Oid) -> bool {
        type_oid == oid::UUID
    }

    fn decode(_: Oid, _: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        fixed(bytes)
    }
}

impl FromColumn<'_> for TimestamptzUs {
    fn accepts(type_oid: Oid) -> bool {
        type_oid == oid::TIMESTAMPTZ
    }

    fn decode(_: Oid, _: Format, bytes: &[u8]) -> Result<Self, ColumnProblem> {
        let since_pg_epoch_us = i64::from_be_bytes(fixed(bytes)?);
        // The infinities are the least and the greatest `i64` in PostgreSQL, too.
        Ok(Self(match since_pg_epoch_us {
            i64::MIN => i64::MIN,
            us => us.saturating_add(PG_EPOCH_UNIX_US),
        }))
    }
}

macro_rules! arrays {
    ($($element:ty, $element_oid:path, $array_oid:path;)*) => {
        $(
            impl<'a> FromColumn<'a> for Vec<$element> {
                fn accepts(type_oid: Oid) -> bool {
                    type_oid == $array_oid
                }

                fn decode(_: Oid, format: Format, bytes: &'a [u8]) -> Result<Self, ColumnProblem> {
                    let optional: Vec<Option<$element>> = FromColumn::decode($array_oid, format, bytes)?;
                    optional.into_iter().collect::<Option<_>>().ok_or(ColumnProblem::Null)
                }
            }

            impl<'a> FromColumn<'a> for Vec<Option<$element>> {
                fn accepts(type_oid: Oid) -> bool {
                    type_oid == $array_oid
                }

                fn decode(_: Oid, format: Format, bytes: &'a [u8]) -> Result<Self, ColumnProblem> {
                    read_array(bytes, $element_oid, |element| match element {
                        Some(element) => <$element>::decode($element_oid, format, element).ok().map(Some),
                        None => Some(None),
                    })
                    .ok_or(ColumnProblem::Malformed)
                }
            }
        )*
    };
}

arrays! {
    i32, oid::INT4, oid::INT4_ARRAY;
    i64, oid::INT8, oid::INT8_ARRAY;
    &'a str, oid::TEXT, oid::TEXT_ARRAY;
    [u8; 16], oid::UUID, oid::UUID_ARRAY;
    &'a [u8], oid::BYTEA, oid::BYTEA_ARRAY;
}
