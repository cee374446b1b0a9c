//! The layouts of the card's contract: every octet of a structure belongs to a field, and no value is taken for another.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::{Acknowledgement, BlockHeader, Event};
use qkd_contract::state::{Fault, LinkState, Role, State};
use zerocopy::{FromBytes, IntoBytes};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "contract", run, seeds, bounded: 20_000, longest: 256 };

/// A word that is one of a kind's values is that one and no other.
macro_rules! keeps_its_value {
    ($word:ident: $($kind:ident),*) => {
        $(if let Ok(known) = $kind::try_from($word) {
            assert_eq!(known.value(), $word);
        })*
    };
}

fn run(octets: &[u8]) {
    if let Ok((header, _)) = BlockHeader::read_from_prefix(octets) {
        assert_eq!(header.as_bytes(), &octets[..64]);
        let rebuilt = BlockHeader {
            magic: header.magic.get().into(),
            version: header.version.get().into(),
            flags: header.flags.get().into(),
            session: header.session.get().into(),
            sequence: header.sequence.get().into(),
            length: header.length.get().into(),
            qber: header.qber.get().into(),
            distilled_at: header.distilled_at.get().into(),
            reserved: header.reserved,
            payload_crc: header.payload_crc.get().into(),
            header_crc: header.header_crc.get().into(),
        };
        assert_eq!(rebuilt.as_bytes(), &octets[..64]);
    }
    if let Ok((event, _)) = Event::read_from_prefix(octets) {
        assert_eq!(event.as_bytes(), &octets[..64]);
    }
    if let Ok((entry, _)) = Acknowledgement::read_from_prefix(octets) {
        assert_eq!(entry.as_bytes(), &octets[..32]);
    }
    for word in octets.as_chunks::<4>().0 {
        let word = u32::from_le_bytes(*word);
        keeps_its_value!(word: State, Fault, LinkState, Role, Opcode, Outcome);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let words: Vec<u8> = (0..16_u32).flat_map(u32::to_le_bytes).collect();
    vec![vec![0; 64], vec![0xFF; 64], words]
}
