//! What differs between the schema in the catalogue and what the daemon relies on.

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// A table is missing, or something else has its name.
    #[error("there is no table {table}")]
    TableMissing {
        /// Its name.
        table: &'static str,
    },
    /// A table does not survive a crash of the server.
    #[error("the table {table} is UNLOGGED or temporary, so a crash of PostgreSQL empties it")]
    NotDurable {
        /// Its name.
        table: &'static str,
    },
    /// Row security is in force for the role.
    #[error("row security of the table {table} is in force for the role, which COPY refuses and which may hide rows")]
    RowSecurity {
        /// Its name.
        table: &'static str,
    },
    /// A rule replaces a statement.
    #[error("the rule {rule:?} of the table {table} runs INSTEAD of statements on it")]
    Rule {
        /// The table.
        table: &'static str,
        /// Its name.
        rule: String,
    },
    /// A column is missing.
    #[error("{table} has no column {column}")]
    ColumnMissing {
        /// The table or view.
        table: &'static str,
        /// Its name.
        column: &'static str,
    },
    /// A column has another type.
    #[error("the column {table}.{column} has the type {found}, not {expected}")]
    ColumnType {
        /// The table or view.
        table: &'static str,
        /// Its name.
        column: &'static str,
        /// Its type.
        found: String,
        /// The type that it should have.
        expected: &'static str,
    },
    /// A column takes different texts for the same.
    #[error("the column {table}.{column} has a collation that takes different texts for equal")]
    Collation {
        /// The table.
        table: &'static str,
        /// Its name.
        column: &'static str,
    },
    /// A column cannot be written to, though the daemon does.
    #[error("the column {table}.{column} is generated, and the daemon writes to it")]
    Generated {
        /// The table.
        table: &'static str,
        /// Its name.
        column: &'static str,
    },
    /// A column must not be null, has no default, and the daemon does not fill it.
    #[error("the column {table}.{column} is NOT NULL without a default, and the daemon does not fill it")]
    Unfilled {
        /// The table.
        table: &'static str,
        /// Its name.
        column: String,
    },
    /// Numbers of a partition begin with another one.
    #[error("the default of the column partitions.last_seq is {found}, not 0")]
    FirstNumber {
        /// The default.
        found: String,
    },
    /// Only some rows are refused: those that leave the column out.
    #[error("the column {table}.{column} is NOT NULL, so rows without it are refused")]
    NotNull {
        /// The table.
        table: &'static str,
        /// Its name.
        column: &'static str,
    },
    /// The daemon always fills it, but others may not.
    #[error("the column {table}.{column} may be null")]
    Nullable {
        /// The table.
        table: &'static str,
        /// Its name.
        column: &'static str,
    },
    /// Nothing keeps values unique that have to be.
    #[error(
        "{table} has no unique index on ({columns}){} that is valid and checked at once",
        name.map_or(String::new(), |name| format!(" with the name {name}"))
    )]
    KeyMissing {
        /// The table.
        table: &'static str,
        /// The columns.
        columns: &'static str,
        /// The name that it needs, if it needs one.
        name: Option<&'static str>,
        /// Whether delivery relies on it.
        guards_delivery: bool,
    },
    /// Partitions may lose their queue.
    #[error("partitions.queue_id has no valid foreign key to queues")]
    ForeignKeyMissing,
    /// A view is missing.
    #[error("there is no view {view}")]
    ViewMissing {
        /// Its name.
        view: &'static str,
    },
    /// A view has other columns.
    #[error("the column {column} of the view {view} is missing, or has another type or place")]
    ViewColumn {
        /// The view.
        view: &'static str,
        /// The column.
        column: &'static str,
    },
}

impl Difference {
    /// Whether delivery has to stop: no row is taken, or a message may be lost, doubled or spoiled. What the table of dead
    /// letters does not take goes to files, so delivery goes on without it.
    #[must_use]
    pub fn stops_delivery(&self) -> bool {
        match self {
            Self::NotDurable { table } => *table != "schema_version",
            Self::TableMissing { table }
            | Self::RowSecurity { table }
            | Self::Rule { table, .. }
            | Self::ColumnMissing { table, .. }
            | Self::ColumnType { table, .. }
            | Self::Collation { table, .. }
            | Self::Generated { table, .. }
            | Self::Unfilled { table, .. } => !["schema_version", "dead_letters"].contains(table),
            Self::FirstNumber { .. } => true,
            Self::KeyMissing { guards_delivery, .. } => *guards_delivery,
            Self::NotNull { .. }
            | Self::Nullable { .. }
            | Self::ForeignKeyMissing
            | Self::ViewMissing { .. }
            | Self::ViewColumn { .. } => false,
        }
    }

    /// Whether making the views again may help.
    #[must_use]
    pub fn is_about_view(&self) -> bool {
        matches!(self, Self::ViewMissing { .. } | Self::ViewColumn { .. })
    }
}

/// Several differences as one text.
#[must_use]
pub fn listed(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
