//! The tables that `CONTRACT.md` must have, made from the constants.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::{Acknowledgement, BlockHeader, Event, event};
use qkd_contract::registers::{self, Access, feature};
use qkd_contract::state::{Fault, LinkState, Role, State};
use qkd_contract::{limits, pci};

/// A table: the columns that are compared, and what must stand in them.
pub(crate) struct Expected {
    pub(crate) caption: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

/// How a constant is written in a cell.
trait Cell {
    fn cell(&self) -> String;
}

macro_rules! number_cells {
    ($($number:ty),*) => { $(impl Cell for $number { fn cell(&self) -> String { self.to_string() } })* };
}
number_cells!(u8, u16, u32, u64);

impl Cell for RangeInclusive<u32> {
    fn cell(&self) -> String {
        format!("{} to {}", self.start(), self.end())
    }
}

/// Rows (name, value) of the constants of a module, which must be all that its source has.
macro_rules! constants {
    ($module:ident, $source:expr, [$($name:ident),* $(,)?]) => {{
        let rows = vec![$(vec![stringify!($name).to_owned(), $module::$name.cell()]),*];
        let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, public_constants($source), "constants of {}", stringify!($module));
        rows
    }};
}

/// Rows (offset, size, name) of the fields of a layout, which must fill it without a gap.
macro_rules! fields {
    ($layout:ident: $($field:ident),*) => {{
        let mut end = 0;
        let rows = vec![$({
            let offset = std::mem::offset_of!($layout, $field);
            let size = size_of_field(|layout: &$layout| &layout.$field);
            assert_eq!(offset, end, "{}: a field before {} is not listed", stringify!($layout), stringify!($field));
            end = offset + size;
            vec![offset.to_string(), size.to_string(), stringify!($field).to_owned()]
        }),*];
        assert_eq!(end, size_of::<$layout>(), "{}: a last field is not listed", stringify!($layout));
        rows
    }};
}

fn size_of_field<L, F>(_: impl Fn(&L) -> &F) -> usize {
    size_of::<F>()
}

/// Names of the public constants in a piece of source, in order.
fn public_constants(source: &str) -> Vec<&str> {
    let names = source.lines().filter_map(|line| line.trim_start().strip_prefix("pub const "));
    names.filter(|rest| !rest.starts_with("fn ")).filter_map(|rest| rest.split(':').next()).collect()
}

/// The source of the module that begins with this line.
fn module_source<'a>(source: &'a str, line: &str) -> &'a str {
    let (_, rest) = source.split_once(line).expect("the module stands in the source");
    rest.split_once("\n}").expect("the module has an end").0
}

fn values<T: Copy + Debug>(all: &[T], value: impl Fn(T) -> u32) -> Vec<Vec<String>> {
    all.iter().map(|&item| vec![value(item).to_string(), format!("{item:?}")]).collect()
}

/// Every table that is held against the constants.
pub(crate) fn expected_tables() -> Vec<Expected> {
    vec![
        Expected { caption: "pci", columns: &["Name", "Value"], rows: pci_rows() },
        Expected {
            caption: "registers",
            columns: &["Name", "Offset", "Width", "Writer", "Clause"],
            rows: register_rows(),
        },
        Expected { caption: "states", columns: &["Value", "State"], rows: values(State::ALL, State::value) },
        Expected {
            caption: "opcodes",
            columns: &["Value", "Opcode"],
            rows: values(Opcode::ALL, Opcode::value),
        },
        Expected {
            caption: "outcomes",
            columns: &["Value", "Outcome"],
            rows: values(Outcome::ALL, Outcome::value),
        },
        Expected {
            caption: "block header",
            columns: &["Offset", "Size", "Field"],
            rows: fields!(BlockHeader: magic, version, flags, session, sequence, length, qber, distilled_at,
                reserved, payload_crc, header_crc),
        },
        Expected {
            caption: "event entry",
            columns: &["Offset", "Size", "Field"],
            rows: fields!(Event: kind, flags, slot, session, sequence, length, detail, reserved, crc, number),
        },
        Expected { caption: "event kinds", columns: &["Kind", "Value"], rows: event_rows() },
        Expected {
            caption: "acknowledgement entry",
            columns: &["Offset", "Size", "Field"],
            rows: fields!(Acknowledgement: first_session, first_sequence, last_session, last_sequence),
        },
        Expected { caption: "roles", columns: &["Value", "Role"], rows: values(Role::ALL, Role::value) },
        Expected {
            caption: "link states",
            columns: &["Value", "LinkState"],
            rows: values(LinkState::ALL, LinkState::value),
        },
        Expected { caption: "faults", columns: &["Value", "Fault"], rows: values(Fault::ALL, Fault::value) },
        Expected { caption: "features", columns: &["Feature", "Bit"], rows: feature_rows() },
        Expected { caption: "limits", columns: &["Name", "Value"], rows: limit_rows() },
    ]
}

fn pci_rows() -> Vec<Vec<String>> {
    constants!(
        pci,
        include_str!("../../src/pci.rs"),
        [
            VENDOR_ID,
            DEVICE_ID,
            REVISION_ID,
            CLASS_CODE,
            REGISTER_BAR,
            REGISTER_BAR_BYTES,
            MSIX_BAR,
            MSIX_BAR_BYTES,
            MSIX_TABLE_OFFSET,
            MSIX_PBA_OFFSET,
            VECTORS,
            EVENT_VECTOR,
            CONTROL_VECTOR,
        ]
    )
}

fn register_rows() -> Vec<Vec<String>> {
    let rows = registers::ALL.iter().map(|register| {
        let writer = match register.access {
            Access::Card => "card",
            Access::Host => "host",
        };
        let (offset, width) = (register.offset.to_string(), register.width.to_string());
        vec![register.name.to_owned(), offset, width, writer.to_owned(), register.clause.to_owned()]
    });
    rows.collect()
}

fn event_rows() -> Vec<Vec<String>> {
    let source = module_source(include_str!("../../src/layout.rs"), "pub mod event {");
    constants!(event, source, [BLOCK, REPLAY_END, SESSION, LINK])
}

fn feature_rows() -> Vec<Vec<String>> {
    let source = module_source(include_str!("../../src/registers.rs"), "pub mod feature {");
    let mut rows = constants!(feature, source, [CELL, MODERATION, TEST_KEY, DEFINED]);
    rows.pop();
    let mut defined = 0;
    for row in &mut rows {
        let bits: u64 = row[1].parse().expect("the cell was made from a number");
        assert_eq!(bits.count_ones(), 1, "feature {}", row[0]);
        defined |= bits;
        row[1] = bits.trailing_zeros().to_string();
    }
    assert_eq!(defined, feature::DEFINED);
    rows
}

fn limit_rows() -> Vec<Vec<String>> {
    constants!(
        limits,
        include_str!("../../src/limits.rs"),
        [
            BLOCK_BYTES_MAX,
            BLOCK_HEADER_BYTES,
            EVENT_BYTES,
            ACK_BYTES,
            RING_ALIGNMENT,
            SLOT_COUNT,
            EVENT_COUNT,
            ACK_COUNT,
            MODERATION_MAX_US,
            SELF_TEST_BYTES,
            BOOT_MS,
            START_MS,
            STOP_MS,
            ZEROIZE_MS,
            SELF_TEST_MS,
            COMMAND_MS,
            CELL_MS,
            HEARTBEAT_MS,
            FUNCTION_RESET_MS,
            ACK_MS,
            BLOCK_FLUSH_MS,
            TELEMETRY_MS,
            TORN_MS,
            DELIVERY_MS,
        ]
    )
}
