//! Positional test key, from which it can be told whether octets were shifted, repeated or invented (TST-1).

use qkd_driver::BlockName;
use qkd_sim::card::Name;
use qkd_sim::link::test_key_cell;

/// The octets of the block `name` with `length` octets.
#[must_use]
pub fn test_key(name: BlockName, length: usize) -> Vec<u8> {
    let name = Name { session: name.session, sequence: name.sequence };
    let mut octets: Vec<u8> =
        (0..).take(length.div_ceil(16)).flat_map(|number| test_key_cell(name, number)).collect();
    octets.truncate(length);
    octets
}
