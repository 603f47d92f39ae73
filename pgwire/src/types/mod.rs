//! Values: the parameters of statements, the rows of results, the rows of a binary COPY.

mod array;
mod copy_rows;
mod decode;
pub mod oid;
mod param;
mod row;

pub use copy_rows::BinaryCopy;
pub use decode::FromColumn;
pub use param::Param;
pub(crate) use param::encode as encode_param;
pub use row::{Column, DataRow, Format, Row};

/// 2000-01-01 00:00:00 UTC, PostgreSQL's epoch, in microseconds since 1970-01-01 00:00:00 UTC.
pub const PG_EPOCH_UNIX_US: i64 = 946_684_800_000_000;
