//! What the daemon relies on in its schema.

use Fill::{Always, ByDefault, Sometimes};

/// How a column gets its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// From the daemon, in each row.
    Always,
    /// From the daemon in some rows; null in the others.
    Sometimes,
    /// From its default or identity, in each row.
    ByDefault,
}

/// A column of a table.
pub(super) struct ExpectedColumn {
    pub(super) name: &'static str,
    /// Its type as `regtype` shows it.
    pub(super) type_name: &'static str,
    pub(super) fill: Fill,
}

/// Columns whose values are unique.
pub(super) struct ExpectedKey {
    /// The name of the index, if errors are judged by it.
    pub(super) name: Option<&'static str>,
    /// The columns in their order, with commas between.
    pub(super) columns: &'static str,
    /// The condition of a partial index, which may also be a whole one.
    pub(super) predicate: Option<&'static str>,
}

/// A table.
pub(super) struct ExpectedTable {
    pub(super) name: &'static str,
    pub(super) columns: &'static [ExpectedColumn],
    pub(super) keys: &'static [ExpectedKey],
    /// Whether delivery relies on the keys.
    pub(super) guards_delivery: bool,
}

/// A view, which users rely on.
pub(super) struct ExpectedView {
    pub(super) name: &'static str,
    /// The names and types of its columns; users may have added some behind them.
    pub(super) columns: &'static [(&'static str, &'static str)],
}

const fn column(name: &'static str, type_name: &'static str, fill: Fill) -> ExpectedColumn {
    ExpectedColumn { name, type_name, fill }
}

const fn key(columns: &'static str) -> ExpectedKey {
    ExpectedKey { name: None, columns, predicate: None }
}

const TIME: &str = "timestamp with time zone";

pub(super) const TABLES: [ExpectedTable; 11] = [
    ExpectedTable {
        name: "schema_version",
        columns: &[column("version", "integer", Always), column("applied_at", TIME, ByDefault)],
        keys: &[key("version")],
        guards_delivery: false,
    },
    ExpectedTable {
        name: "queues",
        columns: &[
            column("id", "bigint", ByDefault),
            column("name", "text", Always),
            column("namespace", "text", Sometimes),
            column("task", "text", Sometimes),
            column("options", "jsonb", ByDefault),
            column("created_at", TIME, ByDefault),
        ],
        keys: &[key("id"), key("name")],
        guards_delivery: true,
    },
    ExpectedTable {
        name: "partitions",
        columns: &[
            column("id", "bigint", ByDefault),
            column("queue_id", "bigint", Always),
            column("name", "text", Always),
            column("last_seq", "bigint", ByDefault),
            column("created_at", TIME, ByDefault),
            column("first_seq", "bigint", ByDefault),
        ],
        keys: &[key("id"), key("queue_id, name")],
        guards_delivery: true,
    },
    ExpectedTable {
        name: "messages",
        columns: &[
            column("partition_id", "bigint", Always),
            column("seq", "bigint", Always),
            column("created_at", TIME, Always),
            column("id", "uuid", Always),
            column("trace_id", "uuid", Sometimes),
            column("transaction_key", "uuid", Sometimes),
            column("transaction_id", "text", Sometimes),
            column("payload", "jsonb", Always),
            column("producer_sub", "text", Sometimes),
        ],
        keys: &[
            ExpectedKey { name: Some("messages_pkey"), columns: "partition_id, seq", predicate: None },
            ExpectedKey {
                name: Some("messages_transaction"),
                columns: "partition_id, transaction_key",
                predicate: Some("(transaction_key IS NOT NULL)"),
            },
        ],
        guards_delivery: true,
    },
    ExpectedTable {
        name: "dead_letters",
        columns: &[
            column("id", "bigint", ByDefault),
            column("queue", "text", Always),
            column("partition", "text", Always),
            column("message_id", "uuid", Sometimes),
            column("transaction_id", "text", Sometimes),
            column("payload_text", "text", Always),
            column("sqlstate", "text", Always),
            column("error", "text", Always),
            column("source", "text", Always),
            column("created_at", TIME, Always),
            column("failed_at", TIME, ByDefault),
            column("trace_id", "uuid", Sometimes),
            column("namespace", "text", Sometimes),
            column("task", "text", Sometimes),
            column("payload_bytes", "bytea", Sometimes),
            column("record_kind", "integer", Sometimes),
            column("log_id", "uuid", Sometimes),
            column("number", "bigint", Sometimes),
            column("producer_sub", "text", Sometimes),
        ],
        keys: &[key("id")],
        guards_delivery: false,
    },
    ExpectedTable {
        name: "drain_checkpoints",
        columns: &[
            column("log_id", "uuid", Always),
            column("drainer", "integer", Always),
            column("lanes", "integer[]", Always),
            column("positions", "bigint[]", Always),
            column("ordinals", "bigint[]", Always),
            column("rounds", "bigint", ByDefault),
            column("updated_at", TIME, ByDefault),
            column("system_identifier", "bigint", Sometimes),
            column("database_oid", "bigint", Sometimes),
            column("backend_pid", "integer", Sometimes),
            column("backend_start", TIME, Sometimes),
            column("incarnation", "uuid", Sometimes),
            column("round_id", "uuid", Sometimes),
        ],
        keys: &[key("log_id, drainer")],
        guards_delivery: true,
    },
    ExpectedTable {
        name: "log_owners",
        columns: &[
            column("log_id", "uuid", Always),
            column("origin", "uuid", Always),
            column("incarnation", "uuid", Always),
            column("host", "text", Always),
            column("directory", "text", Always),
            column("incarnations", "jsonb", Always),
            column("claimed_at", TIME, ByDefault),
        ],
        keys: &[key("log_id")],
        guards_delivery: true,
    },
    ExpectedTable {
        name: "consumer_groups",
        columns: &[
            column("id", "bigint", ByDefault),
            column("queue_id", "bigint", Always),
            column("name", "text", Always),
            column("subscription_from", TIME, Sometimes),
            column("registered_at", TIME, ByDefault),
        ],
        keys: &[key("id"), key("queue_id, name")],
        guards_delivery: false,
    },
    ExpectedTable {
        name: "cursors",
        columns: &[
            column("partition_id", "bigint", Always),
            column("group_id", "bigint", Always),
            column("cursor_seq", "bigint", ByDefault),
            column("lease_id", "uuid", Sometimes),
            column("lease_seq", "bigint", Sometimes),
            column("free_at", TIME, Sometimes),
            column("acked", "bigint[]", Sometimes),
            column("retried", "boolean", ByDefault),
        ],
        keys: &[key("partition_id, group_id")],
        guards_delivery: false,
    },
    ExpectedTable {
        name: "retries",
        columns: &[
            column("partition_id", "bigint", Always),
            column("group_id", "bigint", Always),
            column("seq", "bigint", Always),
            column("attempts", "integer", Always),
            column("error", "text", Sometimes),
        ],
        keys: &[key("partition_id, group_id, seq")],
        guards_delivery: false,
    },
    ExpectedTable {
        name: "consumer_letters",
        columns: &[
            column("group_id", "bigint", Always),
            column("partition_id", "bigint", Always),
            column("seq", "bigint", Always),
            column("attempts", "integer", Always),
            column("error", "text", Sometimes),
            column("failed_at", TIME, ByDefault),
            column("created_at", TIME, Always),
            column("id", "uuid", Always),
            column("trace_id", "uuid", Sometimes),
            column("transaction_key", "uuid", Sometimes),
            column("transaction_id", "text", Sometimes),
            column("producer_sub", "text", Sometimes),
            column("payload", "jsonb", Always),
        ],
        keys: &[key("group_id, partition_id, seq")],
        guards_delivery: false,
    },
];

pub(super) const VIEWS: [ExpectedView; 2] = [
    ExpectedView {
        name: "message_log",
        columns: &[
            ("queue", "text"),
            ("partition", "text"),
            ("seq", "bigint"),
            ("id", "uuid"),
            ("transaction_id", "text"),
            ("trace_id", "uuid"),
            ("payload", "jsonb"),
            ("created_at", TIME),
        ],
    },
    ExpectedView {
        name: "dead_letters_log",
        columns: &[
            ("queue", "text"),
            ("partition", "text"),
            ("transaction_id", "text"),
            ("payload_text", "text"),
            ("error", "text"),
            ("failed_at", TIME),
            ("source", "text"),
        ],
    },
];
