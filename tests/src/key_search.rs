//! Finds positional test key in a file, whatever block it is of: each cell proves itself by its checksum (TST-1).

use qkd_sim::card::Name;
use qkd_sim::link::test_key_cell;

/// Octets of a cell.
const CELL: usize = 16;
/// Characters of base64 that hold a whole cell, wherever it begins within three octets.
const QUADS: usize = 24;

/// The dresses in which `octets` hold a whole cell of test key: "raw", "hex", "base64".
#[must_use]
pub fn dressed_key(octets: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    if octets.windows(CELL).any(is_cell) {
        found.push("raw");
    }
    if octets.windows(2 * CELL).any(|text| from_hex(text).is_some_and(|cell| is_cell(&cell))) {
        found.push("hex");
    }
    let in_base64 = |text: &[u8]| from_base64(text).is_some_and(|octets| octets.windows(CELL).any(is_cell));
    if octets.windows(QUADS).any(in_base64) {
        found.push("base64");
    }
    found
}

fn number(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

fn is_cell(octets: &[u8]) -> bool {
    let name = Name { session: number(&octets[..4]), sequence: number(&octets[4..9]) };
    let place = u32::try_from(number(&octets[9..12])).expect("three octets");
    // A session is never 0.
    name.session != 0 && test_key_cell(name, place) == octets
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.iter().map(|digit| char::from(*digit).to_digit(16)).collect();
    let octets = digits?;
    Some(octets.chunks(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect())
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    for quad in text.chunks(4) {
        let mut bits = 0_u32;
        for letter in quad {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        octets.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::dressed_key;
    use qkd_driver::BlockName;

    use crate::test_key::test_key;

    fn base64(octets: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        octets
            .chunks(3)
            .flat_map(|three| {
                let bits = three.iter().fold(0_usize, |bits, octet| bits << 8 | usize::from(*octet));
                [18, 12, 6, 0].map(|shift| char::from(LETTERS[bits >> shift & 63]))
            })
            .collect()
    }

    #[test]
    fn key_is_found_in_every_dress_and_wherever_it_begins() {
        let key = test_key(BlockName { session: 3, sequence: 1 << 33 }, 4_096);
        for begin in 0..20 {
            let part = &key[begin..begin + 48];
            let hex: String = part.iter().map(|octet| format!("{octet:02X}")).collect();
            let frame = |inner: &[u8]| [&b"{\"a\":\""[..], inner, &b"\"}"[..]].concat();
            assert_eq!(dressed_key(&frame(part)), ["raw"]);
            assert_eq!(dressed_key(&frame(hex.as_bytes())), ["hex"]);
            assert_eq!(dressed_key(&frame(base64(part).as_bytes())), ["base64"]);
        }
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_it() {
        assert_eq!(dressed_key(&[0; 100_000]), Vec::<&str>::new());
        let text = br#"{"block":[17643201,129],"hash":"00ff00ff00ff00ff00ff00ff00ff00ff00ff"}"#;
        assert_eq!(dressed_key(&text.repeat(1_000)), Vec::<&str>::new());
    }
}
