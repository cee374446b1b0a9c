//! PCI configuration space: what it shows, what may be written, and what a write sets off (clauses PCI).

use qkd_contract::pci::{
    CLASS_CODE, MSIX_BAR, MSIX_BAR_BYTES, MSIX_PBA_OFFSET, MSIX_TABLE_OFFSET, REGISTER_BAR_BYTES,
    REVISION_ID, VECTORS, VENDOR_ID,
};

/// Octets of configuration space of a PCI Express function.
pub(crate) const BYTES: usize = 4096;

const COMMAND: usize = 0x04;
const BUS_MASTER_ENABLE: u8 = 1 << 2;
const POWER_MANAGEMENT: usize = 0x40;
const POWER_CONTROL: usize = POWER_MANAGEMENT + 4;
const NO_SOFT_RESET: u8 = 1 << 3;
const D3_HOT: u8 = 3;
const MSIX: usize = 0x48;
const PCI_EXPRESS: usize = 0x60;
const DEVICE_CONTROL: usize = PCI_EXPRESS + 8;
const FUNCTION_LEVEL_RESET: u8 = 1 << 7;
const DEVICE_SERIAL: usize = 0x100;

/// What a write asks for beyond changing octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// Bit 15 of Device Control was set.
    FunctionReset,
}

/// The configuration space of one card.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    octets: Box<[u8]>,
    writable: Box<[u8]>,
    serial: u64,
    device_id: u16,
}

impl ConfigSpace {
    pub(crate) fn new(device_id: u16, serial: u64) -> Self {
        let blank = || vec![0; BYTES].into_boxed_slice();
        let mut space = Self { octets: blank(), writable: blank(), serial, device_id };
        space.reset();
        space
    }

    /// Shows another device identifier.
    pub(crate) fn set_device_id(&mut self, device_id: u16) {
        self.device_id = device_id;
        self.fixed(0x02, &device_id.to_le_bytes());
        self.fixed(0x2E, &device_id.to_le_bytes());
    }

    /// Default values, as after any reset of the function.
    pub(crate) fn reset(&mut self) {
        self.octets.fill(0);
        self.writable.fill(0);
        self.fixed(0x00, &VENDOR_ID.to_le_bytes());
        // Memory space, bus master, parity, SERR, INTx disable.
        self.register(COMMAND, &[0, 0], &[0x46, 0x05]);
        self.fixed(0x06, &0x0010_u16.to_le_bytes());
        let [class_low, class_middle, class_high, _] = CLASS_CODE.to_le_bytes();
        self.fixed(0x08, &[REVISION_ID, class_low, class_middle, class_high]);
        self.register(0x0C, &[0], &[0xFF]);
        self.base_address(0x10, REGISTER_BAR_BYTES);
        self.base_address(0x18, MSIX_BAR_BYTES);
        self.fixed(0x2C, &VENDOR_ID.to_le_bytes());
        self.set_device_id(self.device_id);
        self.fixed(0x34, &[offset8(POWER_MANAGEMENT)]);
        self.register(0x3C, &[0], &[0xFF]);
        self.capabilities();
    }

    fn capabilities(&mut self) {
        // Power Management, version 3, D0 and D3hot only.
        self.fixed(POWER_MANAGEMENT, &[0x01, offset8(MSIX), 0x03, 0x00]);
        self.register(POWER_CONTROL, &[NO_SOFT_RESET], &[0x03]);

        self.fixed(MSIX, &[0x11, offset8(PCI_EXPRESS)]);
        let table_size = u16::try_from(VECTORS - 1).unwrap_or(0);
        self.register(MSIX + 2, &table_size.to_le_bytes(), &[0x00, 0xC0]);
        self.fixed(MSIX + 4, &low32(MSIX_TABLE_OFFSET | u64::from(MSIX_BAR)));
        self.fixed(MSIX + 8, &low32(MSIX_PBA_OFFSET | u64::from(MSIX_BAR)));

        // PCI Express endpoint, version 2: role-based error reporting, function-level reset; 8 GT/s, four lanes.
        self.fixed(PCI_EXPRESS, &[0x10, 0x00, 0x02, 0x00]);
        self.fixed(PCI_EXPRESS + 0x04, &0x1000_8000_u32.to_le_bytes());
        self.register(DEVICE_CONTROL, &0x2810_u16.to_le_bytes(), &[0xFF, 0x7F]);
        self.fixed(PCI_EXPRESS + 0x0C, &0x0000_0043_u32.to_le_bytes());
        self.register(PCI_EXPRESS + 0x10, &[0, 0], &[0xC3, 0x00]);
        self.fixed(PCI_EXPRESS + 0x12, &0x0043_u16.to_le_bytes());
        self.register(PCI_EXPRESS + 0x28, &[0, 0], &[0x1F, 0x00]);
        self.fixed(PCI_EXPRESS + 0x2C, &0x0000_000E_u32.to_le_bytes());
        self.register(PCI_EXPRESS + 0x30, &[0x03, 0], &[0x0F, 0x00]);

        // Device Serial Number, version 1, the only extended capability; lower double word first (PCI-7).
        self.fixed(DEVICE_SERIAL, &0x0001_0003_u32.to_le_bytes());
        self.fixed(DEVICE_SERIAL + 4, &self.serial.to_le_bytes());
    }

    /// Bus Master Enable is set.
    pub(crate) fn bus_master(&self) -> bool {
        self.octet(COMMAND) & BUS_MASTER_ENABLE != 0
    }

    /// The function is in D3hot.
    pub(crate) fn is_asleep(&self) -> bool {
        self.octet(POWER_CONTROL) & 0x03 == D3_HOT
    }

    /// Copies out; `None` when the range does not lie within configuration space.
    pub(crate) fn read(&self, offset: usize, count: usize) -> Option<&[u8]> {
        self.octets.get(offset..offset.checked_add(count)?)
    }

    /// Writes what may be written; `None` when the range does not lie within configuration space.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Option<Effect> {
        let end = offset.checked_add(data.len())?;
        let before = self.octet(POWER_CONTROL);
        let octets = self.octets.get_mut(offset..end)?;
        let writable = self.writable.get(offset..end)?;
        for ((octet, mask), new) in octets.iter_mut().zip(writable).zip(data) {
            *octet = *octet & !mask | new & mask;
        }
        if matches!(self.octet(POWER_CONTROL) & 0x03, 1 | 2) {
            // D1 and D2 do not exist: a write of them changes nothing.
            self.fixed_octet(POWER_CONTROL, before);
        }
        let trigger = DEVICE_CONTROL + 1;
        let resets = trigger
            .checked_sub(offset)
            .and_then(|place| data.get(place))
            .is_some_and(|octet| octet & FUNCTION_LEVEL_RESET != 0);
        Some(if resets { Effect::FunctionReset } else { Effect::None })
    }

    fn octet(&self, offset: usize) -> u8 {
        self.octets.get(offset).copied().unwrap_or(0)
    }

    fn fixed_octet(&mut self, offset: usize, value: u8) {
        if let Some(octet) = self.octets.get_mut(offset) {
            *octet = value;
        }
    }

    fn fixed(&mut self, offset: usize, values: &[u8]) {
        for (place, &value) in (offset..).zip(values) {
            self.fixed_octet(place, value);
        }
    }

    fn register(&mut self, offset: usize, values: &[u8], masks: &[u8]) {
        self.fixed(offset, values);
        for (place, &mask) in (offset..).zip(masks) {
            if let Some(octet) = self.writable.get_mut(place) {
                *octet = mask;
            }
        }
    }

    /// A 64-bit, non-prefetchable memory BAR; writing all ones and reading back shows its size.
    fn base_address(&mut self, offset: usize, bytes: u64) {
        let masks = (!(bytes - 1)).to_le_bytes();
        self.register(offset, &[0x04], &masks);
    }
}

fn offset8(offset: usize) -> u8 {
    u8::try_from(offset).unwrap_or(0)
}

fn low32(value: u64) -> [u8; 4] {
    crate::card::low32(value).to_le_bytes()
}
