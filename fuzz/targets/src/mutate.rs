//! Seeded changes to inputs, for the bounded run.

/// A small generator: the same seed gives the same inputs everywhere.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit.max(1) as u64) as usize
    }
}

/// Octets that often matter.
const TELLING: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x80",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\r\n",
    b"\r\n\r\n",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"4294967296",
    b"1e9",
    b"null",
    b"true",
    b"\\u0000",
    b"\xed\xa0\x80",
    b"\x01\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// Changes `octets` at one to five places; `other` is a second input to take from.
pub fn change(octets: &mut Vec<u8>, other: &[u8], dice: &mut Dice, longest: usize) {
    for _ in 0..=dice.below(5) {
        let at = dice.below(octets.len() + 1);
        let end = (at + dice.below(16)).min(octets.len());
        match dice.below(8) {
            0 | 1 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << dice.below(8);
                }
            }
            2 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet = dice.roll().to_le_bytes()[0];
                }
            }
            3 => drop(octets.drain(at..end)),
            4 => {
                let telling = TELLING[dice.below(TELLING.len())];
                octets.splice(at..at, telling.iter().copied());
            }
            5 => {
                let telling = TELLING[dice.below(TELLING.len())];
                let end = (at + telling.len()).min(octets.len());
                octets.splice(at..end, telling.iter().copied());
            }
            6 => {
                let copy: Vec<u8> = octets.get(at..end).unwrap_or_default().to_vec();
                octets.splice(at..at, copy);
            }
            _ => {
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(64)).min(other.len());
                octets.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    octets.truncate(longest);
}
