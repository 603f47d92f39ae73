//! The kind of session that a server provides, for `target_session_attrs`.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::core::SimpleQuery;
use crate::deadline::Deadline;
use crate::error::{Error, usage};
use crate::options::TargetSession;
use crate::wire::Wire;

const KIND_CHECK: &str = "the check of target_session_attrs";

/// Whether a session that was just opened is of this kind.
pub(crate) async fn is_of_kind(wire: &mut Wire, wanted: TargetSession, deadline: Deadline) -> Result<bool, Error> {
    Ok(match wanted {
        TargetSession::Any => true,
        TargetSession::Primary => !in_recovery(wire, deadline).await?,
        TargetSession::Standby => in_recovery(wire, deadline).await?,
        TargetSession::ReadWrite => !is_read_only(wire, deadline).await?,
        TargetSession::ReadOnly => is_read_only(wire, deadline).await?,
    })
}

async fn in_recovery(wire: &mut Wire, deadline: Deadline) -> Result<bool, Error> {
    match reported(wire, "in_hot_standby") {
        Some(in_recovery) => Ok(in_recovery),
        None => ask(wire, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END", deadline).await,
    }
}

async fn is_read_only(wire: &mut Wire, deadline: Deadline) -> Result<bool, Error> {
    match (reported(wire, "in_hot_standby"), reported(wire, "default_transaction_read_only")) {
        (Some(standby), Some(read_only)) => Ok(standby || read_only),
        _ => ask(wire, "SHOW transaction_read_only", deadline).await,
    }
}

/// A parameter that the server reports on its own from PostgreSQL 14 on.
fn reported(wire: &Wire, parameter: &str) -> Option<bool> {
    wire.session().parameter(parameter).map(|value| value == "on")
}

/// Runs a query that returns `on` or `off`.
async fn ask(wire: &mut Wire, sql: &str, deadline: Deadline) -> Result<bool, Error> {
    let mut send = BytesMut::new();
    frontend::query(sql, &mut send).map_err(usage("the statement"))?;
    wire.send(&mut send, deadline, KIND_CHECK).await?;
    let mut query = SimpleQuery::default();
    wire.drive(&mut query, deadline, KIND_CHECK).await?;
    let results = query.into_results().map_err(Error::Server)?;
    let row = results.first().and_then(|result| result.rows.first());
    Ok(row.map(|row| row.get_str(0)).transpose()? == Some("on"))
}
