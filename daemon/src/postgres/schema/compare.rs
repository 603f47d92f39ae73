//! Compares the schema in the catalogue with what the daemon relies on.

use super::{
    catalogue::{Catalogue, Column, Key},
    difference::Difference,
    expected::{ExpectedKey, ExpectedTable, ExpectedView, Fill, TABLES, VIEWS},
};
use forebay_pgwire::{Connection, Error};

/// What differs in the schema of that name, which is not quoted. Further columns, indexes and tables are no difference, as long
/// as rows can be added without them. It costs one round trip.
///
/// # Errors
/// Those of PostgreSQL.
pub async fn differences(conn: &mut Connection, schema: &str) -> Result<Vec<Difference>, Error> {
    Ok(compare(&Catalogue::read(conn, schema).await?))
}

fn compare(catalogue: &Catalogue) -> Vec<Difference> {
    let mut found = Vec::new();
    for table in &TABLES {
        compare_table(catalogue, table, &mut found);
    }
    let has_foreign_key = catalogue.foreign_keys.iter().any(|(from, to)| from == "partitions" && to == "queues");
    if !has_foreign_key && is_table(catalogue, "partitions") && is_table(catalogue, "queues") {
        found.push(Difference::ForeignKeyMissing);
    }
    for view in &VIEWS {
        compare_view(catalogue, view, &mut found);
    }
    found
}

fn is_table(catalogue: &Catalogue, name: &str) -> bool {
    catalogue.relations.iter().any(|relation| relation.name == name && relation.kind == "r")
}

fn compare_table(catalogue: &Catalogue, expected: &ExpectedTable, found: &mut Vec<Difference>) {
    let table = expected.name;
    let Some(relation) = catalogue.relations.iter().find(|relation| relation.name == table && relation.kind == "r")
    else {
        found.push(Difference::TableMissing { table });
        return;
    };
    if !relation.is_durable {
        found.push(Difference::NotDurable { table });
    }
    if relation.has_row_security {
        found.push(Difference::RowSecurity { table });
    }
    let rules = catalogue.rules.iter().filter(|(of, _)| of == table);
    found.extend(rules.map(|(_, rule)| Difference::Rule { table, rule: rule.clone() }));
    let columns: Vec<&Column> = catalogue.columns.iter().filter(|column| column.relation == table).collect();
    for column in expected.columns {
        match columns.iter().find(|found| found.name == column.name) {
            None => found.push(Difference::ColumnMissing { table, column: column.name }),
            Some(of_catalogue) => {
                compare_column(table, column.name, of_catalogue, (column.type_name, column.fill), found);
            }
        }
    }
    let is_filled =
        |name: &str| expected.columns.iter().any(|column| column.name == name && column.fill != Fill::ByDefault);
    let unfilled =
        columns.iter().filter(|column| column.is_not_null && !column.has_default && !is_filled(&column.name));
    found.extend(unfilled.map(|column| Difference::Unfilled { table, column: column.name.clone() }));
    for key in expected.keys {
        if !catalogue.keys.iter().any(|of_catalogue| of_catalogue.relation == table && keeps(of_catalogue, key)) {
            let (columns, name, guards_delivery) = (key.columns, key.name, expected.guards_delivery);
            found.push(Difference::KeyMissing { table, columns, name, guards_delivery });
        }
    }
}

fn compare_column(
    table: &'static str,
    column: &'static str,
    of_catalogue: &Column,
    (expected, fill): (&'static str, Fill),
    found: &mut Vec<Difference>,
) {
    let type_name = of_catalogue.type_name.as_str();
    // A column of limited length refuses some rows, as a rule does.
    if type_name != expected && (type_name, expected) != ("character varying", "text") {
        found.push(Difference::ColumnType { table, column, found: type_name.to_owned(), expected });
    }
    if of_catalogue.is_lax {
        found.push(Difference::Collation { table, column });
    }
    match fill {
        Fill::ByDefault if (table, column) == ("partitions", "last_seq") => {
            let default = of_catalogue.default.as_deref().unwrap_or("null");
            if !["0", "'0'::bigint"].contains(&default) {
                found.push(Difference::FirstNumber { found: default.to_owned() });
            }
        }
        Fill::ByDefault => {}
        Fill::Always | Fill::Sometimes if of_catalogue.is_generated => {
            found.push(Difference::Generated { table, column });
        }
        Fill::Sometimes if of_catalogue.is_not_null => found.push(Difference::NotNull { table, column }),
        Fill::Always | Fill::Sometimes => {}
    }
    if fill != Fill::Sometimes && !of_catalogue.is_not_null {
        found.push(Difference::Nullable { table, column });
    }
}

/// Whether a unique index keeps what `expected` says.
fn keeps(key: &Key, expected: &ExpectedKey) -> bool {
    key.columns == expected.columns
        && expected.name.is_none_or(|name| key.name == name)
        && (key.predicate.is_none() || key.predicate.as_deref() == expected.predicate)
}

fn compare_view(catalogue: &Catalogue, expected: &ExpectedView, found: &mut Vec<Difference>) {
    let view = expected.name;
    if !catalogue.relations.iter().any(|relation| relation.name == view && relation.kind == "v") {
        found.push(Difference::ViewMissing { view });
        return;
    }
    let mut columns = catalogue.columns.iter().filter(|column| column.relation == view);
    for &(column, type_name) in expected.columns {
        if columns.next().is_none_or(|found| (found.name.as_str(), found.type_name.as_str()) != (column, type_name)) {
            found.push(Difference::ViewColumn { view, column });
        }
    }
}
