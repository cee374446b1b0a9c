//! What a server says about a region of its device.

use std::os::fd::OwnedFd;

use zerocopy::FromBytes;

use super::wire::{CapabilityHeader, SPARSE_MMAP, SparseArea, SparseHeader};

/// Most capabilities of a region that are looked through, and most areas in one.
const CHAIN_MAX: usize = 16;

/// What the server says about a region.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) flags: u32,
    /// Bytes.
    pub(super) size: u64,
    /// Where the region begins in its descriptor.
    pub(super) offset: u64,
    /// The areas that can be mapped, if not all of it can.
    pub(super) areas: Option<Vec<SparseArea>>,
    pub(super) descriptor: Option<OwnedFd>,
}

/// Looks through the capabilities of a region for the areas that can be mapped.
pub(super) fn sparse_areas(body: &[u8], first: u32) -> Result<Option<Vec<SparseArea>>, String> {
    let mut at = first;
    for _ in 0..CHAIN_MAX {
        if at == 0 {
            return Ok(None);
        }
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| body.get(at..))
            .ok_or("a capability lies outside the reply")?;
        let (header, rest) =
            CapabilityHeader::read_from_prefix(rest).map_err(|_| "a capability is cut short")?;
        if header.id != SPARSE_MMAP {
            at = header.next;
            continue;
        }
        let (sparse, mut rest) =
            SparseHeader::read_from_prefix(rest).map_err(|_| "a capability is cut short")?;
        let count = usize::try_from(sparse.areas).unwrap_or(usize::MAX);
        if count > CHAIN_MAX {
            return Err(format!("a region with {count} areas"));
        }
        let mut areas = Vec::with_capacity(count);
        for _ in 0..count {
            let (area, after) =
                SparseArea::read_from_prefix(rest).map_err(|_| "the list of areas is cut short")?;
            areas.push(area);
            rest = after;
        }
        return Ok(Some(areas));
    }
    Err("the capabilities go in circles".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{CHAIN_MAX, sparse_areas};

    proptest! {
        #[test]
        fn any_octets_give_an_end_and_no_more_areas_than_they_hold(
            body in proptest::collection::vec(any::<u8>(), 0..512),
            first in 0_u32..600,
        ) {
            if let Ok(Some(areas)) = sparse_areas(&body, first) {
                assert!(areas.len() <= CHAIN_MAX.min(body.len() / 16));
            }
        }
    }
}
