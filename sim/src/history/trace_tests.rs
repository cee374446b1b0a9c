use super::*;
use proptest::prelude::*;

fn key(parts: &[(u64, u32, usize)]) -> Vec<u8> {
    let mut all = Vec::new();
    for &(sequence, offset, length) in parts {
        let start = all.len();
        all.resize(start + length, 0);
        position::fill(1, sequence, offset, &mut all[start..]);
    }
    all
}

fn traced(key: &[u8], chunk: usize) -> (Vec<Piece>, Vec<Findings>) {
    let mut tracer = Tracer::default();
    let mut pieces = Vec::new();
    let findings = key.chunks(chunk).map(|chunk| tracer.follow(chunk, &mut pieces)).collect();
    (pieces, findings)
}

fn named(sequence: u64, offset: u32, length: u32) -> Piece {
    Piece::Named { from: Origin { session: 1, sequence, offset }, length }
}

/// Asserts that every piece that is named stands where `truth` (sequence and offset of each octet) says. Gives the number
/// of octets that are not named.
fn assert_true(pieces: &[Piece], truth: impl Fn(usize) -> (u64, usize)) -> u32 {
    let (mut at, mut unknown) = (0, 0);
    for piece in pieces {
        match piece {
            Piece::Named { from, .. } => {
                assert_eq!((from.sequence, from.offset as usize), truth(at), "octet {at} of {pieces:?}");
            }
            Piece::Unknown { length } => unknown += length,
        }
        at += piece.length() as usize;
    }
    unknown
}

#[test]
fn a_block_border_that_is_put_in_the_wrong_place_is_caught() {
    for border in 64..100 {
        for chunk in [32, 33, 64, 100, 1000] {
            let all = key(&[(4, 0, border), (5, 0, 2000 - border)]);
            let (pieces, _) = traced(&all, chunk);
            let truth = |at| if at < border { (4, at) } else { (5, at - border) };
            let unknown = assert_true(&pieces, truth);
            assert!(unknown <= 31, "{border} {chunk}: {pieces:?}");
        }
    }
}

#[test]
fn key_that_is_no_test_key_passing_as_one_is_caught() {
    let foreign: Vec<u8> = (0..96_u8).map(|i| i.wrapping_mul(37) ^ 0x5A).collect();
    let mut all = key(&[(4, 0, 64)]);
    all.extend_from_slice(&foreign);
    all.extend(key(&[(4, 160, 64)]));
    let (pieces, findings) = traced(&all, 32);
    assert_eq!(pieces, [named(4, 0, 64), Piece::Unknown { length: 96 }, named(4, 160, 64)]);
    assert_eq!(findings[2].longest_unknown, 32);
    assert!(findings.iter().all(|found| found.went_back.is_none()));
    assert_eq!(findings[5].damaged_before, Some(Origin { session: 1, sequence: 4, offset: 160 }));
}

#[test]
fn key_that_goes_back_is_caught() {
    let (_, findings) = traced(&key(&[(4, 64, 64), (4, 0, 64)]), 64);
    assert!(findings[0].went_back.is_none());
    let (latest, found) = findings[1].went_back.expect("goes back");
    assert_eq!((latest.offset, found.offset), (128, 0));
    let (_, findings) = traced(&key(&[(5, 64, 64), (4, 500, 64)]), 64);
    assert!(findings[1].went_back.is_some());
}

#[test]
fn one_damaged_octet_is_caught() {
    for wrong in 32..160 {
        let mut all = key(&[(4, 5, 200)]);
        all[wrong] ^= 0x10;
        let (pieces, findings) = traced(&all, 32);
        assert!(findings.iter().any(|found| found.damaged_before.is_some()), "{wrong}: {pieces:?}");
    }
    let (_, findings) = traced(&key(&[(4, 0, 71), (5, 0, 90), (6, 32, 90), (6, 160, 90)]), 32);
    assert!(findings.iter().all(|found| found.damaged_before.is_none()), "{findings:?}");
}

#[test]
fn chunks_smaller_than_a_cell_are_followed_once_a_cell_has_passed() {
    for chunk in 4..16 {
        let (pieces, _) = traced(&key(&[(4, 3, 300)]), chunk);
        let first = pieces.iter().find(|piece| matches!(piece, Piece::Named { .. }));
        let Some(Piece::Named { from, .. }) = first else { panic!("{chunk}: nothing named") };
        assert!(from.offset < 51, "{chunk}: {from:?}");
        let mut damaged = key(&[(4, 3, 300)]);
        damaged[200] ^= 1;
        let (_, findings) = traced(&damaged, chunk);
        assert!(findings.iter().any(|found| found.damaged_before.is_some()), "{chunk}");
    }
}

#[test]
fn a_place_that_begins_like_the_expected_one_is_not_taken_for_it() {
    // Streams take turns in one block; then one gets the block's last octets and the next block's first.
    for (tail, next_offset) in (0..40).flat_map(|tail| [(tail, 0), (tail, 32), (tail, 45)]) {
        let all = key(&[(4, 0, 64), (4, 640, tail), (5, next_offset, 96 - tail)]);
        for chunk in [32, 64] {
            let (pieces, _) = traced(&all, chunk);
            let unknown = assert_true(&pieces, |at| match at {
                0..64 => (4, at),
                _ if at < 64 + tail => (4, 640 + at - 64),
                _ => (5, next_offset as usize + at - 64 - tail),
            });
            assert!(unknown <= 62, "{tail} {next_offset} {chunk}: {pieces:?}");
        }
    }
}

proptest! {
    // Two borders per chunk, any offsets: what is named must be true, and little may stay unknown.
    #[test]
    fn a_piece_named_wrongly_is_caught(
        parts in prop::collection::vec((0_u32..5000, 1_usize..300), 1..12), chunk in 1_usize..200,
    ) {
        let mut sequence = 10;
        let parts: Vec<_> = parts.into_iter().map(|(offset, length)| { sequence += 1; (sequence, offset, length) }).collect();
        let truth: Vec<(u64, u32)> = parts.iter()
            .flat_map(|&(sequence, offset, length)| (offset..).take(length).map(move |at| (sequence, at))).collect();
        let (pieces, _) = traced(&key(&parts), chunk);
        let mut at = 0;
        let mut wrong = 0;
        for piece in &pieces {
            if let Piece::Named { from, length } = piece {
                for i in 0..*length {
                    let claimed = (from.sequence, from.offset + i);
                    wrong += usize::from(truth[at + i as usize] != claimed);
                }
            }
            at += piece.length() as usize;
        }
        prop_assert_eq!(at, truth.len());
        // The octets after a block's end that the next block's first ones agree with are nobody's.
        prop_assert!(wrong <= 4 * parts.len(), "{} wrong: {:?}", wrong, pieces);
    }

    #[test]
    fn arbitrary_octets_that_panic_or_hang_are_caught(
        octets in prop::collection::vec(any::<u8>(), 0..600), chunk in 1_usize..100,
    ) {
        let (pieces, _) = traced(&octets, chunk);
        prop_assert_eq!(pieces.iter().map(|p| p.length() as usize).sum::<usize>(), octets.len());
    }
}
