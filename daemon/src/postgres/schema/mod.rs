//! The schema in PostgreSQL, and how it comes there.

mod catalogue;
pub mod compare;
pub mod difference;
mod expected;
pub mod obstacle;
pub mod owner;
pub mod triggers;

use difference::{Difference, listed};
use forebay_pgwire::{Connection, Error, Param};
use owner::UntrustedSchema;

/// The migrations, oldest first; a version is the number of migrations that were carried out.
const MIGRATIONS: [&str; 5] = [
    include_str!("001.sql"),
    include_str!("002.sql"),
    include_str!("003.sql"),
    include_str!("004.sql"),
    include_str!("005.sql"),
];

/// The views, which may be made again at any time.
const VIEWS: &str = include_str!("views.sql");

/// Version that this build needs.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Why the schema is not the one that this release needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// PostgreSQL refused, or the connection was lost. Next step: by the SQLSTATE, see [`super::remedy`].
    #[error(transparent)]
    Postgres(#[from] Error),
    /// A newer release migrated it. Next step: use that release.
    #[error("the schema has version {version}, this release knows {VERSION}: a newer release is needed")]
    TooNew {
        /// The version found.
        version: i32,
    },
    /// It is missing or old, and migration is switched off. Next step: run `forebay schema migrate`.
    #[error("the schema has version {version}, this release needs {VERSION}: run `forebay schema migrate`")]
    NeedsMigration {
        /// The version found; 0 for none.
        version: i32,
    },
    /// A stranger has power over it. Next step: as the text says.
    #[error(transparent)]
    Untrusted(#[from] UntrustedSchema),
    /// Somebody changed it so that messages would be lost, doubled, spoiled or refused. Next step: take the change back.
    #[error(
        "the schema {schema:?} differs from what this release relies on: {}; `forebay schema check` looks again",
        listed(differences)
    )]
    Differs {
        /// Its name.
        schema: String,
        /// What stops delivery, at least one difference.
        differences: Vec<Difference>,
    },
}

/// `name` as an identifier in SQL.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The whole schema as SQL, for an empty database.
#[must_use]
pub fn print(schema: &str) -> String {
    let schema = quoted(schema);
    let mut sql = create_schema(&schema) + &create_version_table(&schema);
    for (index, migration) in MIGRATIONS.iter().enumerate() {
        sql.push_str(&step(&schema, index as i32 + 1, migration));
    }
    sql.push('\n');
    sql.push_str(&create_views(&schema));
    sql
}

fn create_schema(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {schema};\n")
}

fn create_version_table(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {schema}.schema_version (\n    \
             version integer PRIMARY KEY,\n    \
             applied_at timestamptz NOT NULL DEFAULT now()\n);\n"
    )
}

fn create_views(schema: &str) -> String {
    VIEWS.replace("{schema}", schema)
}

fn step(schema: &str, version: i32, migration: &str) -> String {
    let sql = migration.replace("{schema}", schema);
    format!("\n{sql}\nINSERT INTO {schema}.schema_version (version) VALUES ({version});\n")
}

/// Brings the schema up to date, or with `migrate` off only looks whether it is. Several daemons may do so at once.
///
/// # Errors
/// See [`SchemaError`].
pub async fn ensure(conn: &mut Connection, schema: &str, migrate: bool) -> Result<(), SchemaError> {
    match version(conn, schema).await? {
        VERSION => Ok(()),
        version if version > VERSION => Err(SchemaError::TooNew { version }),
        version if !migrate => Err(SchemaError::NeedsMigration { version }),
        _ => {
            let outcome = apply(conn, schema).await;
            if outcome.is_err() && !conn.is_broken() {
                conn.simple("ROLLBACK").await?;
            }
            outcome
        }
    }
}

async fn apply(conn: &mut Connection, schema: &str) -> Result<(), SchemaError> {
    let name = quoted(schema);
    conn.simple("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    // Only where it is missing: making one, even IF NOT EXISTS, takes a right that is needed once. Two daemons at once: it
    // fails for the later one, which then tries again as for any conflict. IF NOT EXISTS would take the schema of a stranger
    // who was faster.
    let missing = conn.query_once("SELECT to_regnamespace($1) IS NULL", &[Param::Text(&name)]).await?;
    if missing.first().map_or(Ok(true), |row| row.get_bool(0))? {
        conn.simple(&format!("CREATE SCHEMA {name}")).await?;
    }
    conn.simple(&create_version_table(&name)).await?;
    conn.simple(&format!("LOCK TABLE {name}.schema_version IN EXCLUSIVE MODE")).await?;
    let from = applied(conn, &name).await?;
    if from > VERSION {
        return Err(SchemaError::TooNew { version: from });
    }
    for version in from..VERSION {
        conn.simple(&step(&name, version + 1, MIGRATIONS[version as usize])).await?;
    }
    conn.simple(&create_views(&name)).await?;
    conn.simple("COMMIT").await?;
    tracing::info!(schema, from, to = VERSION, "the schema was brought up to date");
    Ok(())
}

/// Makes the views of an up-to-date schema again. Users' privileges on those that are there stay.
///
/// # Errors
/// Those of PostgreSQL, for example if a view that is there has other columns.
pub async fn make_views(conn: &mut Connection, schema: &str) -> Result<(), Error> {
    conn.simple(&create_views(&quoted(schema))).await.map(drop)
}

/// Compares the schema with what the daemon relies on, and returns what differs and does not stop delivery.
///
/// # Errors
/// [`SchemaError::Differs`] if something stops delivery; those of PostgreSQL.
pub async fn check(conn: &mut Connection, schema: &str) -> Result<Vec<Difference>, SchemaError> {
    let (differences, others): (Vec<_>, Vec<_>) =
        compare::differences(conn, schema).await?.into_iter().partition(Difference::stops_delivery);
    match differences.is_empty() {
        true => Ok(others),
        false => Err(SchemaError::Differs { schema: schema.to_owned(), differences }),
    }
}

/// The schema's version; 0 if it is not there.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn version(conn: &mut Connection, schema: &str) -> Result<i32, Error> {
    let exists = "SELECT to_regclass($1) IS NOT NULL";
    let table = format!("{}.schema_version", quoted(schema));
    let rows = conn.query_once(exists, &[Param::Text(&table)]).await?;
    match rows.first() {
        Some(row) if row.get_bool(0)? => applied(conn, &quoted(schema)).await,
        _ => Ok(0),
    }
}

async fn applied(conn: &mut Connection, schema: &str) -> Result<i32, Error> {
    let sql = format!("SELECT COALESCE(max(version), 0) FROM {schema}.schema_version");
    let rows = conn.query_once(&sql, &[]).await?;
    rows.first().map_or(Ok(0), |row| row.get_i32(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_schema_s_name_stands_everywhere_quoted() {
        let sql = print("odd\"name");
        assert!(sql.contains("CREATE TABLE \"odd\"\"name\".messages"));
        assert!(!sql.contains("{schema}"));
    }
}
