//! Creates queues and partitions.

use crate::{
    ids,
    limits::IDS_PASSED_MAX,
    message::Labels,
    postgres::remedy::{Remedy, remedy},
};
use forebay_pgwire::{Connection, Error, Param, SqlState};

/// How often the ids of a table are passed over for each name, one statement after the other, until the names have ids.
const PASSES: [usize; 3] = [64, 4096, IDS_PASSED_MAX];

/// Creates names in one schema.
pub(super) struct NameMaker {
    create_queues: String,
    create_partitions: String,
    /// The same where ids are taken that the sequence gives: for each name several ids are tried, and the first free one is
    /// its own. Anything in the way of a row makes PostgreSQL leave it out.
    pass_queues: String,
    pass_partitions: String,
}

impl NameMaker {
    /// For the quoted `schema`.
    pub(super) fn new(schema: &str) -> Self {
        // Everybody creates them in the same order, so that two daemons wait for each other instead of deadlocking. A queue
        // that exists takes no id of the sequence.
        let queues = |per_name: &str, conflict: &str| {
            format!(
                "INSERT INTO {schema}.queues (name, namespace, task) \
                 SELECT q, n, t FROM (SELECT DISTINCT ON (q) q, nullif(n, '') AS n, nullif(t, '') AS t \
                 FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY v(q, n, t, i) \
                 WHERE (SELECT id FROM {schema}.queues WHERE name = v.q) IS NULL ORDER BY q, i) v {per_name} \
                 ORDER BY q ON CONFLICT {conflict} DO NOTHING"
            )
        };
        let partitions = |per_name: &str, conflict: &str| {
            format!(
                "INSERT INTO {schema}.partitions (queue_id, name) \
                 SELECT q.id, v.p FROM unnest($1::text[], $2::text[]) v(q, p) JOIN {schema}.queues q ON q.name = v.q \
                 {per_name} WHERE (SELECT id FROM {schema}.partitions WHERE queue_id = q.id AND name = v.p) IS NULL \
                 ORDER BY q.id, v.p ON CONFLICT {conflict} DO NOTHING"
            )
        };
        Self {
            create_queues: queues("", "(name)"),
            create_partitions: partitions("", "(queue_id, name)"),
            pass_queues: queues("CROSS JOIN generate_series(1, $4::integer)", ""),
            pass_partitions: partitions("CROSS JOIN generate_series(1, $3::integer)", ""),
        }
    }

    /// Creates `names`. They stay whether or not the round that needs them commits.
    ///
    /// # Errors
    /// Those of PostgreSQL. Any of the names may be at fault.
    pub(super) async fn make<'a>(&self, conn: &mut Connection, names: &'a [Labels<'a>]) -> Result<(), Error> {
        let texts = |of: fn(&'a Labels<'a>) -> &'a str| names.iter().map(of).collect::<Vec<_>>();
        let (queues, partitions) = (texts(|labels| labels.queue), texts(|labels| labels.partition));
        let (namespaces, tasks) = (texts(|labels| labels.namespace), texts(|labels| labels.task));
        let labels = [Param::TextArray(&queues), Param::TextArray(&namespaces), Param::TextArray(&tasks)];
        create(conn, &self.create_queues, &self.pass_queues, &labels, names.len()).await?;
        let both = [Param::TextArray(&queues), Param::TextArray(&partitions)];
        create(conn, &self.create_partitions, &self.pass_partitions, &both, names.len()).await
    }

    /// Whether PostgreSQL creates a name that nobody has, which is then rolled back. A refusal that is about that name says that
    /// it would create others.
    ///
    /// # Errors
    /// Those that end the connection.
    pub(super) async fn can_make(&self, conn: &mut Connection) -> Result<bool, Error> {
        let queue = format!("forebay-probe-{}", ids::random());
        let labels = Labels { queue: &queue, partition: &queue, namespace: "", task: "" };
        conn.simple("BEGIN").await?;
        let made = self.make(conn, &[labels]).await;
        if let Err(error) = &made
            && (error.db_error().is_none() || error.ends_connection())
        {
            return made.map(|()| false);
        }
        conn.simple("ROLLBACK").await?;
        Ok(made.as_ref().err().is_none_or(|error| remedy(error) == Remedy::SetAside))
    }
}

/// Carries out `create`, or `pass` if the sequence of ids gives one that is taken.
async fn create(
    conn: &mut Connection,
    create: &str,
    pass: &str,
    params: &[Param<'_>],
    names: usize,
) -> Result<(), Error> {
    let error = match conn.execute_once(create, params).await {
        Err(error) if is_id_taken(&error) => error,
        outcome => return outcome.map(drop),
    };
    tracing::warn!(%error, "ids are passed over: a sequence gives ids that are taken");
    for per_name in PASSES {
        let per_name = (per_name.min(IDS_PASSED_MAX / names)).max(1);
        conn.execute_once(pass, &[params, &[Param::I32(per_name as i32)]].concat()).await?;
        // Nothing is inserted, and no id is taken, unless a name is still missing.
        match conn.execute_once(create, params).await {
            Err(error) if is_id_taken(&error) => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(error)
}

/// Whether a new id is taken: the sequence stands behind the table's ids, as after a repair by hand.
fn is_id_taken(error: &Error) -> bool {
    let is_primary_key = |name: &str| matches!(name, "queues_pkey" | "partitions_pkey");
    error.sqlstate() == Some(SqlState::UNIQUE_VIOLATION)
        && error.db_error().filter(|db| db.context.is_none()).is_some_and(|db| {
            // With a context it is that of a trigger's function.
            db.constraint.as_deref().is_some_and(is_primary_key)
        })
}
