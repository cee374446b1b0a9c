//! Cells of test key in octets of any kind.

/// Octets of a cell.
pub const CELL: usize = 16;

/// One cell of test key.
pub type Cell = [u8; CELL];

/// How key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dress {
    /// As it is.
    Raw,
    /// Hexadecimal digits of either case.
    Hex,
    /// Base64 with either alphabet, beginning at any of the three octets of a group.
    Base64,
    /// Decimal numbers between commas, as `Debug` writes octets.
    Decimal,
}

/// Characters of base64 that touch all octets of a cell, wherever it begins.
const BASE64_LEAST: usize = (CELL * 8).div_ceil(6);
/// Octets at the end of a piece that must be searched again with the next one: the longest text of a cell, `255, ` each.
pub(super) const OVERLAP: usize = CELL * 5;

/// Calls `found` with offset, dress and cell for each cell of test key in `octets`.
pub fn cells_of(octets: &[u8], mut found: impl FnMut(usize, Dress, Cell)) {
    for (at, window) in octets.windows(CELL).enumerate() {
        if let Some(cell) = cell(window) {
            found(at, Dress::Raw, cell);
        }
    }
    for_runs(
        octets,
        |octet| hex(octet).is_some(),
        2 * CELL,
        |start, run| {
            for skipped in 0..2 {
                let text = &run[skipped..];
                let decoded: Vec<u8> =
                    text.chunks_exact(2).filter_map(|two| Some(hex(two[0])? << 4 | hex(two[1])?)).collect();
                in_decoded(&decoded, |at, cell| found(start + skipped + 2 * at, Dress::Hex, cell));
            }
        },
    );
    for_runs(
        octets,
        |octet| base64(octet).is_some(),
        BASE64_LEAST,
        |start, run| {
            let values: Vec<u8> = run.iter().filter_map(|letter| base64(*letter)).collect();
            // The first octet begins at one of the first four letters, or within one of them.
            for skipped in [0_u32, 2, 4, 6] {
                let decoded = decode(&values, skipped);
                in_decoded(&decoded, |at, cell| found(start + at * 4 / 3, Dress::Base64, cell));
            }
        },
    );
    let in_list = |octet: u8| octet.is_ascii_digit() || matches!(octet, b',' | b' ');
    for_runs(octets, in_list, 2 * CELL - 1, |start, run| {
        let numbers: Vec<Option<u8>> = run
            .split(|octet| *octet == b',')
            .map(|word| std::str::from_utf8(word).ok()?.trim().parse().ok())
            .collect();
        for window in numbers.windows(CELL) {
            let octets: Option<Vec<u8>> = window.iter().copied().collect();
            if let Some(cell) = octets.and_then(|octets| cell(&octets)) {
                found(start, Dress::Decimal, cell);
            }
        }
    });
}

/// The octets in a text of base64 whose first octet begins `skipped` bits after its first letter.
fn decode(values: &[u8], skipped: u32) -> Vec<u8> {
    let (mut bits, mut held, mut octets) = (0_u32, 0_u32, Vec::with_capacity(values.len()));
    let mut left_out = skipped;
    for value in values {
        bits = bits << 6 | u32::from(*value);
        held += 6;
        let cut = left_out.min(held);
        left_out -= cut;
        held -= cut;
        bits &= (1 << held) - 1;
        if held >= 8 {
            held -= 8;
            octets.push(u8::try_from(bits >> held & 0xff).expect("eight bits"));
            bits &= (1 << held) - 1;
        }
    }
    octets
}

fn in_decoded(octets: &[u8], mut found: impl FnMut(usize, Cell)) {
    for (at, window) in octets.windows(CELL).enumerate() {
        if let Some(cell) = cell(window) {
            found(at, cell);
        }
    }
}

/// The octets, if they are a cell of test key. A session is never 0.
fn cell(octets: &[u8]) -> Option<Cell> {
    let cell: Cell = octets.try_into().ok()?;
    let (named, check) = cell.split_at(12);
    (named[..4] != [0; 4] && crc32c::crc32c(named).to_le_bytes() == check).then_some(cell)
}

/// Every longest run of octets that are `part`, of at least `least`.
fn for_runs(octets: &[u8], part: impl Fn(u8) -> bool, least: usize, mut each: impl FnMut(usize, &[u8])) {
    let mut table = [false; 256];
    for octet in 0..=u8::MAX {
        table[usize::from(octet)] = part(octet);
    }
    let mut start = 0;
    for run in octets.split(|octet| !table[usize::from(*octet)]) {
        if run.len() >= least {
            each(start, run);
        }
        start += run.len() + 1;
    }
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

fn base64(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use qkd_driver::BlockName;

    use super::{CELL, Cell, Dress, cells_of};
    use crate::test_key::test_key;

    fn found(octets: &[u8]) -> Vec<(Dress, Cell)> {
        let mut all = Vec::new();
        cells_of(octets, |_, dress, cell| all.push((dress, cell)));
        all.sort_unstable();
        all.dedup();
        all
    }

    fn base64(octets: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        octets
            .chunks(3)
            .flat_map(|three| {
                let bits =
                    (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(*three.get(at).unwrap_or(&0)));
                [18, 12, 6, 0]
                    .map(|shift| char::from(LETTERS[bits >> shift & 63]))
                    .into_iter()
                    .take(three.len() + 1)
            })
            .collect()
    }

    #[test]
    fn a_single_cell_is_found_in_every_dress_at_every_alignment_and_names_itself() {
        let key = test_key(BlockName { session: 0x0102_0304, sequence: 1 << 33 }, 4 * CELL);
        let cell: Cell = key[CELL..2 * CELL].try_into().unwrap();
        let hex = |upper: bool| -> String {
            cell.iter().map(|o| if upper { format!("{o:02X}") } else { format!("{o:02x}") }).collect()
        };
        for before in 0..40_usize {
            let frame = |inner: &[u8]| [&vec![b'"'; before], inner, b"\"}"].concat();
            assert_eq!(found(&frame(&cell)), [(Dress::Raw, cell)]);
            for upper in [false, true] {
                assert_eq!(found(&frame(hex(upper).as_bytes())), [(Dress::Hex, cell)]);
                // Beside an odd number of other digits.
                assert_eq!(found(&frame(format!("a{}", hex(upper)).as_bytes())), [(Dress::Hex, cell)]);
            }
            assert_eq!(found(&frame(format!("{cell:?}").as_bytes())), [(Dress::Decimal, cell)]);
        }
        for phase in 0..3 {
            // The letters that hold bits of the cell, and no others.
            let text = base64(&key[CELL - phase..2 * CELL]);
            let first = phase * 8 / 6;
            assert_eq!(
                found(format!("\"{}\"", &text[first..]).as_bytes()),
                [(Dress::Base64, cell)],
                "phase {phase}"
            );
            // In the middle of other letters, as in a chunk.
            let text = base64(&key[CELL - phase..3 * CELL + 7]);
            assert!(found(format!("x{text}").as_bytes()).contains(&(Dress::Base64, cell)));
        }
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_it() {
        assert_eq!(found(&[0; 100_000]), []);
        let text = br#"{"block":[17643201,129],"hash":"00ff00ff00ff00ff00ff00ff00ff00ff00ff","l":[1, 2, 3, 4, 5, 6, 7, 8, 9]}"#;
        assert_eq!(found(&text.repeat(1_000)), []);
        let mut key = test_key(BlockName { session: 3, sequence: 9 }, CELL);
        key[7] ^= 1;
        assert_eq!(found(&key), []);
    }
}
