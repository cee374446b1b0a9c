//! Regions, configuration space, interrupts, resets.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use qkd_contract::registers as reg;

use super::client::{Client, RETAINED, Served, access, as_fds, sealable};

const CONFIG: u32 = 7;
const DEVICE_CONTROL: u64 = 0x68;

fn region_info(client: &mut Client, index: u32, argsz: u32) -> super::client::Answered {
    let mut body = [0; 32];
    body[0..4].copy_from_slice(&argsz.to_le_bytes());
    body[8..12].copy_from_slice(&index.to_le_bytes());
    client.call(5, &body, &[])
}

#[test]
fn regions_are_those_of_the_contract() {
    let served = Served::new();
    let mut client = served.agreed();
    for index in 0..9 {
        let answered = region_info(&mut client, index, 64);
        let size = u64::from_le_bytes(answered.body[16..24].try_into().unwrap());
        let expected = match index {
            0 => 0x1_0000,
            2 => 0x1000,
            7 => 4096,
            _ => 0,
        };
        assert_eq!((answered.error, size), (0, expected), "region {index}");
        assert_eq!(answered.descriptors.len(), usize::from(index == 0));
    }
    assert_eq!(region_info(&mut client, 9, 64).error, Errno::EINVAL as u32);
    assert_eq!(region_info(&mut client, 0, 31).error, Errno::EINVAL as u32);
}

#[test]
fn a_client_with_too_little_room_learns_how_much_the_capability_needs() {
    let served = Served::new();
    let mut client = served.agreed();
    let short = region_info(&mut client, 0, 32);
    assert_eq!((short.body.len(), &short.body[0..4]), (32, &64_u32.to_le_bytes()[..]));
    let whole = region_info(&mut client, 0, 64);
    assert_eq!(whole.body.len(), 64);
    assert_eq!(&whole.body[48..64], [0_u64, 0x1_0000].map(u64::to_le_bytes).concat());
}

#[test]
fn accesses_beyond_a_region_are_refused() {
    let served = Served::new();
    let mut client = served.agreed();
    for (region, offset, count) in [
        (0, 0x1_0000, 4),
        (0, 0xFFFE, 4),
        (0, 0, 0),
        (0, u64::MAX, 4),
        (1, 0, 4),
        (2, 0xFFF, 2),
        (CONFIG, 4095, 2),
        (8, 0, 1),
        (9, 0, 1),
        (u32::MAX, 0, 1),
    ] {
        let read = access(region, offset, count);
        assert_eq!(client.refused(9, &read, &[]), Errno::EINVAL, "{region} {offset:#x}");
        let write = [read, vec![0; count as usize]].concat();
        assert_eq!(client.refused(10, &write, &[]), Errno::EINVAL, "{region} {offset:#x}");
    }
    assert_eq!(client.refused(9, &access(0, 0, u32::MAX), &[]), Errno::EINVAL);
    let short = [access(0, reg::COMMAND.offset.into(), 8), vec![0; 4]].concat();
    assert_eq!(client.refused(10, &short, &[]), Errno::EINVAL, "less data than it says");
}

#[test]
fn registers_take_only_their_own_width_and_writer() {
    let served = Served::new();
    let mut client = served.agreed();
    assert_eq!(client.register(&reg::MAGIC), 0x3144_4B51);
    client.set_register(&reg::SLOT_COUNT, 64);
    assert_eq!(client.register(&reg::SLOT_COUNT), 64);
    client.write(0, reg::SLOT_COUNT.offset.into(), &[1, 0]);
    client.write(0, reg::SLOT_BYTES.offset.into(), &[1; 8]);
    client.write(0, u64::from(reg::SLOT_COUNT.offset) + 1, &[9; 4]);
    assert_eq!((client.register(&reg::SLOT_BYTES), client.register(&reg::SLOT_COUNT)), (0, 64));
    client.set_register(&reg::SERIAL, 1);
    assert_eq!(client.register(&reg::SERIAL), 0xA1B2C3);
    client.write(0, 0x8000, &[7; 4]);
    assert_eq!(client.read(0, 0x8000, 4), [0; 4]);
}

#[test]
fn configuration_space_is_the_contracts_and_keeps_what_is_fixed() {
    let served = Served::new();
    let mut client = served.agreed();
    let before = client.read(CONFIG, 0, 4096);
    assert_eq!(before[0..4], [0x44, 0x51, 0x01, 0x00]);
    assert_eq!(before[8..12], [0x01, 0x00, 0x80, 0x10]);
    assert_eq!(before[0x3D], 0, "no INTx");
    // Capabilities: Power Management, MSI-X, PCI Express, in any order, and the serial number.
    let mut found = Vec::new();
    let mut at = usize::from(before[0x34]);
    while at != 0 {
        found.push(before[at]);
        at = usize::from(before[at + 1]);
        assert!(found.len() < 10, "the list has no end");
    }
    assert_eq!(found, [0x01, 0x11, 0x10]);
    assert_eq!(before[0x100..0x104], [0x03, 0x00, 0x01, 0x00]);
    assert_eq!(before[0x104..0x10C], 0xA1B2C3_u64.to_le_bytes());

    // All ones everywhere but where a reset is triggered.
    for offset in (0..4096).filter(|offset| *offset != DEVICE_CONTROL + 1) {
        client.write(CONFIG, offset, &[0xFF]);
    }
    let after = client.read(CONFIG, 0, 4096);
    assert_eq!(
        after[0x10..0x20],
        [0x04, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x04, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
    );
    for place in (0..4).chain(6..12).chain(0x20..0x38).chain(0x100..4096) {
        assert_eq!(before[place], after[place], "{place:#x}");
    }
    assert_eq!(after[0x44] & 0x0B, 0x0B, "D3hot, and no soft reset");
}

#[test]
fn the_msix_table_is_memory_and_the_pending_bits_are_not() {
    let served = Served::new();
    let mut client = served.agreed();
    client.write(2, 0, &[0xAB; 32]);
    client.write(2, 0x7FC, &[0xCD; 8]);
    assert_eq!(client.read(2, 0, 32), [0xAB; 32]);
    assert_eq!(client.read(2, 0x7FC, 8), [0xCD, 0xCD, 0xCD, 0xCD, 0, 0, 0, 0]);
}

#[test]
fn every_way_to_reset_the_function_clears_the_hosts_registers_and_keeps_the_keys() {
    let served = Served::new();
    let mut client = served.agreed();
    for way in 0..3 {
        client.await_register(&reg::STATE, 2);
        client.await_register(&reg::RETAINED_BLOCKS, RETAINED);
        client.write(CONFIG, 4, &[6, 0]);
        client.set_register(&reg::SLOT_COUNT, 64);
        match way {
            0 => client.write(CONFIG, DEVICE_CONTROL, &[0x10, 0xA8]),
            1 => assert_eq!(client.call(13, &[], &[]).error, 0),
            _ => {
                drop(client);
                client = served.agreed();
            }
        }
        assert_eq!(client.register(&reg::SLOT_COUNT), 0, "way {way}");
        assert_eq!(client.read(CONFIG, 4, 2), [0, 0], "bus mastering is off");
        assert_eq!(client.register(&reg::RETAINED_BLOCKS), RETAINED);
    }
}

fn signalled(event: &EventFd) -> u64 {
    event.read().unwrap_or(0)
}

fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap()
}

const NONE_TRIGGER: u32 = 1 | 1 << 5;
const BOOL_TRIGGER: u32 = 2 | 1 << 5;
const EVENTFD_TRIGGER: u32 = 4 | 1 << 5;

#[test]
fn vectors_reach_the_eventfds_that_were_set() {
    let served = Served::new();
    let mut client = served.agreed();
    client.await_register(&reg::STATE, 2);
    client.write(CONFIG, 4, &[6, 0]);
    let events = [event(), event()];
    assert_eq!(client.set_irqs([EVENTFD_TRIGGER, 2, 0, 2], &[], &as_fds(&events)), Errno::UnknownErrno);
    client.set_register(&reg::INTERRUPT_ENABLE, 3);
    client.set_register(&reg::COMMAND_ARGUMENT, 0);
    client.set_register(&reg::COMMAND, 1 << 16 | 6);
    client.await_register(&reg::COMMAND_DONE, 1 << 16 | 1);
    assert_eq!(signalled(&events[0]), 1);
    // The control vector follows its register; one more round trip through the card's lock has it raised.
    assert_eq!(client.set_irqs([BOOL_TRIGGER, 2, 0, 2], &[1, 0], &[]), Errno::UnknownErrno);
    assert_eq!((signalled(&events[0]), signalled(&events[1])), (1, 1));
    assert_eq!(client.set_irqs([EVENTFD_TRIGGER, 2, 0, 1], &[], &[]), Errno::UnknownErrno, "takes one back");
    assert_eq!(client.set_irqs([NONE_TRIGGER, 2, 0, 2], &[], &[]), Errno::UnknownErrno);
    assert_eq!((signalled(&events[0]), signalled(&events[1])), (0, 1));
    assert_eq!(client.set_irqs([NONE_TRIGGER, 2, 0, 0], &[], &[]), Errno::UnknownErrno, "takes all back");
    assert_eq!(client.set_irqs([NONE_TRIGGER, 2, 0, 2], &[], &[]), Errno::UnknownErrno);
    assert_eq!(signalled(&events[1]), 0);
}

#[test]
fn vectors_one_at_a_time_and_the_other_interrupts_work_too() {
    let served = Served::new();
    let mut client = served.agreed();
    for (index, start) in [(2, 0), (2, 1), (3, 0), (4, 0)] {
        let one = event();
        assert_eq!(
            client.set_irqs([EVENTFD_TRIGGER, index, start, 1], &[], &[one.as_fd()]),
            Errno::UnknownErrno
        );
        assert_eq!(client.set_irqs([NONE_TRIGGER, index, start, 1], &[], &[]), Errno::UnknownErrno);
        assert_eq!(signalled(&one), 1);
    }
}

#[test]
fn interrupts_that_do_not_exist_or_are_no_eventfds_are_refused() {
    let served = Served::new();
    let mut client = served.agreed();
    let one = event();
    let file = sealable(4096);
    for words in [[EVENTFD_TRIGGER, 2, 2, 1], [EVENTFD_TRIGGER, 2, 0, 3], [EVENTFD_TRIGGER, 0, 0, 1]] {
        assert_eq!(client.set_irqs(words, &[], &[one.as_fd()]), Errno::EINVAL);
    }
    assert_eq!(client.set_irqs([EVENTFD_TRIGGER, 2, u32::MAX, 2], &[], &[]), Errno::EINVAL);
    assert_eq!(client.set_irqs([EVENTFD_TRIGGER, 9, 0, 0], &[], &[]), Errno::EINVAL);
    assert_eq!(
        client.set_irqs([EVENTFD_TRIGGER, 2, 0, 2], &[], &[one.as_fd()]),
        Errno::EINVAL,
        "one for two"
    );
    assert_eq!(
        client.set_irqs([EVENTFD_TRIGGER, 2, 0, 1], &[], &[file.as_fd()]),
        Errno::EINVAL,
        "no eventfd"
    );
    assert_eq!(client.set_irqs([BOOL_TRIGGER, 2, 0, 2], &[1], &[]), Errno::EINVAL, "too little data");
    assert_eq!(client.set_irqs([7 | 1 << 5, 2, 0, 1], &[], &[]), Errno::EINVAL, "three kinds of data");
    assert_eq!(client.set_irqs([1 | 1 << 3, 2, 0, 1], &[], &[]), Errno::EOPNOTSUPP, "masking");
}
