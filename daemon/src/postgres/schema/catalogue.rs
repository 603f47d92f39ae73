//! The schema as PostgreSQL's catalogue has it.

use super::expected::{TABLES, VIEWS};
use forebay_pgwire::{Connection, Error, Param, Row};

/// Tables and views of the schema: all that a statement of the daemon names.
pub(super) const RELATIONS: [&str; TABLES.len() + VIEWS.len()] = {
    let mut names = [""; TABLES.len() + VIEWS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = if index < TABLES.len() { TABLES[index].name } else { VIEWS[index - TABLES.len()].name };
        index += 1;
    }
    names
};

/// Begins each statement: the relations of the schema `$1` with one of the names `$2`.
macro_rules! of_relations {
    ($columns:literal, $from:literal) => {
        concat!(
            "SELECT c.relname::text, ",
            $columns,
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
            $from,
            " AND n.nspname = $1 AND c.relname = ANY ($2)"
        )
    };
}

const RELATION_STATES: &str =
    of_relations!("c.relkind::text, c.relpersistence = 'p', row_security_active(c.oid)", "WHERE c.relkind <> 'i'");

/// The type of a domain is that of its base. A column without a default may be an identity.
const COLUMNS: &str = of_relations!(
    "a.attname::text, COALESCE(NULLIF(t.typbasetype, 0), t.oid)::regtype::text, \
     a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, \
     a.attgenerated <> '' OR a.attidentity = 'a', COALESCE(NOT l.collisdeterministic, false), \
     pg_get_expr(d.adbin, d.adrelid)",
    "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE true"
);

/// Unique indexes that hold at every moment. An expression has no name.
const KEYS: &str = of_relations!(
    "pg_get_expr(x.indpred, x.indrelid), i.relname::text, \
     (SELECT string_agg(COALESCE(a.attname::text, '?'), ', ' ORDER BY k.place) \
      FROM unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
      LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum WHERE k.place <= x.indnkeyatts)",
    "JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid \
     WHERE x.indisunique AND x.indimmediate AND x.indisvalid AND x.indisready AND x.indislive"
);

const FOREIGN_KEYS: &str = of_relations!(
    "f.relname::text",
    "JOIN pg_constraint o ON o.conrelid = c.oid JOIN pg_class f ON f.oid = o.confrelid \
     WHERE o.contype = 'f' AND o.convalidated AND f.relnamespace = c.relnamespace"
);

const RULES: &str = of_relations!(
    "r.rulename::text",
    "JOIN pg_rewrite r ON r.ev_class = c.oid \
     WHERE r.is_instead AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'D' AND c.relkind <> 'v'"
);

/// A table or view.
pub(super) struct Relation {
    pub(super) name: String,
    /// As in `pg_class`: `r` is a table, `v` a view.
    pub(super) kind: String,
    pub(super) is_durable: bool,
    pub(super) has_row_security: bool,
}

/// A column of a table or view.
pub(super) struct Column {
    pub(super) relation: String,
    pub(super) name: String,
    pub(super) type_name: String,
    pub(super) is_not_null: bool,
    pub(super) has_default: bool,
    /// Whether no value can be given to it.
    pub(super) is_generated: bool,
    /// Whether texts that differ may be equal.
    pub(super) is_lax: bool,
    pub(super) default: Option<String>,
}

/// A unique index.
pub(super) struct Key {
    pub(super) relation: String,
    pub(super) predicate: Option<String>,
    pub(super) name: String,
    pub(super) columns: String,
}

/// What the catalogue has.
pub(super) struct Catalogue {
    pub(super) relations: Vec<Relation>,
    /// In the order of their tables.
    pub(super) columns: Vec<Column>,
    pub(super) keys: Vec<Key>,
    /// Pairs of tables.
    pub(super) foreign_keys: Vec<(String, String)>,
    /// The table and the name of each rule that replaces a statement.
    pub(super) rules: Vec<(String, String)>,
}

impl Catalogue {
    /// Reads it, in one round trip. `schema` is not quoted.
    pub(super) async fn read(conn: &mut Connection, schema: &str) -> Result<Self, Error> {
        let params = [Param::Text(schema), Param::TextArray(&RELATIONS)];
        let ordered = format!("{COLUMNS} ORDER BY c.oid, a.attnum");
        let statements = [RELATION_STATES, &ordered, KEYS, FOREIGN_KEYS, RULES];
        let pipeline = statements.iter().fold(conn.pipeline(), |pipeline, sql| pipeline.once(sql, &params));
        let results = pipeline.run().await?.into_results()?;
        let [relations, columns, keys, foreign_keys, rules] = &results[..] else {
            unreachable!("each statement has a result")
        };
        Ok(Self {
            relations: relations.rows.iter().map(relation).collect::<Result<_, _>>()?,
            columns: columns.rows.iter().map(column).collect::<Result<_, _>>()?,
            keys: keys.rows.iter().map(key).collect::<Result<_, _>>()?,
            foreign_keys: foreign_keys.rows.iter().map(pair).collect::<Result<_, _>>()?,
            rules: rules.rows.iter().map(pair).collect::<Result<_, _>>()?,
        })
    }
}

fn text(row: &Row, index: usize) -> Result<String, Error> {
    row.get_str(index).map(str::to_owned)
}

fn relation(row: &Row) -> Result<Relation, Error> {
    let (name, kind) = (text(row, 0)?, text(row, 1)?);
    Ok(Relation { name, kind, is_durable: row.get_bool(2)?, has_row_security: row.get_bool(3)? })
}

fn column(row: &Row) -> Result<Column, Error> {
    Ok(Column {
        relation: text(row, 0)?,
        name: text(row, 1)?,
        type_name: text(row, 2)?,
        is_not_null: row.get_bool(3)?,
        has_default: row.get_bool(4)?,
        is_generated: row.get_bool(5)?,
        is_lax: row.get_bool(6)?,
        default: row.get_opt_str(7)?.map(str::to_owned),
    })
}

fn key(row: &Row) -> Result<Key, Error> {
    let predicate = row.get_opt_str(1)?.map(str::to_owned);
    Ok(Key { relation: text(row, 0)?, predicate, name: text(row, 2)?, columns: text(row, 3)? })
}

fn pair(row: &Row) -> Result<(String, String), Error> {
    Ok((text(row, 0)?, text(row, 1)?))
}
