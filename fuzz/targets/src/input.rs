//! Reads decisions from octets; what is beyond their end is zero.

pub(crate) struct Input<'a> {
    left: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { left: octets }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    pub(crate) fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.left.split_at(most.min(self.left.len()));
        self.left = rest;
        taken
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }

    /// A number: mostly a small one, sometimes one at an edge, sometimes any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            200 => u64::MAX,
            201 => u64::MAX - 1,
            202 => u64::MAX / 2,
            203 => u64::from(u32::MAX),
            204 => 1 << 32,
            205..=229 => self.u16().into(),
            _ => self.take(8).iter().fold(0, |number, octet| number << 8 | u64::from(*octet)),
        }
    }
}
