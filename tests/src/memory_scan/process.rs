//! The memory of another process, as the kernel shows it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use super::cells::{Cell, Dress, OVERLAP, cells_of};

/// Octets read at once.
const PIECE: usize = 1 << 20;

/// A search of a process's memory proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Blind {
    /// The kernel does not let this user look.
    #[error(
        "the memory of process {pid} cannot be looked at ({what}: {source}); this test must run as root (CAP_SYS_PTRACE)"
    )]
    Refused {
        /// The process.
        pid: Pid,
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A mapping that should be readable is not.
    #[error("{address:#x} in {mapping:?} cannot be read: {source}")]
    Unreadable {
        /// Where.
        address: u64,
        /// The mapping.
        mapping: Mapping,
        /// The kernel's word.
        source: io::Error,
    },
    /// A line of `/proc/PID/smaps` that is none.
    #[error("{0:?} is no line of a list of mappings")]
    Maps(String),
    /// Memory of the process was not searched, although something lies there.
    #[error("{missed} bytes of {mapping:?} are in memory and were not searched")]
    Missed {
        /// The mapping.
        mapping: Mapping,
        /// Octets.
        missed: u64,
    },
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// As the kernel writes them, such as `rw-p`.
    pub permissions: String,
    /// What is mapped; empty for anonymous memory.
    pub name: String,
    /// Octets of it that are in physical memory.
    pub resident: u64,
}

impl Mapping {
    /// Octets.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.to - self.from
    }

    /// Whether it is memory of `memfd_secret`.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.name.starts_with("/secretmem")
    }

    /// Whether it is the kernel's own, which holds nothing of the process, or may not be read by anybody, the process included.
    fn may_be_unreadable(&self) -> bool {
        self.name.starts_with("[v") || self.permissions.starts_with("---")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let permissions = words.next()?.to_owned();
        let name = words.nth(3).unwrap_or_default().trim().to_owned();
        Some(Self { from: address(from)?, to: address(to)?, permissions, name, resident: 0 })
    }

    /// How much of it may lie in memory unseen, where so many octets were read.
    pub(super) fn missed(&self, read: u64) -> u64 {
        if self.is_secret() || read == self.length() { 0 } else { self.resident }
    }
}

fn refused(pid: Pid, what: &'static str) -> impl FnOnce(io::Error) -> Blind {
    move |source| Blind::Refused { pid, what, source }
}

pub(super) fn mappings(pid: Pid) -> Result<Vec<Mapping>, Blind> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).map_err(refused(pid, "smaps"))?;
    parsed(&smaps)
}

/// Each mapping's line is followed by lines about it, `Name: value`.
fn parsed(smaps: &str) -> Result<Vec<Mapping>, Blind> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let no_line = || Blind::Maps(line.into());
        match line.split_once(':') {
            Some((name, value)) if !name.contains(' ') => {
                let mapping = mappings.last_mut().ok_or_else(no_line)?;
                if name == "Rss" {
                    let kilobytes = value.trim().strip_suffix(" kB").and_then(|kb| kb.parse::<u64>().ok());
                    mapping.resident = kilobytes.ok_or_else(no_line)? << 10;
                }
            }
            _ => mappings.push(Mapping::parse(line).ok_or_else(no_line)?),
        }
    }
    Ok(mappings)
}

pub(super) struct Memory {
    file: File,
}

impl Memory {
    pub(super) fn open(pid: Pid) -> Result<Self, Blind> {
        let file = File::open(format!("/proc/{pid}/mem")).map_err(refused(pid, "mem"))?;
        Ok(Self { file })
    }

    /// Searches a mapping; answers how many octets were read.
    pub(super) fn search(
        &self,
        mapping: &Mapping,
        mut found: impl FnMut(u64, Dress, Cell),
    ) -> Result<u64, Blind> {
        let mut buffer = vec![0; PIECE + OVERLAP];
        let (mut address, mut kept, mut read) = (mapping.from, 0, 0);
        while address < mapping.to {
            let wanted = usize::try_from(mapping.to - address).unwrap_or(PIECE).min(PIECE);
            let room = &mut buffer[kept..kept + wanted];
            if let Err(source) = self.file.read_exact_at(room, address) {
                if mapping.may_be_unreadable() {
                    return Ok(read);
                }
                return Err(Blind::Unreadable { address, mapping: mapping.clone(), source });
            }
            let filled = kept + wanted;
            let base = address - kept as u64;
            let searched = &buffer[..filled];
            // Most memory is zero, also in what was kept.
            if searched.iter().any(|octet| *octet != 0) {
                cells_of(searched, |at, dress, cell| found(base + at as u64, dress, cell));
            }
            read += wanted as u64;
            address += wanted as u64;
            let next = filled.min(OVERLAP);
            buffer.copy_within(filled - next..filled, 0);
            kept = next;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Size:               2048 kB
Rss:                  12 kB
VmFlags: rd wr mr mw me ac
7f0000200000-7f0000600000 rw-s 00000000 00:0f 1     /secretmem (deleted)
Rss:                4096 kB
7fff00000000-7fff00004000 r--p 00000000 00:00 0     [vvar]
Rss:                   0 kB
";

    #[test]
    fn what_lies_in_memory_and_was_not_searched_is_missed() {
        let mappings = parsed(SMAPS).unwrap();
        let [heap, secret, vvar] = mappings.as_slice() else { panic!("{mappings:?}") };
        assert_eq!((heap.length(), heap.resident, heap.name.as_str()), (2 << 20, 12 << 10, ""));
        assert_eq!((heap.missed(0), heap.missed(2 << 20)), (12 << 10, 0));
        assert_eq!((secret.is_secret(), secret.resident, secret.missed(0)), (true, 4 << 20, 0));
        assert_eq!(vvar.missed(0), 0);
        for wrong in ["Rss: 1 kB\n", "nothing\n", "7f00-7f01 rw-p 0 00:00 0 x\nRss: some kB\n"] {
            assert!(matches!(parsed(wrong), Err(Blind::Maps(_))), "{wrong}");
        }
    }
}
