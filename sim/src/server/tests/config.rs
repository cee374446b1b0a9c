//! Every register of configuration space against a table written from the PCI Express Base Specification 5.0 and the
//! contract, clauses PCI.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::server::config_space::{ConfigSpace, Effect, Request};

const SERIAL: u64 = 0x1122_3344_5566_7788;

/// A double word: offset, value after a reset, bits that can be written, bits that a written 1 clears, bits that a
/// function-level reset keeps. What is not listed is 0 and stays 0.
type Row = (usize, u32, u32, u32, u32);

const TABLE: &[Row] = &[
    // Device ID, Vendor ID.
    (0x000, 0x0001_5144, 0, 0, 0),
    // Status: Capabilities List, six error bits. Command: Memory Space, Bus Master, Parity, SERR#, Interrupt Disable.
    (0x004, 0x0010_0000, 0x0000_0546, 0xF900_0000, 0),
    // Class Code, Revision ID.
    (0x008, 0x1080_0001, 0, 0, 0),
    // BIST, Header Type, Latency Timer; Cache Line Size.
    (0x00C, 0, 0x0000_00FF, 0, 0),
    // BAR 0 and 1: 64-bit, not prefetchable, 64 KiB.
    (0x010, 0x0000_0004, 0xFFFF_0000, 0, 0),
    (0x014, 0, 0xFFFF_FFFF, 0, 0),
    // BAR 2 and 3: 64-bit, not prefetchable, 4 KiB.
    (0x018, 0x0000_0004, 0xFFFF_F000, 0, 0),
    (0x01C, 0, 0xFFFF_FFFF, 0, 0),
    // BAR 4 and 5 at 0x020 and 0x024, CardBus CIS at 0x028: none. Subsystem ID, Subsystem Vendor ID.
    (0x02C, 0x0001_5144, 0, 0, 0),
    // Expansion ROM at 0x030: none. Capabilities Pointer.
    (0x034, 0x0000_0040, 0, 0, 0),
    // Max_Lat, Min_Gnt, Interrupt Pin: 0. Interrupt Line.
    (0x03C, 0, 0x0000_00FF, 0, 0),
    // Power Management: version 3, neither D1, D2 nor PME. PMCSR: No_Soft_Reset, PowerState.
    (0x040, 0x0003_4801, 0, 0, 0),
    (0x044, 0x0000_0008, 0x0000_0003, 0, 0),
    // MSI-X: two vectors, Function Mask and Enable; table at 0, pending bits at 0x800 of BAR 2.
    (0x048, 0x0001_6011, 0xC000_0000, 0, 0),
    (0x04C, 0x0000_0002, 0, 0, 0),
    (0x050, 0x0000_0802, 0, 0, 0),
    // PCI Express: version 2, endpoint, the last capability.
    (0x060, 0x0002_0010, 0, 0, 0),
    // Device Capabilities: 128 octets, role-based error reporting, function-level reset.
    (0x064, 0x1000_8000, 0, 0, 0),
    // Device Status, four error bits. Device Control: error reporting, Relaxed Ordering, Max_Read_Request_Size.
    (0x068, 0x0000_2010, 0x0000_701F, 0x000F_0000, 0),
    // Link Capabilities: 5 GT/s, x4, ASPM optionality.
    (0x06C, 0x0040_0042, 0, 0, 0),
    // Link Status: 5 GT/s, x4, slot clock. Link Control: ASPM, RCB, Common Clock, Extended Synch.
    (0x070, 0x1042_0000, 0x0000_00CB, 0, 0x0000_00CB),
    // Device Capabilities 2 and Device Control 2: Completion Timeout Disable.
    (0x084, 0x0000_0010, 0, 0, 0),
    (0x088, 0, 0x0000_0010, 0, 0),
    // Link Capabilities 2: 2.5 and 5 GT/s.
    (0x08C, 0x0000_0006, 0, 0, 0),
    // Link Control 2: Target Link Speed, Enter Compliance, Transmit Margin, Modified Compliance, SOS, de-emphasis.
    (0x090, 0x0000_0002, 0x0000_1F9F, 0, 0x0000_1F9F),
    // Device Serial Number, version 1, the last extended capability; lower double word first.
    (0x100, 0x0001_0003, 0, 0, 0),
    (0x104, 0x5566_7788, 0, 0, 0),
    (0x108, 0x1122_3344, 0, 0, 0),
];

/// Bit 15 of Device Control, which triggers a function-level reset and always reads 0.
const TRIGGER: usize = 0x69;
const POWER_CONTROL: usize = 0x44;

fn space() -> ConfigSpace {
    ConfigSpace::new(0x0001, SERIAL)
}

fn rows() -> impl Iterator<Item = Row> {
    let listed: BTreeMap<usize, Row> = TABLE.iter().map(|row| (row.0, *row)).collect();
    assert_eq!(listed.len(), TABLE.len(), "each double word once");
    (0..4096).step_by(4).map(move |offset| listed.get(&offset).copied().unwrap_or((offset, 0, 0, 0, 0)))
}

fn dword(space: &ConfigSpace, offset: usize) -> u32 {
    u32::from_le_bytes(space.read(offset, 4).unwrap().try_into().unwrap())
}

#[test]
fn every_double_word_resets_to_its_value_and_takes_only_what_can_be_written() {
    for (offset, reset, writable, _, _) in rows() {
        let mut space = space();
        assert_eq!(dword(&space, offset), reset, "{offset:#x} after a reset");
        for value in [u32::MAX, 0xAAAA_AAAA, 0x5555_5555, 0] {
            space.write(offset, &value.to_le_bytes());
            let mut expected = reset & !writable | value & writable;
            if offset == POWER_CONTROL && matches!(expected & 3, 1 | 2) {
                // D1 and D2 do not exist: what stood there stays. It was D3hot.
                expected |= 3;
            }
            assert_eq!(dword(&space, offset), expected, "{offset:#x} after {value:#x}");
        }
        for other in (0..4096).step_by(4).filter(|other| *other != offset) {
            assert_eq!(dword(&space, other), dword(&self::space(), other), "{other:#x} by {offset:#x}");
        }
    }
}

#[test]
fn status_bits_are_cleared_by_a_written_1_and_by_nothing_else() {
    let mut raised = 0;
    for (offset, reset, _, clearable, _) in rows().filter(|row| row.3 != 0) {
        let mut space = space();
        // Every cause that a simulated card has.
        space.note_refused_read();
        assert!(!space.takes(Request::Read) && !space.takes(Request::Write), "Memory Space Enable is clear");
        let bits = dword(&space, offset) & !reset;
        assert!(bits != 0 && bits & !clearable == 0, "{offset:#x} shows {bits:#x}");
        raised |= bits;
        space.write(offset, &reset.to_le_bytes());
        assert_eq!(dword(&space, offset) & clearable, bits, "{offset:#x} by a written 0");
        for bit in (0..32).map(|bit| 1_u32 << bit).filter(|bit| bits & bit != 0) {
            space.write(offset, &(reset | bit).to_le_bytes());
            assert_eq!(dword(&space, offset) & bit, 0, "{offset:#x} bit {bit:#x}");
        }
        assert_eq!(dword(&space, offset), reset, "{offset:#x}");
    }
    assert_eq!(raised, 0x200B_0000, "Received Master Abort; correctable, non-fatal, unsupported");
}

#[test]
fn a_function_level_reset_keeps_what_belongs_to_the_link_and_a_new_host_finds_nothing() {
    for (offset, reset, writable, _, kept) in rows() {
        let mut space = space();
        let all = if offset == TRIGGER - 1 { 0xFFFF_7FFF_u32 } else { u32::MAX };
        space.write(offset, &all.to_le_bytes());
        space.function_reset();
        assert_eq!(dword(&space, offset), reset & !kept | writable & kept, "{offset:#x}");
        space.power_on();
        assert_eq!(dword(&space, offset), reset, "{offset:#x}");
    }
}

#[test]
fn only_bit_15_of_device_control_resets_the_function_however_wide_the_write() {
    let mut space = space();
    assert_eq!(space.write(TRIGGER, &[0x80]), Some(Effect::FunctionReset));
    assert_eq!(space.write(TRIGGER - 1, &[0, 0x80, 0, 0]), Some(Effect::FunctionReset));
    assert_eq!(space.write(0, &[0xFF; 4096]), Some(Effect::FunctionReset));
    assert_eq!(space.write(TRIGGER, &[0x7F]), Some(Effect::None));
    assert_eq!(space.write(TRIGGER + 1, &[0xFF; 64]), Some(Effect::None));
    assert_eq!(space.read(TRIGGER, 1).unwrap()[0] & 0x80, 0, "reads 0");
}

#[test]
fn nothing_lies_beyond_configuration_space() {
    let mut space = space();
    for (offset, count) in [(4095, 2), (4096, 1), (usize::MAX, 1), (0, 4097)] {
        assert_eq!(space.read(offset, count), None);
        assert_eq!(space.write(offset, &vec![0; count]), None);
    }
}

#[test]
fn another_device_identifier_survives_every_reset() {
    let mut space = space();
    space.set_device_id(0xBEEF);
    for _ in 0..2 {
        assert_eq!((dword(&space, 0), dword(&space, 0x2C)), (0xBEEF_5144, 0xBEEF_5144));
        space.function_reset();
        space.power_on();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_writes_ever_change_a_bit_that_cannot_be_written(
        writes in prop::collection::vec((0_usize..4200, prop::collection::vec(any::<u8>(), 0..20)), 0..200),
        whole in prop::collection::vec(any::<u8>(), 4096),
        resets in any::<u8>(),
    ) {
        let mut space = space();
        for (turn, (offset, data)) in writes.iter().enumerate() {
            space.write(*offset, data);
            match (usize::from(resets) + turn) % 16 {
                0 => space.function_reset(),
                1 => space.power_on(),
                2 => space.note_refused_read(),
                _ => {}
            }
        }
        space.write(0, &whole);
        for (offset, reset, writable, clearable, _) in rows() {
            let fixed = !writable & !clearable;
            prop_assert_eq!(dword(&space, offset) & fixed, reset & fixed, "{:#x}", offset);
        }
        prop_assert!(!matches!(dword(&space, POWER_CONTROL) & 3, 1 | 2), "a power state that does not exist");
    }
}
