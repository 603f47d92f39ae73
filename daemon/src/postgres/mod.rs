//! The road to PostgreSQL: connecting, what an error asks for, which database it is, and the schema.

pub mod channel;
pub mod connect;
pub mod database;
pub mod predecessor;
pub mod remedy;
pub mod schema;
