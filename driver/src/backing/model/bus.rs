//! The bus between the driver and a card model: registers, configuration space, memory that is mapped for the card,
//! interrupts.

use std::collections::BTreeMap;
use std::sync::Arc;

use qkd_contract::pci::{CONTROL_VECTOR, EVENT_VECTOR, REGISTER_BAR_BYTES};

use crate::backing::{
    BUS_MASTER, BackingError, COMMAND, DEVICE_SERIAL_NUMBER, EXTENDED_CAPABILITIES, MEMORY_SPACE,
};
use crate::shared_memory::SharedMemory;

/// Bytes of configuration space.
const CONFIG_BYTES: usize = 4096;

/// A DMA access that did not take place: bus mastering is off, or the address is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRefused;

/// What a card model sees of the bus.
pub trait ModelBus {
    /// Virtual time in microseconds.
    fn now_us(&self) -> u64;
    /// Reads a 32-bit register, whoever wrote it. Outside the BAR or unaligned: all ones.
    fn read32(&self, offset: u32) -> u32;
    /// Writes a 32-bit register. Outside the BAR or unaligned: nothing.
    fn write32(&mut self, offset: u32, value: u32);
    /// Reads a 64-bit register.
    fn read64(&self, offset: u32) -> u64;
    /// Writes a 64-bit register.
    fn write64(&mut self, offset: u32, value: u64);
    /// Whether bus mastering is on. Without it every DMA access is refused.
    fn bus_mastering(&self) -> bool;
    /// Reads host memory at an I/O virtual address.
    ///
    /// # Errors
    /// When bus mastering is off or not all of it is mapped; `into` is then unchanged.
    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused>;
    /// Writes host memory at an I/O virtual address.
    ///
    /// # Errors
    /// When bus mastering is off or not all of it is mapped; nothing is then written.
    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused>;
    /// Raises an interrupt vector; one that does not exist is nothing.
    fn raise(&mut self, vector: u32);
}

#[derive(Debug)]
pub(super) struct Interior {
    bar: Vec<u8>,
    config: Vec<u8>,
    mapped: BTreeMap<u64, Arc<SharedMemory>>,
    event_raised: bool,
    control_raised: bool,
}

impl Interior {
    pub(super) fn new(vendor: u16, device: u16, serial: u64) -> Self {
        let bar = vec![0; usize::try_from(REGISTER_BAR_BYTES).unwrap_or(0)];
        let mut config = vec![0; CONFIG_BYTES];
        let identity = [vendor.to_le_bytes(), device.to_le_bytes()].concat();
        config.iter_mut().zip(identity).for_each(|(place, octet)| *place = octet);
        // Capability version 1, nothing after it.
        let header = (u32::from(DEVICE_SERIAL_NUMBER) | 1 << 16).to_le_bytes();
        let capability = header.into_iter().chain(serial.to_le_bytes());
        let places = config.iter_mut().skip(usize::from(EXTENDED_CAPABILITIES));
        places.zip(capability).for_each(|(place, octet)| *place = octet);
        Self { bar, config, mapped: BTreeMap::new(), event_raised: false, control_raised: false }
    }

    fn register<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = usize::try_from(offset).ok().filter(|at| at.is_multiple_of(N))?;
        self.bar.get(at..)?.first_chunk::<N>().copied()
    }

    fn set_register<const N: usize>(&mut self, offset: u32, value: [u8; N]) {
        let at = usize::try_from(offset).ok().filter(|at| at.is_multiple_of(N));
        if let Some(place) = at.and_then(|at| self.bar.get_mut(at..)).and_then(<[u8]>::first_chunk_mut::<N>) {
            *place = value;
        }
    }

    /// A register as the host reads it: all ones while the function does not answer memory accesses.
    pub(super) fn host_read<const N: usize>(&self, offset: u32) -> [u8; N] {
        self.register(offset).filter(|_| self.command_has(MEMORY_SPACE)).unwrap_or([0xFF; N])
    }

    /// A register write of the host; nothing while the function does not answer memory accesses.
    pub(super) fn host_write<const N: usize>(&mut self, offset: u32, value: [u8; N]) {
        if self.command_has(MEMORY_SPACE) {
            self.set_register(offset, value);
        }
    }

    pub(super) fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), BackingError> {
        let at = usize::from(offset);
        let place = self.config.get(at..at + into.len()).ok_or_else(outside_config)?;
        into.copy_from_slice(place);
        Ok(())
    }

    pub(super) fn write_config(&mut self, offset: u16, from: &[u8]) -> Result<(), BackingError> {
        let at = usize::from(offset);
        let place = self.config.get_mut(at..at + from.len()).ok_or_else(outside_config)?;
        place.copy_from_slice(from);
        Ok(())
    }

    /// Clears the command register, as a function reset does.
    pub(super) fn clear_command(&mut self) {
        let at = usize::from(COMMAND);
        self.config.iter_mut().skip(at).take(2).for_each(|octet| *octet = 0);
    }

    pub(super) fn map(&mut self, iova: u64, memory: Arc<SharedMemory>) {
        self.mapped.insert(iova, memory);
    }

    pub(super) fn unmap(&mut self, iova: u64) -> Option<Arc<SharedMemory>> {
        self.mapped.remove(&iova)
    }

    pub(super) fn mapped_bytes(&self) -> usize {
        self.mapped.values().map(|memory| memory.len()).sum()
    }

    /// Whether the event and the control vector were raised since the last call.
    pub(super) fn take_interrupts(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.event_raised), std::mem::take(&mut self.control_raised))
    }

    fn command_has(&self, bit: u16) -> bool {
        self.config.get(usize::from(COMMAND)).is_some_and(|octet| u16::from(*octet) & bit != 0)
    }

    /// The mapping and offset of `length` bytes at `iova`, if the card may access them.
    fn reach(&self, iova: u64, length: usize) -> Result<(&SharedMemory, usize), DmaRefused> {
        if !self.command_has(BUS_MASTER) {
            return Err(DmaRefused);
        }
        let (base, memory) = self.mapped.range(..=iova).next_back().ok_or(DmaRefused)?;
        let offset = usize::try_from(iova - base).map_err(|_| DmaRefused)?;
        let end = offset.checked_add(length).ok_or(DmaRefused)?;
        if end > memory.len() { Err(DmaRefused) } else { Ok((memory, offset)) }
    }
}

fn outside_config() -> BackingError {
    BackingError::Unsuitable {
        what: "accessing configuration space",
        problem: "outside its 4096 bytes".to_owned(),
    }
}

/// The bus at one moment.
pub(super) struct Bus<'a> {
    interior: &'a mut Interior,
    now_us: u64,
}

impl<'a> Bus<'a> {
    pub(super) const fn new(interior: &'a mut Interior, now_us: u64) -> Self {
        Self { interior, now_us }
    }
}

impl ModelBus for Bus<'_> {
    fn now_us(&self) -> u64 {
        self.now_us
    }

    fn read32(&self, offset: u32) -> u32 {
        self.interior.register(offset).map_or(u32::MAX, u32::from_le_bytes)
    }

    fn write32(&mut self, offset: u32, value: u32) {
        self.interior.set_register(offset, value.to_le_bytes());
    }

    fn read64(&self, offset: u32) -> u64 {
        self.interior.register(offset).map_or(u64::MAX, u64::from_le_bytes)
    }

    fn write64(&mut self, offset: u32, value: u64) {
        self.interior.set_register(offset, value.to_le_bytes());
    }

    fn bus_mastering(&self) -> bool {
        self.interior.command_has(BUS_MASTER)
    }

    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused> {
        let (memory, offset) = self.interior.reach(iova, into.len())?;
        memory.copy_out(offset, into);
        Ok(())
    }

    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused> {
        let (memory, offset) = self.interior.reach(iova, from.len())?;
        memory.copy_in(offset, from);
        Ok(())
    }

    fn raise(&mut self, vector: u32) {
        match vector {
            EVENT_VECTOR => self.interior.event_raised = true,
            CONTROL_VECTOR => self.interior.control_raised = true,
            _ => {}
        }
    }
}
