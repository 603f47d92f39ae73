//! The drain's settings.

use crate::postgres::schema::owner::SchemaSettings;
use std::time::Duration;

/// What an operator settles about the drain.
#[derive(Clone, Debug)]
pub struct DrainSettings {
    /// The schema of Forebay's tables, and whom it may belong to.
    pub schema: SchemaSettings,
    /// Whether the drain creates a missing schema and migrates an old one.
    pub migrate: bool,
    /// Whether a push may name a queue that PostgreSQL does not have. If not, the drain publishes the list of queues.
    pub auto_create_queues: bool,
    /// Whether each round looks for known transaction ids before it copies, not only after one was met.
    pub always_probe: bool,
    /// Drain connections, from 1 to [`DRAIN_CONNECTIONS_MAX`](crate::limits::DRAIN_CONNECTIONS_MAX).
    pub connections: u8,
    /// How long PostgreSQL may take for a statement.
    pub statement_timeout: Duration,
}
