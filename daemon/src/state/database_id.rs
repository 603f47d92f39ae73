//! What names a database, and where its server stands.

use serde::{Deserialize, Serialize};

/// What names a database for good: a copy of it by SQL has another name, a copy of its server's files has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseId {
    /// Of the server's files, made with them; kept by standbys and backups, not by `pg_upgrade` and `pg_dump`.
    pub system_identifier: i64,
    /// The database's oid in its server.
    pub oid: i64,
}

/// Where a server's own log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlace {
    /// Counts the times that it was restored or promoted.
    pub timeline: u32,
    /// Its insert position in bytes.
    pub lsn: u64,
}

impl std::fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As pg_controldata prints it: without a sign.
        write!(f, "database {} of the system {}", self.oid, self.system_identifier as u64)
    }
}

impl std::fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X} on timeline {}", self.lsn >> 32, self.lsn as u32, self.timeline)
    }
}
