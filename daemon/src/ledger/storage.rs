//! The file under the ledger: room for it is set aside before it is needed, so that a disk that others fill does not stop
//! a ledger of usual size.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use redb::StorageBackend;
use redb::backends::FileBackend;

/// Octets set aside. A ledger grows beyond that only with tens of thousands of closed key streams, or with the key of
/// thousands of open ones under way; then room is set aside as it grows.
pub(super) const ROOM: u64 = 8 << 20;

/// A file with room set aside. It needs no locks of its own: the directory is locked.
#[derive(Debug)]
pub(super) struct Storage {
    inner: FileBackend,
    /// The same open file.
    file: File,
}

impl Storage {
    /// Sets room aside.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let same = file.try_clone()?;
        let inner = FileBackend::new(file).map_err(io::Error::other)?;
        let storage = Self { inner, file: same };
        storage.set_aside(ROOM)?;
        Ok(storage)
    }

    /// Room for `octets`, whether the file is that long or not.
    fn set_aside(&self, octets: u64) -> io::Result<()> {
        let Ok(octets) = i64::try_from(octets.max(ROOM)) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        match fallocate(self.file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, octets) {
            // A file system that cannot do this must do without.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, octets: u64) -> io::Result<()> {
        self.set_aside(octets)?;
        self.inner.set_len(octets)?;
        // A file that becomes shorter loses what was set aside behind it.
        self.set_aside(octets)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
