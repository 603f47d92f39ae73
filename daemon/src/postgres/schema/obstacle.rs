//! Whether the schema can take a row of the drain's at all: the columns of the table of messages, compared with those that the drain
//! fills, and triggers that undo what the drain does without an error.

use super::triggers::{self, UserTrigger};
use forebay_pgwire::{Connection, Error, Param};

/// The columns of `messages` that the drain fills, and the types whose binary form it sends.
const FILLED: [(&str, &[&str]); 8] = [
    ("partition_id", &["bigint"]),
    ("seq", &["bigint"]),
    ("created_at", &["timestamp with time zone"]),
    ("id", &["uuid"]),
    ("trace_id", &["uuid"]),
    ("transaction_key", &["uuid"]),
    ("transaction_id", &["text", "character varying"]),
    ("payload", &["jsonb"]),
];

/// Columns that it fills for some rows, or not at all.
const OPTIONAL: [&str; 4] = ["trace_id", "transaction_key", "transaction_id", "producer_sub"];

/// Why no message can be taken. Next step: a person changes the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaObstacle {
    /// A column was dropped or renamed.
    #[error("the table of messages has no column {column}")]
    Missing {
        /// Its name.
        column: String,
    },
    /// A column has another type.
    #[error("the column {column} of the table of messages has the type {found}, and not {expected}")]
    Type {
        /// Its name.
        column: String,
        /// Its type.
        found: String,
        /// The type that it needs.
        expected: &'static str,
    },
    /// A column was added that every row has to fill.
    #[error(
        "the column {column} of the table of messages must not be null and has no default, and no message fills it"
    )]
    Unfilled {
        /// Its name.
        column: String,
    },
    /// Triggers keep rows as they are.
    #[error(
        "PostgreSQL did not write a row of {table}, without an error: a BEFORE trigger returns NULL. Triggers there: {}",
        triggers::listed(triggers)
    )]
    Skipped {
        /// The table.
        table: &'static str,
        /// Those that may do it, at least one.
        triggers: Vec<UserTrigger>,
    },
}

/// A column as the catalogue has it.
struct Column {
    name: String,
    /// A domain's is that of its base.
    type_name: String,
    /// Whether a row that leaves it out is refused.
    must_be_filled: bool,
}

impl SchemaObstacle {
    /// Looks into the catalogue for the first obstacle. A table that is missing is none: each statement says so by itself.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn find(conn: &mut Connection, schema: &str) -> Result<Option<Self>, Error> {
        const COLUMNS: &str = "SELECT a.attname::text, COALESCE(NULLIF(t.typbasetype, 0), t.oid)::regtype::text, \
             a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let table = format!("{schema}.messages");
        let rows = conn.query_once(COLUMNS, &[Param::Text(&table)]).await?;
        let read = |row: &forebay_pgwire::Row| {
            let (name, type_name) = (row.get_str(0)?.to_owned(), row.get_str(1)?.to_owned());
            Ok(Column { name, type_name, must_be_filled: row.get_bool(2)? })
        };
        let columns: Vec<Column> = rows.iter().map(read).collect::<Result<_, Error>>()?;
        Ok(if columns.is_empty() { None } else { Self::among(&columns) })
    }

    /// Why a row of `table` was not written though it could be: `None` if no trigger explains it. `schema` is not quoted.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub async fn skipped(conn: &mut Connection, schema: &str, table: &'static str) -> Result<Option<Self>, Error> {
        let mut triggers = triggers::all(conn, schema).await?;
        triggers.retain(|trigger| trigger.table == table && trigger.may_skip_rows);
        Ok((!triggers.is_empty()).then_some(Self::Skipped { table, triggers }))
    }

    /// Whether it is why a message is refused with this SQLSTATE. A column that looks wrong may be right after all: a trigger
    /// fills it, or its type has the same binary form.
    #[must_use]
    pub fn explains(&self, sqlstate: &str) -> bool {
        match self {
            Self::Missing { .. } => sqlstate == "42703",
            // In a binary COPY, and in an INSERT.
            Self::Type { .. } => sqlstate.starts_with("22") || sqlstate == "42804",
            Self::Unfilled { .. } => sqlstate == "23502",
            Self::Skipped { .. } => false,
        }
    }

    fn among(columns: &[Column]) -> Option<Self> {
        for (name, types) in FILLED {
            match columns.iter().find(|column| column.name == name) {
                None => return Some(Self::Missing { column: name.to_owned() }),
                Some(column) if !types.contains(&column.type_name.as_str()) => {
                    let found = column.type_name.clone();
                    return Some(Self::Type { column: name.to_owned(), found, expected: types[0] });
                }
                Some(_) => {}
            }
        }
        let is_known = |name: &str| FILLED.iter().any(|(filled, _)| *filled == name) || OPTIONAL.contains(&name);
        let unfilled = columns.iter().find(|column| column.must_be_filled && !is_known(&column.name))?;
        Some(Self::Unfilled { column: unfilled.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(change: impl Fn(&mut Vec<Column>)) -> Option<SchemaObstacle> {
        let column = |(name, types): (&str, &[&str])| Column {
            name: name.to_owned(),
            type_name: types[0].to_owned(),
            must_be_filled: !OPTIONAL.contains(&name),
        };
        let mut columns = FILLED.map(column).into();
        change(&mut columns);
        SchemaObstacle::among(&columns)
    }

    fn added(must_be_filled: bool) -> Column {
        Column { name: "tenant".to_owned(), type_name: "text".to_owned(), must_be_filled }
    }

    #[test]
    fn what_takes_no_row_is_told_and_what_takes_some_is_no_obstacle() {
        assert_eq!(columns(|_| {}), None);
        assert_eq!(columns(|columns| columns.push(added(false))), None);
        assert_eq!(columns(|columns| columns[4].must_be_filled = true), None, "rows with a trace id are taken");
        let column = "tenant".to_owned();
        assert_eq!(columns(|columns| columns.push(added(true))), Some(SchemaObstacle::Unfilled { column }));
        let column = "payload".to_owned();
        let missing = columns(|columns| drop(columns.remove(7)));
        assert_eq!(missing.clone(), Some(SchemaObstacle::Missing { column: column.clone() }));
        let found = "json".to_owned();
        let changed = columns(|columns| columns[7].type_name = "json".to_owned());
        assert_eq!(changed.clone(), Some(SchemaObstacle::Type { column, found, expected: "jsonb" }));
        let explained = |obstacle: Option<SchemaObstacle>| {
            ["22P02", "22P03", "23502", "23514", "42703", "42804", "P0001"]
                .map(|sqlstate| obstacle.as_ref().is_some_and(|obstacle| obstacle.explains(sqlstate)))
        };
        assert_eq!(explained(changed), [true, true, false, false, false, true, false]);
        assert_eq!(explained(missing), [false, false, false, false, true, false, false]);
        let unfilled = columns(|columns| columns.push(added(true)));
        assert_eq!(explained(unfilled), [false, false, true, false, false, false, false]);
    }
}
