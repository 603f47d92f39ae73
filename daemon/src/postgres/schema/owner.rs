//! Whom the schema belongs to. Whoever owns it, or a table in it, can have their own code run with the rights of each session
//! that uses it: by a view, a trigger, a rule or a default. So the schema of a stranger is not touched.

use super::{SchemaError, catalogue::RELATIONS};
use forebay_pgwire::{Connection, Error, Param, QueryResult, oid};

/// Each finding: its kind, the name of the object, and the role, which is null for everybody.
///
/// Membership is read from the catalogue, since a superuser counts as a member of every role.
const FINDINGS: &str = "\
    WITH RECURSIVE mine AS ( \
        SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user \
        UNION SELECT m.roleid FROM pg_auth_members m JOIN mine ON m.member = mine.oid \
    ), named AS ( \
        SELECT r.oid FROM pg_roles r WHERE r.rolsuper OR r.rolname = $2 OR r.oid IN (SELECT oid FROM mine) \
    ), trusted AS ( \
        SELECT oid FROM named \
        UNION SELECT r.oid FROM pg_roles r JOIN pg_database d ON d.datname = current_database() \
        WHERE r.rolname = 'pg_database_owner' AND d.datdba IN (SELECT oid FROM named) \
    ), space AS (SELECT oid, nspowner, nspacl FROM pg_namespace WHERE nspname = $1) \
    SELECT 'schema', NULL::text, pg_get_userbyid(nspowner)::text FROM space \
    WHERE nspowner NOT IN (SELECT oid FROM trusted) \
    UNION ALL \
    SELECT 'relation', c.relname::text, pg_get_userbyid(c.relowner)::text FROM space \
    JOIN pg_class c ON c.relnamespace = space.oid \
    WHERE c.relname = ANY ($3) AND c.relowner NOT IN (SELECT oid FROM trusted) \
    UNION ALL \
    SELECT 'relation', p.proname::text, pg_get_userbyid(p.proowner)::text FROM space \
    JOIN pg_proc p ON p.pronamespace = space.oid \
    WHERE p.proname = 'try_messages' AND p.proowner NOT IN (SELECT oid FROM trusted) \
    UNION ALL \
    SELECT 'create', NULL, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END \
    FROM space CROSS JOIN LATERAL aclexplode(nspacl) a \
    WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (SELECT oid FROM trusted)";

/// The schema of Forebay's tables, and whom it may belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSettings {
    /// Its name, not quoted.
    pub name: String,
    /// A role that may own it, beside the role of the session, those that it is a member of, and superusers.
    pub owner: Option<String>,
}

/// What gives a stranger power over the sessions that use the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrangersPower {
    /// The schema is a stranger's.
    #[error("the schema belongs to the role {role:?}")]
    Schema {
        /// The stranger.
        role: String,
    },
    /// A table, view or function is a stranger's.
    #[error("{relation} belongs to the role {role:?}")]
    Relation {
        /// The table, view or function.
        relation: String,
        /// The stranger.
        role: String,
    },
    /// A stranger may put objects into the schema.
    #[error("{} may create objects in the schema", role.as_ref().map_or("everybody (PUBLIC)".to_owned(), |role| format!("the role {role:?}")))]
    Create {
        /// The stranger; `None` for everybody.
        role: Option<String>,
    },
}

/// The schema is not trusted. Next step: a person takes it away from the strangers, or says that they are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the schema {schema:?} is not trusted: {}. Give it to the role of --postgres (ALTER … OWNER TO, REVOKE CREATE ON SCHEMA), \
     or name a trusted owner with --schema-owner",
    join(strangers)
)]
pub struct UntrustedSchema {
    /// Its name.
    pub schema: String,
    /// Why, at least one reason.
    pub strangers: Vec<StrangersPower>,
}

fn join(strangers: &[StrangersPower]) -> String {
    strangers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl SchemaSettings {
    /// A schema that belongs to the role of the session.
    #[must_use]
    pub fn own(name: &str) -> Self {
        Self { name: name.to_owned(), owner: None }
    }

    /// Asks whom the schema belongs to.
    ///
    /// # Errors
    /// [`SchemaError::Untrusted`] if a stranger has power over it; those of PostgreSQL.
    pub async fn check(&self, conn: &mut Connection) -> Result<(), SchemaError> {
        let (question, params) = self.question();
        let outcome = conn.pipeline().once(question, &params).run().await?;
        let answer = outcome.into_results()?;
        let untrusted = answer.first().map_or(Ok(None), |answer| self.untrusted(answer))?;
        untrusted.map_or(Ok(()), |untrusted| Err(untrusted.into()))
    }

    /// The question whom the schema belongs to: a statement that reads the system's catalogue only, and its parameters.
    pub(in crate::postgres) fn question(&self) -> (&'static str, [Param<'_>; 3]) {
        let owner = self.owner.as_deref().map_or(Param::Null(oid::TEXT), Param::Text);
        (FINDINGS, [Param::Text(&self.name), owner, Param::TextArray(&RELATIONS)])
    }

    /// Reads the answer: `None` if the schema is trusted, or not there.
    pub(in crate::postgres) fn untrusted(&self, answer: &QueryResult) -> Result<Option<UntrustedSchema>, Error> {
        let read = |row: &forebay_pgwire::Row| {
            let role = row.get_opt_str(2)?.map(str::to_owned);
            Ok(match (row.get_str(0)?, role) {
                ("schema", Some(role)) => StrangersPower::Schema { role },
                ("relation", Some(role)) => StrangersPower::Relation { relation: row.get_str(1)?.to_owned(), role },
                (_, role) => StrangersPower::Create { role },
            })
        };
        let strangers: Vec<_> = answer.rows.iter().map(read).collect::<Result<_, Error>>()?;
        Ok((!strangers.is_empty()).then(|| UntrustedSchema { schema: self.name.clone(), strangers }))
    }
}
