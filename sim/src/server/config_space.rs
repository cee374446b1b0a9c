//! PCI configuration space: what it shows, what may be written, and what a write sets off (clauses PCI).
//!
//! After the PCI Express Base Specification 5.0, chapter 7. What a function may hardwire because it does not have the
//! feature behind it is hardwired here.

use qkd_contract::pci::{
    CLASS_CODE, MSIX_BAR, MSIX_BAR_BYTES, MSIX_PBA_OFFSET, MSIX_TABLE_OFFSET, REGISTER_BAR_BYTES,
    REVISION_ID, VECTORS, VENDOR_ID,
};

/// Octets of configuration space of a PCI Express function.
pub(crate) const BYTES: usize = 4096;

const COMMAND: usize = 0x04;
const MEMORY_SPACE_ENABLE: u8 = 1 << 1;
const BUS_MASTER_ENABLE: u8 = 1 << 2;
const STATUS: usize = 0x06;
const RECEIVED_MASTER_ABORT: u8 = 1 << 5;
const POWER_MANAGEMENT: usize = 0x40;
const POWER_CONTROL: usize = POWER_MANAGEMENT + 4;
const NO_SOFT_RESET: u8 = 1 << 3;
const D3_HOT: u8 = 3;
const MSIX: usize = 0x48;
const PCI_EXPRESS: usize = 0x60;
const DEVICE_CONTROL: usize = PCI_EXPRESS + 0x08;
const FUNCTION_LEVEL_RESET: u8 = 1 << 7;
const DEVICE_STATUS: usize = PCI_EXPRESS + 0x0A;
const CORRECTABLE_ERROR: u8 = 1 << 0;
const NON_FATAL_ERROR: u8 = 1 << 1;
const UNSUPPORTED_REQUEST: u8 = 1 << 3;
const DEVICE_SERIAL: usize = 0x100;

/// What a write asks for beyond changing octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// Bit 15 of Device Control was set.
    FunctionReset,
}

/// Direction of a memory request to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read,
    Write,
}

/// One octet: what it shows, and what becomes of its bits.
#[derive(Clone, Copy, Debug, Default)]
struct Octet {
    value: u8,
    default: u8,
    /// Bits that take what is written.
    writable: u8,
    /// Bits that a written 1 clears (RW1C).
    clearable: u8,
    /// Bits that a function-level reset leaves as they are.
    sticky: u8,
}

/// The configuration space of one card.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    octets: Box<[Octet]>,
}

impl ConfigSpace {
    pub(crate) fn new(device_id: u16, serial: u64) -> Self {
        let mut space = Self { octets: vec![Octet::default(); BYTES].into_boxed_slice() };
        space.header();
        space.set_device_id(device_id);
        space.power_management();
        space.msix();
        space.pci_express();
        // Device Serial Number, version 1, the only extended capability; lower double word first (PCI-7).
        space.fixed(DEVICE_SERIAL, &0x0001_0003_u32.to_le_bytes());
        space.fixed(DEVICE_SERIAL + 4, &serial.to_le_bytes());
        space.power_on();
        space
    }

    fn header(&mut self) {
        self.fixed(0x00, &VENDOR_ID.to_le_bytes());
        // Memory Space, Bus Master, Parity Error Response, SERR#, Interrupt Disable. No I/O space (PCI-2).
        self.register(COMMAND, &[0, 0], &[0x46, 0x05]);
        // Capabilities List; Master Data Parity Error and, from bit 11 on, aborts, SERR# and parity are RW1C.
        self.fixed(STATUS, &[0x10, 0x00]);
        self.clearable(STATUS, &[0x00, 0xF9]);
        let [class_low, class_middle, class_high, _] = CLASS_CODE.to_le_bytes();
        self.fixed(0x08, &[REVISION_ID, class_low, class_middle, class_high]);
        // Cache Line Size, without effect in PCI Express. Latency Timer, Header Type 0 and BIST are 0.
        self.register(0x0C, &[0], &[0xFF]);
        self.base_address(0x10, REGISTER_BAR_BYTES);
        self.base_address(0x18, MSIX_BAR_BYTES);
        self.fixed(0x2C, &VENDOR_ID.to_le_bytes());
        // No expansion ROM: its BAR at 0x30 stays 0 (PCI-2).
        self.fixed(0x34, &[offset8(POWER_MANAGEMENT)]);
        // Interrupt Line belongs to software; Interrupt Pin is 0 (PCI-5).
        self.register(0x3C, &[0], &[0xFF]);
    }

    /// Version 3; D0 and D3hot only; no PME; no soft reset (PCI-8).
    fn power_management(&mut self) {
        self.fixed(POWER_MANAGEMENT, &[0x01, offset8(MSIX), 0x03, 0x00]);
        self.register(POWER_CONTROL, &[NO_SOFT_RESET], &[0x03]);
    }

    fn msix(&mut self) {
        self.fixed(MSIX, &[0x11, offset8(PCI_EXPRESS)]);
        let table_size = u16::try_from(VECTORS - 1).unwrap_or(0);
        // Function Mask and Enable.
        self.register(MSIX + 2, &table_size.to_le_bytes(), &[0x00, 0xC0]);
        self.fixed(MSIX + 4, &low32(MSIX_TABLE_OFFSET | u64::from(MSIX_BAR)));
        self.fixed(MSIX + 8, &low32(MSIX_PBA_OFFSET | u64::from(MSIX_BAR)));
    }

    /// Version 2, endpoint; payloads of 128 octets; 5 GT/s over four lanes, because 8 GT/s would demand the Secondary PCI
    /// Express capability too.
    fn pci_express(&mut self) {
        self.fixed(PCI_EXPRESS, &[0x10, 0x00, 0x02, 0x00]);
        // Device Capabilities: role-based error reporting, function-level reset.
        self.fixed(PCI_EXPRESS + 0x04, &0x1000_8000_u32.to_le_bytes());
        // Device Control: error reporting, Relaxed Ordering (ORD-2 allows it for payload), largest read request, 512
        // octets at first. The card never sets No Snoop (PCI-9), so that bit is 0.
        self.register(DEVICE_CONTROL, &0x2010_u16.to_le_bytes(), &[0x1F, 0x70]);
        self.clearable(DEVICE_STATUS, &[0x0F]);
        // Link Capabilities: 5 GT/s, four lanes, no ASPM, ASPM optionality.
        self.fixed(PCI_EXPRESS + 0x0C, &0x0040_0042_u32.to_le_bytes());
        // Link Control: ASPM, Read Completion Boundary, Common Clock, Extended Synch. They describe the link and
        // not the function, so its reset leaves them alone.
        self.register(PCI_EXPRESS + 0x10, &[0, 0], &[0xCB, 0x00]);
        self.sticky(PCI_EXPRESS + 0x10, &[0xCB]);
        // Link Status: 5 GT/s, four lanes, the slot's clock.
        self.fixed(PCI_EXPRESS + 0x12, &0x1042_u16.to_le_bytes());
        // Device Capabilities 2: completion timeouts can be switched off, as they must with an endpoint that reads.
        self.fixed(PCI_EXPRESS + 0x24, &0x0000_0010_u32.to_le_bytes());
        self.register(PCI_EXPRESS + 0x28, &[0, 0], &[0x10, 0x00]);
        // Link Capabilities 2: 2.5 and 5 GT/s.
        self.fixed(PCI_EXPRESS + 0x2C, &0x0000_0006_u32.to_le_bytes());
        // Link Control 2: target speed, compliance and transmit margin, all sticky.
        self.register(PCI_EXPRESS + 0x30, &[0x02, 0x00], &[0x9F, 0x1F]);
        self.sticky(PCI_EXPRESS + 0x30, &[0x9F, 0x1F]);
    }

    /// Shows another device identifier.
    pub(crate) fn set_device_id(&mut self, device_id: u16) {
        let octets = device_id.to_le_bytes();
        for (place, octet) in [0x02, 0x03, 0x2E, 0x2F].into_iter().zip(octets.into_iter().cycle()) {
            if let Some(shown) = self.octets.get_mut(place) {
                (shown.default, shown.value) = (octet, octet);
            }
        }
    }

    /// All of it as after power-on: the next host finds nothing of the last one's.
    pub(crate) fn power_on(&mut self) {
        self.octets.iter_mut().for_each(|octet| octet.value = octet.default);
    }

    /// As after a function-level reset: what belongs to the link stays.
    pub(crate) fn function_reset(&mut self) {
        for octet in &mut self.octets {
            octet.value = octet.default & !octet.sticky | octet.value & octet.sticky;
        }
    }

    /// Bus Master Enable is set.
    pub(crate) fn bus_master(&self) -> bool {
        self.value(COMMAND) & BUS_MASTER_ENABLE != 0
    }

    /// The function is in D3hot.
    pub(crate) fn is_asleep(&self) -> bool {
        self.value(POWER_CONTROL) & 0x03 == D3_HOT
    }

    /// Whether the function answers a memory request; if not, the request is unsupported and noted as that.
    pub(crate) fn takes(&mut self, request: Request) -> bool {
        let takes = self.value(COMMAND) & MEMORY_SPACE_ENABLE != 0 && !self.is_asleep();
        if !takes {
            // Role-based error reporting: for a read that is an advisory error, since the requester is told.
            let error = if request == Request::Read { CORRECTABLE_ERROR } else { NON_FATAL_ERROR };
            self.raise_status(DEVICE_STATUS, UNSUPPORTED_REQUEST | error);
        }
        takes
    }

    /// Notes that a read of the card was completed with Unsupported Request. Of writes, which are posted, no function
    /// ever learns that.
    pub(crate) fn note_refused_read(&mut self) {
        self.raise_status(STATUS + 1, RECEIVED_MASTER_ABORT);
    }

    /// Copies out; `None` when the range does not lie within configuration space.
    pub(crate) fn read(&self, offset: usize, count: usize) -> Option<Vec<u8>> {
        let octets = self.octets.get(offset..offset.checked_add(count)?)?;
        Some(octets.iter().map(|octet| octet.value).collect())
    }

    /// Writes what may be written; `None` when the range does not lie within configuration space.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Option<Effect> {
        let end = offset.checked_add(data.len())?;
        let power_before = self.value(POWER_CONTROL);
        let octets = self.octets.get_mut(offset..end)?;
        for (octet, new) in octets.iter_mut().zip(data) {
            octet.value = octet.value & !octet.writable | new & octet.writable;
            octet.value &= !(new & octet.clearable);
        }
        if matches!(self.value(POWER_CONTROL) & 0x03, 1 | 2)
            && let Some(power) = self.octets.get_mut(POWER_CONTROL)
        {
            // D1 and D2 do not exist: a write of them completes and changes nothing.
            power.value = power_before;
        }
        let trigger = DEVICE_CONTROL + 1;
        let resets = trigger
            .checked_sub(offset)
            .and_then(|place| data.get(place))
            .is_some_and(|octet| octet & FUNCTION_LEVEL_RESET != 0);
        Some(if resets { Effect::FunctionReset } else { Effect::None })
    }

    fn value(&self, offset: usize) -> u8 {
        self.octets.get(offset).map_or(0, |octet| octet.value)
    }

    fn raise_status(&mut self, offset: usize, bits: u8) {
        if let Some(octet) = self.octets.get_mut(offset) {
            octet.value |= bits;
        }
    }

    fn each(&mut self, offset: usize, values: &[u8], change: impl Fn(&mut Octet, u8)) {
        for (octet, &value) in self.octets.iter_mut().skip(offset).zip(values) {
            change(octet, value);
        }
    }

    fn fixed(&mut self, offset: usize, values: &[u8]) {
        self.each(offset, values, |octet, value| octet.default = value);
    }

    fn register(&mut self, offset: usize, values: &[u8], masks: &[u8]) {
        self.fixed(offset, values);
        self.each(offset, masks, |octet, mask| octet.writable = mask);
    }

    fn clearable(&mut self, offset: usize, masks: &[u8]) {
        self.each(offset, masks, |octet, mask| octet.clearable = mask);
    }

    fn sticky(&mut self, offset: usize, masks: &[u8]) {
        self.each(offset, masks, |octet, mask| octet.sticky = mask);
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
