//! Power fails at any moment: what a commit has promised is there, and nothing of one is there in part.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::super::format::{FORMAT, STEPS};
use super::super::{FileLedger, Ledger, LedgerError};
use super::story::{Dice, Story};
use crate::agreement::Durable;

/// Octets of a sector: what a disk writes whole.
const SECTOR: usize = 512;

/// What is on the disk and what is on its way there.
#[derive(Debug, Default)]
struct Disk {
    durable: Vec<u8>,
    length: usize,
    /// Sectors written since the last synchronisation, by number.
    cached: BTreeMap<usize, Vec<u8>>,
    /// Operations until the power fails, or the disk is full.
    left: u64,
    /// A disk that says that it has synchronised, and has not.
    lies: bool,
}

#[derive(Clone, Debug, Default)]
struct Machine(Arc<Mutex<Disk>>);

impl Machine {
    fn with<R>(&self, act: impl FnOnce(&mut Disk) -> R) -> R {
        act(&mut self.0.lock().unwrap())
    }

    fn works(disk: &mut Disk) -> io::Result<()> {
        disk.left = disk.left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }

    /// The power fails: of what was on its way, each sector has arrived or not.
    fn fails(&self, dice: &mut Dice) {
        self.with(|disk| {
            let length = if dice.below(2) == 0 { disk.length } else { disk.durable.len() };
            disk.durable.resize(length.max(disk.durable.len().min(disk.length)), 0);
            for (number, sector) in std::mem::take(&mut disk.cached) {
                let at = number * SECTOR;
                if dice.below(2) == 0 && at + SECTOR <= disk.durable.len() {
                    disk.durable[at..at + SECTOR].copy_from_slice(&sector);
                }
            }
            disk.length = disk.durable.len();
        });
    }
}

impl Disk {
    fn sector(&self, number: usize) -> Vec<u8> {
        let mut sector = match self.cached.get(&number) {
            Some(sector) => sector.clone(),
            None => {
                let at = (number * SECTOR).min(self.durable.len());
                self.durable[at..(at + SECTOR).min(self.durable.len())].to_vec()
            }
        };
        sector.resize(SECTOR, 0);
        sector
    }
}

impl StorageBackend for Machine {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|disk| disk.length as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|disk| {
            let offset = usize::try_from(offset).unwrap();
            if offset + out.len() > disk.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for (at, octet) in out.iter_mut().enumerate() {
                let place = offset + at;
                let cached = disk.cached.get(&(place / SECTOR)).map(|sector| sector[place % SECTOR]);
                *octet = cached.unwrap_or_else(|| disk.durable.get(place).copied().unwrap_or(0));
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|disk| {
            Self::works(disk)?;
            disk.length = usize::try_from(length).unwrap();
            let most = disk.length.div_ceil(SECTOR);
            disk.cached.retain(|number, _| *number < most);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk| {
            Self::works(disk)?;
            if disk.lies {
                return Ok(());
            }
            disk.durable.resize(disk.length, 0);
            for (number, sector) in std::mem::take(&mut disk.cached) {
                let at = number * SECTOR;
                let end = (at + SECTOR).min(disk.length);
                disk.durable[at..end].copy_from_slice(&sector[..end - at]);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            Self::works(disk)?;
            let offset = usize::try_from(offset).unwrap();
            let mut at = offset;
            while at < offset + data.len() {
                let mut sector = disk.sector(at / SECTOR);
                let end = ((at / SECTOR + 1) * SECTOR).min(offset + data.len());
                sector[at % SECTOR..at % SECTOR + (end - at)]
                    .copy_from_slice(&data[at - offset..end - offset]);
                disk.cached.insert(at / SECTOR, sector);
                at = end;
            }
            Ok(())
        })
    }
}

/// One life with power failures. Answers how often the power failed, or what was lost.
fn live(seed: u64, lies: bool) -> Result<u64, String> {
    let place = Path::new("machine");
    let mut story = Story::new(seed);
    let machine = Machine::default();
    machine.with(|disk| disk.left = u64::MAX);
    drop(FileLedger::begin_on(machine.clone(), place).unwrap());
    machine.with(|disk| disk.lies = lies);
    let mut promised = Durable::default();
    let mut failures = 0;
    for _ in 0..12 {
        machine.with(|disk| disk.left = u64::MAX);
        let mut ledger = match FileLedger::open_on(machine.clone(), place, FORMAT, STEPS) {
            Ok(ledger) => ledger,
            Err(error) => return Err(format!("seed {seed}: {error}")),
        };
        let found = ledger.load().unwrap();
        if found != promised {
            return Err(format!("seed {seed}: {found:?} instead of {promised:?}"));
        }
        let left = story.dice.below(60);
        machine.with(|disk| disk.left = left);
        loop {
            let mut next = promised.clone();
            // The story goes on from what the ledger holds, as a core does.
            story.told = promised.clone();
            let batch = story.batch(6);
            batch.iter().for_each(|record| next.apply(record));
            match ledger.commit(&batch) {
                Ok(number) => {
                    next.write_number = number;
                    promised = next;
                }
                Err(LedgerError::Storage { .. }) => {
                    failures += 1;
                    drop(ledger);
                    machine.fails(&mut story.dice);
                    machine.with(|disk| disk.left = u64::MAX);
                    // It may be there or not, as a whole.
                    let opened = FileLedger::open_on(machine.clone(), place, FORMAT, STEPS);
                    let found = opened.map_err(|e| format!("seed {seed}: {e}"))?.load().unwrap();
                    next.write_number = found.write_number;
                    if found == next && found.write_number > promised.write_number {
                        promised = next;
                    }
                    break;
                }
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
    }
    Ok(failures)
}

#[test]
fn no_commit_that_was_promised_is_lost_and_none_is_there_in_part() {
    let mut failures = 0;
    for seed in 0..150 {
        failures += live(seed, false).unwrap();
    }
    assert!(failures > 1_000, "the power must have failed, not only {failures} times");
}

/// A check that would not see a lost commit proves nothing.
#[test]
fn a_disk_that_only_says_that_it_has_synchronised_is_found_out() {
    assert!((0..20).any(|seed| live(seed, true).is_err()));
}
