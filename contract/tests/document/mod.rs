//! Reads `CONTRACT.md`: its captioned tables, its golden octets and its clauses.
//!
//! Everything that cannot be read is an error, so that a test never passes because it found nothing.
#![allow(dead_code, reason = "each test program uses its part of this reader")]

/// The document under test.
pub(crate) const CONTRACT: &str = include_str!("../../CONTRACT.md");

/// A Markdown table, its cells trimmed.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// The table that follows the line `*Table: caption*`.
    pub(crate) fn read(text: &str, caption: &str) -> Result<Self, String> {
        let mut lines =
            after_caption(text, &format!("*Table: {caption}*"))?.lines().skip_while(|l| l.is_empty());
        let mut next_row = || lines.next().and_then(cells);
        let columns = next_row().ok_or(format!("table {caption}: no heading"))?;
        let rule = next_row().ok_or(format!("table {caption}: no rule below the heading"))?;
        if rule.iter().any(|cell| cell != "---") {
            return Err(format!("table {caption}: {rule:?} is no rule below the heading"));
        }
        let rows: Vec<_> = std::iter::from_fn(next_row).collect();
        if rows.is_empty() {
            return Err(format!("table {caption}: no rows"));
        }
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            return Err(format!("table {caption}: {row:?} has not {} cells", columns.len()));
        }
        Ok(Self { columns, rows })
    }

    /// The named columns of every row, numbers in decimal.
    pub(crate) fn select(&self, columns: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let places: Vec<usize> = columns
            .iter()
            .map(|name| self.columns.iter().position(|c| c == name).ok_or(format!("no column {name}")))
            .collect::<Result<_, _>>()?;
        Ok(self.rows.iter().map(|row| places.iter().map(|&place| canonical(&row[place])).collect()).collect())
    }
}

/// The octets below the line `*Golden: name*`, and the offset of the first.
pub(crate) fn golden(text: &str, name: &str) -> Result<(usize, Vec<u8>), String> {
    let rest = after_caption(text, &format!("*Golden: {name}*"))?;
    let body = rest.trim_start().strip_prefix("```\n").ok_or(format!("golden {name}: no code block"))?;
    let (body, _) = body.split_once("```").ok_or(format!("golden {name}: its code block has no end"))?;
    let mut first = None;
    let mut octets = Vec::new();
    for line in body.lines() {
        let (offset, hex) = line.split_once(": ").ok_or(format!("golden {name}: {line:?} has no offset"))?;
        let offset =
            usize::from_str_radix(offset, 16).map_err(|e| format!("golden {name}: {offset:?}: {e}"))?;
        if offset != *first.get_or_insert(offset) + octets.len() {
            return Err(format!("golden {name}: offset {offset:#x} does not follow the line before it"));
        }
        for octet in hex.split(' ') {
            octets.push(u8::from_str_radix(octet, 16).map_err(|e| format!("golden {name}: {octet:?}: {e}"))?);
        }
    }
    first.map(|first| (first, octets)).ok_or(format!("golden {name}: no octets"))
}

/// The id of the clause that this line defines: `- **REG-1** …`.
pub(crate) fn defined_clause(line: &str) -> Option<&str> {
    let (id, _) = line.strip_prefix("- **")?.split_once("** ")?;
    (clause_ids(id) == [id]).then_some(id)
}

/// Every clause id that is mentioned in the text, in order.
pub(crate) fn clause_ids(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| {
            word.split_once('-').is_some_and(|(family, number)| {
                (2..=3).contains(&family.len())
                    && family.bytes().all(|b| b.is_ascii_uppercase())
                    && !number.is_empty()
                    && number.bytes().all(|b| b.is_ascii_digit())
            })
        })
        .collect()
}

/// A cell without its code marks; a number in decimal.
fn canonical(cell: &str) -> String {
    let bare = cell.trim_matches('`');
    match bare.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
        Some(Ok(number)) => number.to_string(),
        _ => bare.to_owned(),
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn after_caption<'a>(text: &'a str, caption: &str) -> Result<&'a str, String> {
    let line = format!("\n{caption}\n");
    let mut parts = text.split(line.as_str());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(rest), None) => Ok(rest),
        (_, None, _) => Err(format!("{caption} is not in the document")),
        _ => Err(format!("{caption} is in the document twice")),
    }
}
