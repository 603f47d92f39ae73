//! Reads the tables and the `vector` blocks of `docs/log-format.md`. The crates whose formats the page describes share it.

use std::{collections::BTreeMap, ops::Range, path::Path};

/// The page.
pub(crate) struct Page {
    text: String,
}

/// A table of fields that are encoded one after the other.
pub(crate) struct ByteTable {
    fields: Vec<Field>,
}

/// A row of a [`ByteTable`].
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) at: Range<usize>,
    pub(crate) meaning: String,
}

/// A `vector` block: named fields, and their encoding.
pub(crate) struct Vector {
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) bytes: Vec<u8>,
}

impl Page {
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/log-format.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { text }
    }

    /// The rows of the tables below a heading, without the heads. Each row is its cells.
    pub(crate) fn rows(&self, heading: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let mut lines = self.text.lines().skip_while(|line| *line != heading).skip(1);
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let mut lines = lines.by_ref().take_while(|line| !line.starts_with('#'));
        lines.find(|line| line.starts_with('|') && cells(line) == columns).expect("the table is below its heading");
        let rows: Vec<_> = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
        assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == columns.len()), "{heading}: {rows:?}");
        rows
    }

    /// The byte table below a heading. Its fields follow each other without gaps.
    pub(crate) fn byte_table(&self, heading: &str) -> ByteTable {
        let rows = self.rows(heading, &["offset", "size", "field", "type", "meaning"]);
        let mut end = 0;
        let fields = rows.iter().map(|row| {
            let number = |cell: &str| -> usize { cell.parse().unwrap() };
            let at = number(&row[0])..number(&row[0]) + number(&row[1]);
            assert_eq!(at.start, end, "{} starts where the field before ends", row[2]);
            end = at.end;
            let bits = row[3].strip_prefix(['u', 'i']).map(number);
            assert!(bits.map_or(row[3] == "bytes", |bits| bits == at.len() * 8), "{} has the size of its type", row[2]);
            Field { name: row[2].trim_matches('`').to_owned(), at, meaning: row[4].clone() }
        });
        ByteTable { fields: fields.collect() }
    }

    /// Names of all vectors, in the page's order.
    pub(crate) fn vector_names(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("```vector ")).collect()
    }

    /// The vector of that name.
    pub(crate) fn vector(&self, name: &str) -> Vector {
        let opening = format!("```vector {name}");
        let block = self.text.lines().skip_while(|line| *line != opening).skip(1).take_while(|line| *line != "```");
        let (mut fields, mut bytes) = (BTreeMap::new(), Vec::new());
        for line in block {
            if let Some((field, value)) = line.split_once('=') {
                assert!(bytes.is_empty(), "{name}: fields come first");
                let before = fields.insert(field.trim().to_owned(), value.trim().to_owned());
                assert_eq!(before, None, "{name}: {field} stands once");
            } else {
                let (offset, dump) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
                assert_eq!(usize::from_str_radix(offset, 16), Ok(bytes.len()), "{name}: offsets count the bytes");
                bytes.extend(dump.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
            }
        }
        assert!(!fields.is_empty(), "there is a vector {name}");
        Vector { fields, bytes }
    }
}

impl ByteTable {
    /// Bytes of all fields.
    pub(crate) fn len(&self) -> usize {
        self.fields.last().unwrap().at.end
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|field| field.name.as_str()).collect()
    }

    pub(crate) fn field(&self, name: &str) -> &Field {
        self.fields.iter().find(|field| field.name == name).unwrap_or_else(|| panic!("the table has a field {name}"))
    }

    /// The unsigned integer in a field of `bytes`.
    pub(crate) fn integer(&self, bytes: &[u8], name: &str) -> u64 {
        bytes[self.field(name).at.clone()].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Asserts that `changed` differs from `base` in this field, and outside it at most in `also`.
    pub(crate) fn assert_only_changed(&self, name: &str, base: &[u8], changed: &[u8], also: &[&str]) {
        let differs = |at: &Range<usize>| base[at.clone()] != changed[at.clone()];
        let differing: Vec<_> =
            self.fields.iter().filter(|field| differs(&field.at)).map(|field| &field.name).collect();
        assert!(differing.iter().any(|field| *field == name), "{name} shows in its bytes: {differing:?}");
        let unexpected = differing.iter().find(|field| **field != name && !also.contains(&field.as_str()));
        assert_eq!(unexpected, None, "nothing but {name} shows it");
    }
}

impl Field {
    /// The text in the meaning between the first two backticks.
    pub(crate) fn quoted(&self) -> &str {
        self.meaning.split('`').nth(1).unwrap_or_else(|| panic!("{} has a value", self.name))
    }
}

impl Vector {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields.get(field).unwrap_or_else(|| panic!("the vector has {field}"))
    }

    /// A number in decimal, or in hex behind `0x`.
    pub(crate) fn number<N: TryFrom<i128, Error: std::fmt::Debug>>(&self, field: &str) -> N {
        let text = self.text(field);
        let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| i128::from_str_radix(hex, 16));
        N::try_from(number.unwrap()).unwrap()
    }

    /// A UUID's bytes.
    pub(crate) fn uuid(&self, field: &str) -> [u8; 16] {
        let hex: String = self.text(field).split('-').collect();
        assert_eq!(hex.len(), 32, "{field}");
        u128::from_str_radix(&hex, 16).unwrap().to_be_bytes()
    }
}
