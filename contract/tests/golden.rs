//! Decodes the golden octets of `CONTRACT.md` with the layouts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod document;

use document::{CONTRACT, golden};
use qkd_contract::layout::{
    Acknowledgement, BLOCK_MAGIC, BLOCK_REPLAYED, BLOCK_VERSION, BlockHeader, Event, event, self_test_octet,
};
use qkd_contract::limits;
use qkd_contract::state::LinkState;
use zerocopy::{FromBytes, IntoBytes};

const SESSION: u64 = 0x1122_3344_5566_7788;
const SEQUENCE: u64 = 0x9A_0B0C_0D0E;

fn octets(name: &str) -> Vec<u8> {
    let (first, octets) = golden(CONTRACT, name).unwrap();
    assert_eq!(first, 0, "{name}");
    octets
}

/// Cell `index` of the positional test key as section 22 defines it.
fn test_key_cell(session: u64, sequence: u64, index: u32) -> [u8; 16] {
    let mut cell = [0; 16];
    cell[..4].copy_from_slice(&session.to_le_bytes()[..4]);
    cell[4..9].copy_from_slice(&sequence.to_le_bytes()[..5]);
    cell[9..12].copy_from_slice(&index.to_le_bytes()[..3]);
    let crc = crc32c::crc32c(&cell[..12]);
    cell[12..].copy_from_slice(&crc.to_le_bytes());
    cell
}

#[test]
fn another_polynomial_than_the_documents_is_used() {
    assert!(CONTRACT.contains("of the\n  octets `123456789` it is 0xE3069283"));
    assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
}

#[test]
fn block_decodes_to_what_the_text_says() {
    let octets = octets("block");
    let (header, payload) = BlockHeader::read_from_prefix(&octets).unwrap();
    assert_eq!(octets.len() - payload.len(), limits::BLOCK_HEADER_BYTES as usize);
    assert_eq!(header.magic.get(), BLOCK_MAGIC);
    assert_eq!(header.version.get(), BLOCK_VERSION);
    assert_eq!(header.flags.get(), BLOCK_REPLAYED);
    assert_eq!(header.session.get(), SESSION);
    assert_eq!(header.sequence.get(), SEQUENCE);
    assert_eq!(header.length.get(), 40);
    assert_eq!(payload.len(), 40);
    assert_eq!(header.qber.get(), 21_500);
    assert_eq!(header.distilled_at.get(), 0x1_2345_6789);
    assert_eq!(header.reserved, [0; 16]);
    assert_eq!(header.payload_crc.get(), crc32c::crc32c(payload));
    assert_eq!(header.header_crc.get(), crc32c::crc32c(&octets[..60]));
    assert_eq!((header.payload_crc.get(), header.header_crc.get()), (0x114C_B255, 0xF859_1361));
    assert_eq!(header.as_bytes(), &octets[..64]);
}

#[test]
fn payload_of_the_block_is_its_positional_test_key_with_the_last_cell_cut() {
    let octets = octets("block");
    let whole: Vec<u8> = (0..3).flat_map(|index| test_key_cell(SESSION, SEQUENCE, index)).collect();
    assert_eq!(octets[64..], whole[..40]);
}

#[test]
fn last_test_key_cell_of_the_largest_block_has_the_greatest_index() {
    let (offset, octets) = golden(CONTRACT, "test key cell").unwrap();
    assert_eq!(offset + octets.len(), limits::BLOCK_BYTES_MAX as usize);
    assert_eq!(octets, test_key_cell(SESSION, SEQUENCE, 0xFFFF));
    assert_eq!(octets[12..], 0xE399_54B0_u32.to_le_bytes());
}

/// Checks what all events have in common, and gives the entry back.
fn golden_event(name: &str, kind: u16, number: u32, crc: u32) -> Event {
    let octets = octets(name);
    let event = Event::read_from_bytes(&octets).unwrap();
    assert_eq!(event.kind.get(), kind, "{name}");
    assert_eq!(event.flags.get(), 0, "{name}");
    assert_eq!(event.reserved, [0; 24], "{name}");
    assert_eq!(event.number.get(), number, "{name}");
    assert_eq!(event.crc.get(), crc, "{name}");
    assert_eq!(crc32c::crc32c(&octets[..56]), crc, "{name}");
    assert_eq!(event.as_bytes(), octets, "{name}");
    event
}

/// Slot, session, sequence, length and detail.
fn fields(event: &Event) -> (u32, u64, u64, u32, u32) {
    (event.slot.get(), event.session.get(), event.sequence.get(), event.length.get(), event.detail.get())
}

#[test]
fn events_of_each_kind_decode_to_what_the_text_says() {
    let block = golden_event("event BLOCK", event::BLOCK, 1, 0x3866_2D8F);
    assert_eq!(fields(&block), (3, SESSION, SEQUENCE, 40, 0));
    let replay_end = golden_event("event REPLAY_END", event::REPLAY_END, 2, 0x2C3E_079F);
    assert_eq!(fields(&replay_end), (0, 0, 0, 0, 0));
    let session = golden_event("event SESSION", event::SESSION, 3, 0x6C2C_2AB0);
    assert_eq!(fields(&session), (0, SESSION + 1, SEQUENCE + 1, 0, 0));
    let link = golden_event("event LINK", event::LINK, 0xFFFF_FFFE, 0x8466_BB31);
    assert_eq!(fields(&link), (0, 0, 0, 0, LinkState::Distilling.value()));
}

#[test]
fn acknowledgement_decodes_to_what_the_text_says() {
    let octets = octets("acknowledgement");
    let entry = Acknowledgement::read_from_bytes(&octets).unwrap();
    assert_eq!((entry.first_session.get(), entry.first_sequence.get()), (SESSION, 0x10));
    assert_eq!((entry.last_session.get(), entry.last_sequence.get()), (SESSION + 1, 0x203));
}

#[test]
fn self_test_pattern_is_what_the_text_says() {
    for name in ["self-test pattern", "self-test pattern from 0x100"] {
        let (first, octets) = golden(CONTRACT, name).unwrap();
        assert_eq!(octets.len(), 16);
        for (index, octet) in (u32::try_from(first).unwrap()..).zip(octets) {
            assert_eq!(octet, self_test_octet(index), "octet {index}");
        }
    }
}

#[test]
fn golden_octets_that_are_lost_torn_or_no_hexadecimal_pass() {
    let text = |body: &str| format!("\n*Golden: g*\n\n```\n{body}```\n");
    assert_eq!(golden(&text("000010: 01 02\n000012: ff\n"), "g"), Ok((0x10, vec![1, 2, 255])));
    assert!(golden(&text(""), "g").unwrap_err().contains("no octets"));
    assert!(golden(&text("000000: 01\n000002: 02\n"), "g").unwrap_err().contains("does not follow"));
    assert!(golden(&text("000000: xx\n"), "g").unwrap_err().contains("xx"));
    assert!(golden(&text("01 02\n"), "g").unwrap_err().contains("no offset"));
    assert!(golden("\n*Golden: g*\n\n```\n00: 01\n", "g").unwrap_err().contains("no end"));
    assert!(golden("text", "g").unwrap_err().contains("not in the document"));
}
