//! Token buckets, in whole numbers only.

/// A bucket that fills at a steady rate up to its depth.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    rate_bps: u64,
    /// In thousandths of a bit, so that a rate in bit/s over milliseconds loses nothing.
    depth: u64,
    level: u64,
    at_ms: u64,
}

const PER_BYTE: u64 = 8 * 1000;

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate_bps: u32, depth_bytes: u64, now_ms: u64) -> Self {
        let depth = depth_bytes.saturating_mul(PER_BYTE);
        Self { rate_bps: u64::from(rate_bps), depth, level: depth, at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        self.level = self.level.saturating_add(passed.saturating_mul(self.rate_bps)).min(self.depth);
    }

    /// Octets that may be taken now.
    pub(crate) fn available(&mut self, now_ms: u64) -> u64 {
        self.fill(now_ms);
        self.level / PER_BYTE
    }

    /// Octets that it holds at most.
    pub(crate) fn depth(&self) -> u64 {
        self.depth / PER_BYTE
    }

    /// Takes octets; what is not there is not owed.
    pub(crate) fn take(&mut self, bytes: u64, now_ms: u64) {
        self.fill(now_ms);
        self.level = self.level.saturating_sub(bytes.saturating_mul(PER_BYTE));
    }

    /// When `bytes`, or all that the bucket can hold, will be there; `None` where the rate is 0 and it never will.
    pub(crate) fn ready_at(&mut self, bytes: u64, now_ms: u64) -> Option<u64> {
        self.fill(now_ms);
        let missing = bytes.saturating_mul(PER_BYTE).min(self.depth).saturating_sub(self.level);
        if missing == 0 {
            return Some(now_ms);
        }
        if self.rate_bps == 0 {
            return None;
        }
        Some(now_ms.saturating_add(missing.div_ceil(self.rate_bps)))
    }
}
