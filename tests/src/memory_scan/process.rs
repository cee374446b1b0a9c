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
    /// A line of `/proc/PID/maps` that is none.
    #[error("{0:?} is no line of a list of mappings")]
    Maps(String),
    /// Less was searched than the process has in memory.
    #[error(
        "{searched} bytes searched and {secret} secret, but {resident} are resident: mappings were missed"
    )]
    Missed {
        /// Octets searched.
        searched: u64,
        /// Octets of secret memory.
        secret: u64,
        /// Octets resident.
        resident: u64,
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
        Some(Self { from: address(from)?, to: address(to)?, permissions, name })
    }
}

fn refused(pid: Pid, what: &'static str) -> impl FnOnce(io::Error) -> Blind {
    move |source| Blind::Refused { pid, what, source }
}

pub(super) fn mappings(pid: Pid) -> Result<Vec<Mapping>, Blind> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).map_err(refused(pid, "maps"))?;
    maps.lines().map(|line| Mapping::parse(line).ok_or_else(|| Blind::Maps(line.into()))).collect()
}

/// Octets of the process that are in physical memory.
pub(super) fn resident(pid: Pid) -> Result<u64, Blind> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(refused(pid, "status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|kb| kb * 1024).ok_or(Blind::Maps(status))
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
