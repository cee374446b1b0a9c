//! The register table fits its BAR, and undefined values are refused.

use std::collections::BTreeSet;

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::pci;
use qkd_contract::registers::{ALL, Access, Register};
use qkd_contract::state::{Fault, LinkState, Role, State, Undefined};

/// What is wrong with a table of registers that must be in order of offset.
fn faults(registers: &[Register], bar_bytes: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut end = 0;
    let mut names = BTreeSet::new();
    for register in registers {
        let Register { name, offset, width, .. } = *register;
        if !matches!(width, 4 | 8) {
            faults.push(format!("{name}: width {width}"));
        } else if !offset.is_multiple_of(width) {
            faults.push(format!("{name}: not aligned"));
        }
        if offset < end {
            faults.push(format!("{name}: overlaps or out of order"));
        }
        end = offset + width;
        if u64::from(end) > bar_bytes {
            faults.push(format!("{name}: beyond the BAR"));
        }
        if !names.insert(name) {
            faults.push(format!("{name}: twice"));
        }
    }
    faults
}

#[test]
fn registers_overlap_or_are_out_of_place() {
    assert!(!ALL.is_empty());
    assert_eq!(faults(ALL, pci::REGISTER_BAR_BYTES), Vec::<String>::new());
}

#[test]
fn planted_faults_in_the_register_table_go_unnoticed() {
    let register =
        |name, offset, width| Register { name, offset, width, access: Access::Card, clause: "REG-1" };
    let of = |registers: &[Register]| faults(registers, 64);
    assert_eq!(of(&[register("a", 0, 8), register("b", 8, 4)]), Vec::<String>::new());
    assert_eq!(of(&[register("a", 0, 8), register("b", 4, 4)]), ["b: overlaps or out of order"]);
    assert_eq!(of(&[register("a", 4, 8)]), ["a: not aligned"]);
    assert_eq!(of(&[register("a", 0, 2)]), ["a: width 2"]);
    assert_eq!(of(&[register("a", 64, 4)]), ["a: beyond the BAR"]);
    assert_eq!(of(&[register("a", 0, 4), register("a", 4, 4)]), ["a: twice"]);
}

#[test]
fn registers_that_the_host_writes_often_share_a_cache_line_with_the_cards() {
    let line = |register: &Register| register.offset / 64;
    let host: BTreeSet<_> =
        ALL.iter().filter(|r| r.access == Access::Host && r.offset >= 0x1000).map(line).collect();
    assert_eq!(host.len(), 4, "one line each for credit, consumed, arm and tail");
    assert!(ALL.iter().filter(|r| r.access == Access::Card).all(|r| !host.contains(&line(r))));
}

#[test]
fn interrupt_table_and_pending_bits_overlap_or_leave_their_bar() {
    let table_end = pci::MSIX_TABLE_OFFSET + u64::from(pci::VECTORS) * 16;
    assert!(table_end <= pci::MSIX_PBA_OFFSET);
    const { assert!(pci::MSIX_PBA_OFFSET + 8 <= pci::MSIX_BAR_BYTES) };
    const { assert!(pci::EVENT_VECTOR < pci::VECTORS && pci::CONTROL_VECTOR < pci::VECTORS) };
    const { assert!(pci::EVENT_VECTOR != pci::CONTROL_VECTOR) };
}

macro_rules! refuses_undefined {
    ($($test:ident: $values:ident)*) => { $(
        #[test]
        fn $test() {
            for &value in $values::ALL {
                assert_eq!($values::try_from(value.value()), Ok(value));
            }
            let defined: BTreeSet<u32> = $values::ALL.iter().map(|v| v.value()).collect();
            assert_eq!(defined.len(), $values::ALL.len());
            for value in (0..64).chain([0x100, 0x1_0001, u32::MAX]).filter(|v| !defined.contains(v)) {
                assert_eq!($values::try_from(value), Err(Undefined(value)));
            }
        }
    )* };
}

refuses_undefined! {
    an_undefined_state_is_taken: State
    an_undefined_fault_is_taken: Fault
    an_undefined_role_is_taken: Role
    an_undefined_link_state_is_taken: LinkState
    an_undefined_opcode_is_taken: Opcode
    an_undefined_outcome_is_taken: Outcome
}
