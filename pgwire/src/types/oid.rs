//! The object ids of built-in types. They never change. Source: `src/include/catalog/pg_type.dat` of PostgreSQL.

pub use postgres_protocol::Oid;

/// `bool`
pub const BOOL: Oid = 16;
/// `bytea`
pub const BYTEA: Oid = 17;
/// `name`
pub const NAME: Oid = 19;
/// `bigint`
pub const INT8: Oid = 20;
/// `smallint`
pub const INT2: Oid = 21;
/// `integer`
pub const INT4: Oid = 23;
/// `text`
pub const TEXT: Oid = 25;
/// `oid`
pub const OID: Oid = 26;
/// `json`
pub const JSON: Oid = 114;
/// `double precision`
pub const FLOAT8: Oid = 701;
/// `unknown`, the type of a literal without a type
pub const UNKNOWN: Oid = 705;
/// `char(n)`
pub const BPCHAR: Oid = 1042;
/// `varchar`
pub const VARCHAR: Oid = 1043;
/// `timestamp with time zone`
pub const TIMESTAMPTZ: Oid = 1184;
/// `uuid`
pub const UUID: Oid = 2950;
/// `jsonb`
pub const JSONB: Oid = 3802;

/// `bytea[]`
pub const BYTEA_ARRAY: Oid = 1001;
/// `integer[]`
pub const INT4_ARRAY: Oid = 1007;
/// `text[]`
pub const TEXT_ARRAY: Oid = 1009;
/// `bigint[]`
pub const INT8_ARRAY: Oid = 1016;
/// `uuid[]`
pub const UUID_ARRAY: Oid = 2951;

/// Types from this id on are created by users or extensions. This client does not know their meaning.
pub const FIRST_USER_DEFINED: Oid = 16_384;

/// Whether the type's binary format is its text.
pub(crate) fn is_text_like(oid: Oid) -> bool {
    matches!(oid, TEXT | VARCHAR | BPCHAR | NAME | UNKNOWN | JSON)
}
