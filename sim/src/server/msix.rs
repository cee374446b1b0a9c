//! The MSI-X table and its pending bits as BAR 2 shows them (PCI-4).
//!
//! Clients of vfio-user set their vectors by message and QEMU keeps a table of its own, so nothing here raises or masks
//! anything: it is what a program that looks at the BAR finds.

use qkd_contract::pci::{MSIX_BAR_BYTES, MSIX_TABLE_OFFSET, VECTORS};

const _: () = assert!(MSIX_TABLE_OFFSET == 0, "entries are found by their offset in the BAR");
const ENTRY: usize = 16;
const ENTRIES: usize = VECTORS as usize;
/// Bits that can be written: an address that is a multiple of 4, data, and the mask bit of Vector Control.
const WRITABLE: [u8; ENTRY] =
    [0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0, 0, 0];
/// Every vector is masked after a reset.
const DEFAULT: [u8; ENTRY] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0, 0, 0];

/// The entries; all else in the BAR, pending bits too, reads 0.
#[derive(Debug)]
pub(crate) struct MsixTable([[u8; ENTRY]; ENTRIES]);

impl Default for MsixTable {
    fn default() -> Self {
        Self([DEFAULT; ENTRIES])
    }
}

impl MsixTable {
    /// Copies out of the BAR; `None` when the range does not lie within it.
    pub(crate) fn read(&self, offset: usize, count: usize) -> Option<Vec<u8>> {
        let end = within_bar(offset, count)?;
        Some((offset..end).map(|place| self.0.as_flattened().get(place).copied().unwrap_or(0)).collect())
    }

    /// Writes what can be written; `None` when the range does not lie within the BAR.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Option<()> {
        within_bar(offset, data.len())?;
        let octets = self.0.as_flattened_mut().iter_mut().zip(WRITABLE.into_iter().cycle()).skip(offset);
        for ((octet, mask), new) in octets.zip(data) {
            *octet = *octet & !mask | new & mask;
        }
        Some(())
    }
}

fn within_bar(offset: usize, count: usize) -> Option<usize> {
    offset.checked_add(count).filter(|end| *end as u64 <= MSIX_BAR_BYTES)
}
