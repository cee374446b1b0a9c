//! Looks for marked key in everything that a running process can address, and in files.
//!
//! The key is positional test key (TST-1): each cell of 16 octets tells the block and the place that it is from, and proves
//! itself by its checksum. So one pass finds any of it, whichever chunk it was of, and tells which.

mod cells;
mod ends;
mod process;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

pub use self::cells::{CELL, Cell, Dress, cells_of};
pub use self::ends::{Ends, IN_FLIGHT, Seen, cells_in};
pub use self::process::{Blind, Mapping};

/// Where a cell lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How it is written there.
    pub dress: Dress,
    /// Index in [`Scan::mappings`].
    pub mapping: usize,
    /// Address of its first octet, or nearly so where it is in text.
    pub address: u64,
}

/// What was found in one process.
#[derive(Debug)]
pub struct Scan {
    /// Every mapping that the process had.
    pub mappings: Vec<Mapping>,
    /// Octets that were read and searched.
    pub searched: u64,
    /// Octets of secret memory (`memfd_secret`), which the kernel reads for nobody.
    pub secret: u64,
    /// Where each cell of test key was found, with at most one place for each dress and mapping.
    pub cells: HashMap<Cell, Vec<Place>>,
}

impl Scan {
    /// Searches all memory of the process, which should be stopped meanwhile.
    ///
    /// # Errors
    /// [`Blind`] when any memory of it but secret memory and the kernel's own pages cannot be read: a search that sees only a
    /// part proves nothing.
    pub fn of(pid: nix::unistd::Pid) -> Result<Self, Blind> {
        let mappings = process::mappings(pid)?;
        let mut scan = Self { mappings, searched: 0, secret: 0, cells: HashMap::new() };
        let memory = process::Memory::open(pid)?;
        for (index, mapping) in scan.mappings.iter().enumerate() {
            if mapping.is_secret() {
                scan.secret += mapping.length();
                continue;
            }
            let found = &mut scan.cells;
            let read = memory.search(mapping, |address, dress, cell| {
                let places = match found.entry(cell) {
                    Entry::Occupied(places) => places.into_mut(),
                    Entry::Vacant(place) => place.insert(Vec::new()),
                };
                if !places.iter().any(|place| place.dress == dress && place.mapping == index) {
                    places.push(Place { dress, mapping: index, address });
                }
            })?;
            scan.searched += read;
            let missed = mapping.missed(read);
            if missed > 0 {
                return Err(Blind::Missed { mapping: mapping.clone(), missed });
            }
        }
        Ok(scan)
    }

    /// The dresses in which a cell was found, each with the name of the mapping that holds it.
    #[must_use]
    pub fn places(&self, cell: &Cell) -> Vec<(Dress, &str)> {
        let places = self.cells.get(cell).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| (place.dress, self.mappings[place.mapping].name.as_str())).collect()
    }
}
