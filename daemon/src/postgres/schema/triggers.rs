//! Users' triggers on the daemon's tables. Their functions run in the daemon's sessions, whose `search_path` leads to the system's
//! names only: a name without a schema that means something else is not found there.

use super::catalogue::RELATIONS;
use forebay_pgwire::{Connection, Error, Param, Row};
use std::collections::BTreeSet;

/// All triggers that fire, and the source of their functions where those may look for names: written in a language that does, and
/// without a `search_path` of their own. Bits of `tgtype`: 1 for each row, 2 before it.
const TRIGGERS: &str = "SELECT c.relname::text, t.tgname::text, p.oid::regprocedure::text, t.tgtype & 3 = 3, \
     CASE WHEN l.lanname NOT IN ('internal', 'c') \
     AND NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting LIKE 'search\\_path=%') THEN p.prosrc END \
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang \
     WHERE n.nspname = $1 AND c.relname = ANY ($2) AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') \
     ORDER BY 1, 2";

/// Which of the names are those of a table, function or type of a user's, and none of the system's.
const NAMES_OF_USERS: &str = "WITH named AS ( \
         SELECT relname AS name, relnamespace AS space FROM pg_class WHERE relname = ANY ($1) \
         UNION ALL SELECT proname, pronamespace FROM pg_proc WHERE proname = ANY ($1) \
         UNION ALL SELECT typname, typnamespace FROM pg_type WHERE typname = ANY ($1) \
     ) SELECT named.name::text FROM named JOIN pg_namespace n ON n.oid = named.space \
     GROUP BY named.name HAVING bool_and(n.nspname NOT IN ('pg_catalog', 'information_schema'))";

/// A trigger whose function may not find what it means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the trigger {trigger:?} on {table} calls {function}, which names {} without a schema and has no search_path of its own",
    names.join(", ")
)]
pub struct TriggerWarning {
    /// The table.
    pub table: String,
    /// The trigger.
    pub trigger: String,
    /// The function with the types of its parameters.
    pub function: String,
    /// The names.
    pub names: Vec<String>,
}

/// A trigger of a user's on one of the daemon's tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{trigger:?} on {table}, which calls {function}")]
pub struct UserTrigger {
    /// The table.
    pub table: String,
    /// The trigger.
    pub trigger: String,
    /// The function with the types of its parameters.
    pub function: String,
    /// Whether it fires before a row is written, so that it can keep the row from being written.
    pub may_skip_rows: bool,
}

impl UserTrigger {
    /// Whether it is on a table in which the daemon keeps its own books, where nothing but the daemon should write.
    #[must_use]
    pub fn is_on_the_books(&self) -> bool {
        !["messages", "dead_letters"].contains(&self.table.as_str())
    }
}

/// Several triggers as one text.
#[must_use]
pub fn listed(triggers: &[UserTrigger]) -> String {
    triggers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What there is to say of users' triggers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerReport {
    /// All of them.
    pub triggers: Vec<UserTrigger>,
    /// Those that may fail.
    pub warnings: Vec<TriggerWarning>,
}

/// All triggers of users on the daemon's tables that are enabled. `schema` is not quoted.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn all(conn: &mut Connection, schema: &str) -> Result<Vec<UserTrigger>, Error> {
    let rows = conn.query_once(TRIGGERS, &[Param::Text(schema), Param::TextArray(&RELATIONS)]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<UserTrigger, Error> {
    let text = |index| row.get_str(index).map(str::to_owned);
    Ok(UserTrigger { table: text(0)?, trigger: text(1)?, function: text(2)?, may_skip_rows: row.get_bool(3)? })
}

/// Looks for triggers, and for those that may not find what they mean. `schema` is not quoted.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn report(conn: &mut Connection, schema: &str) -> Result<TriggerReport, Error> {
    let rows = conn.query_once(TRIGGERS, &[Param::Text(schema), Param::TextArray(&RELATIONS)]).await?;
    let mut report = TriggerReport::default();
    for row in &rows {
        let found = read(row)?;
        if let Some(source) = row.get_opt_str(4)? {
            report.warnings.extend(warning(conn, &found, source).await?);
        }
        report.triggers.push(found);
    }
    Ok(report)
}

/// Whether a trigger, whose function has that source, may not find what it means.
async fn warning(conn: &mut Connection, found: &UserTrigger, source: &str) -> Result<Option<TriggerWarning>, Error> {
    let words = unqualified_names(source);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let names = conn.query_once(NAMES_OF_USERS, &[Param::TextArray(&words)]).await?;
    if names.is_empty() {
        return Ok(None);
    }
    let mut names = names.iter().map(|row| row.get_str(0).map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    let UserTrigger { table, trigger, function, .. } = found.clone();
    Ok(Some(TriggerWarning { table, trigger, function, names }))
}

/// The names in the source of a function that stand neither before nor behind a dot. What is between quotes counts only where
/// the function builds statements.
fn unqualified_names(source: &str) -> BTreeSet<String> {
    let builds_statements = source.to_ascii_lowercase().contains("execute");
    let mut names = BTreeSet::new();
    let (mut rest, mut is_behind_dot) = (source, false);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' if !builds_statements => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            _ if first.is_alphabetic() || first == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_before_dot = after.trim_start().starts_with('.');
        let name = match first {
            '"' => Some(token.trim_matches('"').to_owned()),
            _ if first.is_alphabetic() || first == '_' => Some(token.to_lowercase()),
            _ => None,
        };
        if let Some(name) = name.filter(|_| !is_behind_dot && !is_before_dot) {
            names.insert(name);
        }
        if !first.is_whitespace() {
            is_behind_dot = first == '.';
        }
        rest = after;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_a_schema_are_found() {
        let found = |source: &str| unqualified_names(source).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(found("INSERT INTO audit VALUES (NEW.payload)"), "audit insert into values");
        assert_eq!(found("SELECT public.f(x), public . \"g\" FROM \"Odd name\""), "Odd name from select x");
        assert_eq!(found("-- of audit\nf() /* g() */ || 'h()'"), "f");
        assert_eq!(found("EXECUTE 'INSERT INTO audit'"), "audit execute insert into");
        assert_eq!(found("x := 'never closed"), "x");
    }
}
