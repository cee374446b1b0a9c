//! Key: test key by the contract, random key by its seed.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::card::Name;
use crate::link::{KeySource, test_key_cell};

const NAME: Name = Name { session: 0x1122_3344_5566_7788, sequence: 0x9A_0B0C_0D0E };

#[test]
fn the_last_cell_of_a_mebibyte_is_the_contracts() {
    // Golden octets of section 23, "test key cell".
    let expected =
        [0x88, 0x77, 0x66, 0x55, 0x0e, 0x0d, 0x0c, 0x0b, 0x9a, 0xff, 0xff, 0x00, 0xb0, 0x54, 0x99, 0xe3];
    assert_eq!(test_key_cell(NAME, 0xFFFF), expected);
    let block = KeySource::Positional.distil(NAME, 1 << 20);
    assert_eq!(block.expose()[0xF_FFF0..], expected);
}

#[test]
fn a_last_cell_that_does_not_fit_is_cut_off() {
    for length in [1, 15, 16, 17, 40] {
        let whole = KeySource::Positional.distil(NAME, 64);
        let part = KeySource::Positional.distil(NAME, length);
        assert_eq!(part.expose(), &whole.expose()[..length]);
    }
}

#[test]
fn random_key_never_repeats_and_follows_its_seed() {
    let source = |seed| KeySource::Random(Box::new(ChaCha8Rng::seed_from_u64(seed)));
    let (mut one, mut same, mut other) = (source(1), source(1), source(2));
    let first = one.distil(NAME, 64);
    assert_eq!(first.expose(), same.distil(NAME, 64).expose());
    assert_ne!(first.expose(), other.distil(NAME, 64).expose());
    assert_ne!(first.expose(), one.distil(NAME, 64).expose(), "the same name twice is still other key");
}

#[test]
fn key_is_not_shown() {
    let key = KeySource::Positional.distil(NAME, 64);
    assert_eq!(format!("{key:?}"), "KeyOctets(64 octets, not shown)");
}
