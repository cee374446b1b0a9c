//! Regions, configuration space, interrupts, resets.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use qkd_contract::registers as reg;

use crate::card::Trouble;

use super::client::{Client, RETAINED, Served, access, as_fds, sealable};

const CONFIG: u32 = 7;
const POWER_CONTROL: u64 = 0x44;
const DEVICE_CONTROL: u64 = 0x68;
const DEVICE_STATUS: u64 = 0x6A;

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
fn the_msix_table_has_two_masked_entries_and_nothing_else() {
    let served = Served::new();
    let mut client = served.agreed();
    let masked = [[0; 12].as_slice(), &[1, 0, 0, 0]].concat();
    assert_eq!(client.read(2, 0, 48), [masked.clone(), masked.clone(), vec![0; 16]].concat());
    client.write(2, 0, &[0xFF; 0x1000]);
    let written = [[0xFC].as_slice(), &[0xFF; 11], &[1, 0, 0, 0]].concat();
    assert_eq!(client.read(2, 0, 32), written.repeat(2));
    assert_eq!(client.read(2, 32, 0x1000 - 32), [0; 0x1000 - 32], "no entry, no pending bit");
    client.write(2, 28, &[0; 4]);
    assert_eq!(client.read(2, 16, 16), [&written[..12], &[0; 4]].concat(), "unmasked");
    assert_eq!(client.call(13, &[], &[]).error, 0);
    client.write(CONFIG, 4, &[2, 0]);
    assert_eq!(client.read(2, 0, 32), masked.repeat(2), "after a function reset");
}

#[test]
fn registers_answer_only_with_memory_space_enable_and_in_d0() {
    let served = Served::new();
    let mut client = served.agreed();
    client.await_register(&reg::STATE, 2);
    for (off, on) in [((4, [0, 0]), (4, [2, 0])), ((POWER_CONTROL, [3, 0]), (POWER_CONTROL, [0, 0]))] {
        client.write(CONFIG, off.0, &off.1);
        client.write(CONFIG, DEVICE_STATUS, &[0xF]);
        assert_eq!(client.read(0, 0, 4), [0xFF; 4], "MAGIC");
        assert_eq!(client.read(CONFIG, DEVICE_STATUS, 2), [0b1001, 0], "a read: correctable, unsupported");
        client.write(CONFIG, DEVICE_STATUS, &[0b0001, 0]);
        assert_eq!(client.read(CONFIG, DEVICE_STATUS, 2), [0b1000, 0], "a written 1 clears, a 0 does not");
        client.write(CONFIG, DEVICE_STATUS, &[0b1000, 0]);
        client.set_register(&reg::SLOT_COUNT, 64);
        client.write(2, 12, &[0; 4]);
        assert_eq!(client.read(CONFIG, DEVICE_STATUS, 2), [0b1010, 0], "a write: non-fatal, unsupported");
        client.write(CONFIG, on.0, &on.1);
        assert_eq!((client.register(&reg::MAGIC), client.register(&reg::SLOT_COUNT)), (0x3144_4B51, 0));
        assert_eq!(client.read(2, 12, 4), [1, 0, 0, 0]);
    }
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
        if way < 2 {
            assert_eq!(client.read(CONFIG, 4, 2), [0, 0], "Memory Space and Bus Master Enable are off");
            client.write(CONFIG, 4, &[2, 0]);
        }
        assert_eq!(client.register(&reg::SLOT_COUNT), 0, "way {way}");
        assert_eq!(client.read(CONFIG, 4, 2), [2, 0], "bus mastering is off");
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
fn a_vector_follows_the_eventfd_it_was_given_last() {
    // As a virtual machine masks and unmasks: it points a vector at another eventfd and back.
    let served = Served::new();
    let mut client = served.agreed();
    let (guest, machine) = (event(), event());
    for (given, other) in [(&guest, &machine), (&machine, &guest), (&guest, &machine)] {
        assert_eq!(client.set_irqs([EVENTFD_TRIGGER, 2, 1, 1], &[], &[given.as_fd()]), Errno::UnknownErrno);
        assert_eq!(client.set_irqs([NONE_TRIGGER, 2, 1, 1], &[], &[]), Errno::UnknownErrno);
        assert_eq!((signalled(given), signalled(other)), (1, 0));
    }
}

#[test]
fn a_card_that_is_gone_is_not_reset_and_says_so() {
    let served = Served::with(|card| card.trouble(Trouble::Gone(u64::MAX), 0));
    let mut client = served.client();
    client.agree();
    assert_eq!(client.refused(13, &[], &[]), Errno::EIO);
    assert_eq!(client.read(CONFIG, 0, 64), [0xFF; 64]);
    client.write(CONFIG, 4, &[6, 0]);
    assert_eq!((client.read(0, 0, 4), client.read(2, 0, 4)), (vec![0xFF; 4], vec![0xFF; 4]));
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
