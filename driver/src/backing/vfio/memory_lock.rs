//! How much memory this process has locked, and may lock.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::error::VfioError;

/// The error that `length` bytes more would exceed the limit, if they would.
pub(super) fn exceeded_by(length: u64) -> Option<VfioError> {
    let limit = limit();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let needed = length.saturating_add(locked(&status));
    (needed > limit).then_some(VfioError::MemoryLock { length, needed, limit })
}

/// The limit in bytes.
pub(super) fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_MEMLOCK).map_or(u64::MAX, |(soft, _)| soft)
}

/// Bytes that are locked, or pinned for devices, by what the kernel says of the process.
fn locked(status: &str) -> u64 {
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    kilobytes("VmLck").saturating_add(kilobytes("VmPin")).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{exceeded_by, locked};
    use crate::backing::vfio::VfioError;

    #[test]
    fn locked_and_pinned_memory_both_count() {
        assert_eq!(locked("Name:\tqkdd\nVmLck:\t      64 kB\nVmPin:\t       4 kB\n"), 68 * 1024);
        assert_eq!(locked(""), 0);
        assert_eq!(locked("VmLck:\tmuch\n"), 0);
    }

    #[test]
    fn more_than_any_limit_is_told_with_both_numbers_and_a_byte_is_not() {
        let unlimited = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)
            .is_ok_and(|(limit, _)| limit == u64::MAX);
        match exceeded_by(u64::MAX) {
            Some(VfioError::MemoryLock { needed, limit, .. }) => assert!(needed > limit),
            other => assert!(unlimited && other.is_none(), "{other:?}"),
        }
        assert!(exceeded_by(1).is_none());
    }
}
