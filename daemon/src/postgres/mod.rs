//! The road to PostgreSQL: connecting, what an error asks for, which database it is, and the schema.
//!
//! ```text
//!   worker    the thread `postgres`, which asks for the cores
//!     └─ client   a channel as one request uses it
//!     └─ pool     a bounded number of channels               work_room   who works on large values, and who waits for that
//!          └─ channel   one connection that many tasks share
//!               └─ connect   a connection with the daemon's settings        remedy   what an error asks for
//!   database, predecessor, schema   what the drain and the commands ask about the server
//! ```

pub mod channel;
pub mod client;
pub mod connect;
pub mod database;
pub mod pool;
pub mod predecessor;
pub mod remedy;
pub mod schema;
pub mod work_room;
pub mod worker;
