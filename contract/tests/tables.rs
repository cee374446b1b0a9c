//! Holds the tables of `CONTRACT.md` against the constants, both ways.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod document;
mod expected;

use document::{CONTRACT, Table};
use expected::{Expected, expected_tables};

/// What differs between the tables of the text and the constants.
fn differences(text: &str) -> Vec<String> {
    expected_tables().iter().flat_map(|table| table_differences(text, table)).collect()
}

fn table_differences(text: &str, expected: &Expected) -> Vec<String> {
    let found = Table::read(text, expected.caption).and_then(|table| table.select(expected.columns));
    let mut constants = expected.rows.clone();
    let mut differences = Vec::new();
    match found {
        Err(why) => differences.push(why),
        Ok(rows) => {
            for row in rows {
                match constants.iter().position(|constant| *constant == row) {
                    Some(place) => drop(constants.swap_remove(place)),
                    None => {
                        differences.push(format!("{}: the row {row:?} has no constant", expected.caption))
                    }
                }
            }
        }
    }
    differences
        .extend(constants.iter().map(|c| format!("{}: the constant {c:?} has no row", expected.caption)));
    differences
}

#[test]
fn document_tables_match_constants() {
    assert_eq!(differences(CONTRACT), Vec::<String>::new());
}

#[test]
fn the_stated_contract_version_is_the_crates() {
    let clause = CONTRACT.lines().find(|line| document::defined_clause(line) == Some("ID-2")).unwrap();
    assert!(clause.contains(&format!("0x{:08X}", qkd_contract::registers::VERSION_VALUE)), "{clause}");
}

#[test]
fn host_registers_that_do_not_read_zero_after_a_reset() {
    let resets = Table::read(CONTRACT, "registers")
        .and_then(|t| t.select(&["Name", "Writer", "Power-on", "Function reset"]))
        .unwrap();
    for row in resets {
        if row[1] == "host" {
            assert_eq!(row[2..], ["0", "0"], "{} (REG-7)", row[0]);
        }
    }
}

/// Lines of the text that are rows of the table, by line number.
fn row_lines(text: &str, caption: &str) -> Vec<usize> {
    let start = text.lines().position(|line| line == format!("*Table: {caption}*")).unwrap();
    let rows = text.lines().enumerate().skip(start + 1).skip_while(|(_, line)| line.is_empty());
    rows.take_while(|(_, line)| line.starts_with('|')).map(|(number, _)| number).skip(2).collect()
}

fn with_line(text: &str, number: usize, change: impl Fn(&str) -> String) -> String {
    let lines = text.lines().enumerate();
    lines.map(|(n, line)| if n == number { change(line) } else { format!("{line}\n") }).collect()
}

#[test]
fn a_row_that_is_missing_or_doubled_goes_unnoticed() {
    for table in expected_tables() {
        let rows = row_lines(CONTRACT, table.caption);
        assert_eq!(rows.len(), table.rows.len(), "{}", table.caption);
        for number in rows {
            let missing = with_line(CONTRACT, number, |_| String::new());
            assert_ne!(table_differences(&missing, &table), Vec::<String>::new(), "line {number} missing");
            let doubled = with_line(CONTRACT, number, |line| format!("{line}\n{line}\n"));
            assert_ne!(table_differences(&doubled, &table), Vec::<String>::new(), "line {number} doubled");
        }
    }
}

#[test]
fn a_changed_cell_goes_unnoticed() {
    for table in expected_tables() {
        let columns = Table::read(CONTRACT, table.caption).unwrap().columns;
        for number in row_lines(CONTRACT, table.caption) {
            for (place, _) in columns.iter().enumerate().filter(|(_, c)| table.columns.contains(&c.as_str()))
            {
                let changed = with_line(CONTRACT, number, |line| {
                    let mut cells: Vec<String> = line.split('|').map(str::to_owned).collect();
                    let grown = format!("{}1", cells[place + 1].trim_end());
                    cells[place + 1] = grown;
                    cells.join("|") + "\n"
                });
                let noticed = table_differences(&changed, &table);
                assert!(!noticed.is_empty(), "{}, line {number}, column {place}", table.caption);
            }
        }
    }
}

#[test]
fn a_swap_of_two_offsets_goes_unnoticed() {
    let swapped = CONTRACT
        .replace("| SLOT_CREDIT | 0x1000 |", "| SLOT_CREDIT | 0x1040 |")
        .replace("| EVENT_CONSUMED | 0x1040 |", "| EVENT_CONSUMED | 0x1000 |");
    assert_eq!(differences(&swapped).len(), 4, "two rows without constants, two constants without rows");
}

#[test]
fn a_table_that_is_lost_empty_twice_there_or_ragged_passes() {
    for table in expected_tables() {
        let caption = format!("*Table: {}*", table.caption);
        let lost = CONTRACT.replace(&caption, "");
        assert!(Table::read(&lost, table.caption).unwrap_err().contains("not in the document"));
        let twice = format!("{CONTRACT}\n{caption}\n\n| a |\n|---|\n| b |\n");
        assert!(Table::read(&twice, table.caption).unwrap_err().contains("twice"));
    }
    assert!(Table::read("\n*Table: t*\n\n| a |\n|---|\n\ntext", "t").unwrap_err().contains("no rows"));
    assert!(Table::read("\n*Table: t*\n\ntext", "t").unwrap_err().contains("no heading"));
    assert!(Table::read("\n*Table: t*\n\n| a |\n| b |\n", "t").unwrap_err().contains("no rule"));
    assert!(Table::read("\n*Table: t*\n\n| a |\n|---|\n| b | c |\n", "t").unwrap_err().contains("cells"));
    let table = Table::read("\n*Table: t*\n\n| a |\n|---|\n| b |\n", "t").unwrap();
    assert!(table.select(&["z"]).unwrap_err().contains("no column"));
}
