//! The two clocks that the key agreement wants.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::agreement::Now;

/// The time now. A clock that does not exist, which Linux does not know, reads 0.
pub(super) fn now() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Now { boot_ms: ms(boot), wall_ms: ms(wall) }
}

/// Names this run of the operating system, as the kernel does; 0 where it does not say. A service that sees of `/proc`
/// only processes is told it by its unit.
pub(super) fn boot_id() -> u128 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .or_else(|| std::env::var("QKDD_BOOT_ID").ok())
        .and_then(|text| text.trim().parse::<uuid::Uuid>().ok())
        .map_or(0, |id| id.as_u128())
}
