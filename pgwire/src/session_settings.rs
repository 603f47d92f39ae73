//! The settings of a session that was just opened.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::core::SimpleQuery;
use crate::deadline::Deadline;
use crate::error::{Error, usage};
use crate::options::SearchPath;
use crate::wire::Wire;

const SETTINGS: &str = "the session's settings";

/// Sets `search_path` and `settings`, all in one round trip. Nothing else has been asked in the session before.
///
/// # Errors
/// [`Error::Server`] if the server refuses one of them; failures of the connection.
pub(crate) async fn apply(
    wire: &mut Wire,
    search_path: SearchPath,
    settings: &[(String, String)],
    deadline: Deadline,
) -> Result<(), Error> {
    let sql = statements(search_path, settings);
    if sql.is_empty() {
        return Ok(());
    }
    let mut send = BytesMut::new();
    frontend::query(&sql, &mut send).map_err(usage("a setting of the session"))?;
    wire.send(&mut send, deadline, SETTINGS).await?;
    let mut query = SimpleQuery::default();
    wire.drive(&mut query, deadline, SETTINGS).await?;
    query.into_results().map_err(Error::Server).map(drop)
}

/// The statements, which look up no name.
fn statements(search_path: SearchPath, settings: &[(String, String)]) -> String {
    let mut sql = match search_path {
        SearchPath::System => "SET search_path = pg_catalog, pg_temp;".to_owned(),
        SearchPath::Inherited => String::new(),
    };
    for (name, value) in settings {
        sql.push_str(&format!("SET {} = {};", identifier(name), literal(value)));
    }
    sql
}

/// The name of a setting; an extension's has two parts.
fn identifier(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// A text that every server reads alike, whatever `standard_conforming_strings` is set to.
fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_values_whatever_is_in_them() {
        let settings = [("lock_timeout", "5s"), ("a.b\"c", "it's \\")].map(|(name, value)| (name.into(), value.into()));
        let expected = r#"SET "lock_timeout" = E'5s';SET "a"."b""c" = E'it''s \\';"#;
        assert_eq!(statements(SearchPath::Inherited, &settings), expected);
        let with_path = format!("SET search_path = pg_catalog, pg_temp;{expected}");
        assert_eq!(statements(SearchPath::System, &settings), with_path);
        assert_eq!(statements(SearchPath::Inherited, &[]), "");
    }
}
