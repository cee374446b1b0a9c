//! Arithmetic of the rings.

use std::sync::Arc;

use super::{Due, Progress, RingLayout};
use crate::dma::DmaMemory;
use crate::shared_memory::SharedMemory;

fn layout() -> RingLayout {
    RingLayout::new(1024, 4, 64).expect("legal")
}

fn memory(layout: &RingLayout) -> DmaMemory {
    DmaMemory::new(Arc::new(SharedMemory::anonymous(layout.total()).expect("memory")), 1 << 32)
}

fn write_seal(layout: &RingLayout, memory: &DmaMemory, event: u32, number: u32) {
    let seal = u64::from(number) << 32 | 0xC0C0;
    memory.copy_in(layout.event(event) + 56, &seal.to_le_bytes());
}

#[test]
fn the_areas_lie_apart_and_aligned_as_the_document_shows() {
    // The worked life of the contract: blocks of 64 KiB, 64 slots.
    let layout = RingLayout::new(65_536, 64, 64).expect("legal");
    assert_eq!(layout.slot_bytes, 0x1_1000);
    let (slots, events, acks) = layout.bases(0x1_0000_0000);
    assert_eq!((slots, events), (0x1_0000_0000, 0x1_0044_0000));
    assert_eq!(acks - events, 128 * 64);
    assert!(layout.total() as u64 >= acks - slots + 64 * 32);
}

#[test]
fn counts_that_are_no_powers_of_two_or_out_of_range_have_no_layout() {
    for (slots, acks) in [(0, 64), (1, 64), (3, 64), (1 << 17, 64), (4, 32), (4, 65), (4, 1 << 17)] {
        assert!(RingLayout::new(1024, slots, acks).is_none(), "{slots} slots, {acks} acknowledgements");
    }
    assert!(RingLayout::new(u32::MAX, 4, 64).is_none());
}

#[test]
fn only_the_number_that_is_due_is_read_and_only_the_one_of_a_lap_before_is_old() {
    let layout = layout();
    let memory = memory(&layout);
    for start in [0_u32, 63, 64, 1000, u32::MAX - 70, u32::MAX - 1, u32::MAX] {
        let mut progress = Progress { consumed: start, lapped: true, ..Progress::default() };
        for _ in 0..200 {
            let due = progress.due();
            write_seal(&layout, &memory, due, due.wrapping_sub(64));
            assert!(matches!(progress.read_due(&layout, &memory), Due::Nothing), "event {due}");
            write_seal(&layout, &memory, due, due.wrapping_add(64));
            assert!(matches!(progress.read_due(&layout, &memory), Due::Foreign(_)), "event {due}");
            write_seal(&layout, &memory, due, due);
            assert!(progress.something_due(&layout, &memory));
            assert!(matches!(progress.read_due(&layout, &memory), Due::Entry(_)), "event {due}");
            progress.consume(&layout);
        }
    }
}

#[test]
fn in_the_first_lap_a_number_of_a_lap_before_is_foreign() {
    let layout = layout();
    let memory = memory(&layout);
    let progress = Progress::default();
    write_seal(&layout, &memory, 1, 1_u32.wrapping_sub(64));
    assert!(matches!(progress.read_due(&layout, &memory), Due::Foreign(_)));
}

#[test]
fn the_acknowledgement_head_moves_only_between_itself_and_the_tail() {
    for base in [0_u32, u32::MAX - 3, u32::MAX] {
        let fresh = Progress { ack_head: base, ack_tail: base.wrapping_add(5), ..Progress::default() };
        for ahead in 0..=5 {
            let mut progress = fresh;
            assert!(progress.advance_ack_head(base.wrapping_add(ahead)));
        }
        for wrong in [base.wrapping_sub(1), base.wrapping_add(6), base.wrapping_add(1 << 31)] {
            let mut progress = fresh;
            assert!(!progress.advance_ack_head(wrong), "{wrong} from {base}");
            assert_eq!(progress, fresh);
        }
    }
}

#[test]
fn slots_follow_the_count_of_blocks_over_the_wrap() {
    let layout = layout();
    let mut progress = Progress { delivered: u32::MAX - 1, ..Progress::default() };
    for expected in [2, 3, 0, 1] {
        assert_eq!(progress.next_slot(&layout), expected);
        progress.delivered = progress.delivered.wrapping_add(1);
    }
}
