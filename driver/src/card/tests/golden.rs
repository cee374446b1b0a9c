//! The contract's golden octets, as its document prints them, go through the driver's own eyes.

use qkd_contract::registers as reg;
use qkd_contract::state::LinkState;

use super::{name, opened};
use crate::card::{Announced, CardEvent, Life};
use crate::ring::Progress;

const DOCUMENT: &str = include_str!("../../../../contract/CONTRACT.md");

/// The octets printed under this title.
fn golden(title: &str) -> Vec<u8> {
    let (_, after) = DOCUMENT.split_once(&format!("*Golden: {title}*\n\n```\n")).expect("the title is there");
    let (lines, _) = after.split_once("```").expect("the block ends");
    let words =
        lines.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, octets)| octets.split(' '));
    words.map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect()
}

#[test]
fn the_documents_block_and_events_mean_what_it_says() {
    let session = 0x1122_3344_5566_7788;
    let (mut card, handle) = opened();
    card.life = Life::Running;
    card.announced = Announced::AT_START;
    // The document's block lies in slot 3.
    card.progress = Progress::default();
    (card.progress.delivered, card.progress.credit) = (3, 7);
    handle.with(|_, bus| {
        let slot = bus.read64(reg::SLOT_BASE.offset) + 3 * u64::from(bus.read32(reg::SLOT_BYTES.offset));
        bus.dma_write(slot, &golden("block")).expect("mapped");
        let events = bus.read64(reg::EVENT_BASE.offset);
        for (entry, title) in [(0, "event BLOCK"), (1, "event REPLAY_END"), (2, "event SESSION")] {
            bus.dma_write(events + entry * 64, &golden(title)).expect("mapped");
        }
    });
    let Some(CardEvent::Block(block)) = card.next_event().expect("no fault") else {
        panic!("a block is due")
    };
    assert_eq!((block.name(), block.length(), block.replayed()), (name(session, 0x9A_0B0C_0D0E), 40, true));
    let mut room = [0; 40];
    block.take(&mut room).expect("its CRCs are right");
    assert_eq!(room, golden("block")[64..]);
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::ReplayEnd))));
    let told = card.next_event().expect("no fault");
    assert!(
        matches!(told, Some(CardEvent::Session { session: s, previous_blocks: 0x9A_0B0C_0D0F }) if s == session + 1),
        "{told:?}"
    );

    // The document's LINK event is the last but one before the wrap.
    card.progress.consumed = 0xFFFF_FFFD;
    handle.with(|_, bus| {
        let events = bus.read64(reg::EVENT_BASE.offset);
        bus.dma_write(events + (0xFFFF_FFFD % 64) * 64, &golden("event LINK")).expect("mapped");
    });
    assert!(matches!(card.next_event(), Ok(Some(CardEvent::Link(LinkState::Distilling)))));
}

#[test]
fn an_acknowledgement_is_written_as_the_document_prints_it() {
    let (mut card, handle) = opened();
    card.life = Life::Running;
    let session = 0x1122_3344_5566_7788;
    assert!(card.acknowledge(name(session, 0x10), name(session + 1, 0x203)).expect("no fault"));
    let written = handle.with(|_, bus| {
        let mut octets = [0; 32];
        bus.dma_read(bus.read64(reg::ACK_BASE.offset), &mut octets).expect("mapped");
        octets
    });
    assert_eq!(written, *golden("acknowledgement"));
}
