//! The commands of vfio-user, answered for one card.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use qkd_contract::pci::{MSIX_BAR, MSIX_BAR_BYTES, REGISTER_BAR, REGISTER_BAR_BYTES, VECTORS};
use qkd_contract::registers::{self, Access, Register};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::config_space::{self, Request};
use super::dma::{READABLE, WRITABLE};
use super::port::{Port, signal};
use super::protocol::{
    DATA_MAX, DeviceInfo, DmaMap, DmaUnmap, IrqInfo, IrqSet, RegionAccess, RegionInfo, SparseMmap, Version,
    capabilities, command, vfio,
};

/// Octets of a REGION_READ that no register explains: undefined by REG-3, so they say nothing.
const UNDEFINED: u8 = 0;

/// What goes back to the client after the header.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Answer {
    fn of(body: &(impl IntoBytes + Immutable)) -> Self {
        Self { body: body.as_bytes().to_vec(), descriptor: None }
    }
}

/// One client's view of a card.
pub(crate) struct Device<'a> {
    port: &'a Port,
    version_agreed: bool,
}

impl<'a> Device<'a> {
    pub(crate) fn new(port: &'a Port) -> Self {
        Self { port, version_agreed: false }
    }

    /// Whether a version has been agreed on; nothing else is answered before.
    pub(crate) fn has_version(&self) -> bool {
        self.version_agreed
    }

    /// Does what a command asks for. Descriptors that are not used are closed.
    ///
    /// # Errors
    /// The errno for the reply.
    pub(crate) fn handle(
        &mut self,
        command: u16,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Errno> {
        if !self.version_agreed && command != command::VERSION {
            return Err(Errno::EINVAL);
        }
        match command {
            command::VERSION => self.version(body),
            command::DMA_MAP => self.dma_map(exactly(body)?, descriptors),
            command::DMA_UNMAP => self.dma_unmap(body),
            command::DEVICE_GET_INFO => device_info(exactly(body)?),
            command::DEVICE_GET_REGION_INFO => self.region_info(exactly(body)?),
            command::DEVICE_GET_IRQ_INFO => self.irq_info(exactly(body)?),
            command::DEVICE_SET_IRQS => self.set_irqs(body, descriptors),
            command::REGION_READ => self.region_read(exactly(body)?),
            command::REGION_WRITE => self.region_write(body),
            command::DEVICE_RESET if body.is_empty() => {
                if self.port.function_reset() {
                    Ok(Answer::default())
                } else {
                    Err(Errno::EIO)
                }
            }
            command::DEVICE_RESET => Err(Errno::EINVAL),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn version(&mut self, body: &[u8]) -> Result<Answer, Errno> {
        let (asked, text) = Version::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
        if self.version_agreed || asked.major.get() != 0 {
            return Err(Errno::EINVAL);
        }
        if !text.is_empty() {
            let json = text.strip_suffix(&[0]).ok_or(Errno::EINVAL)?;
            let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| Errno::EINVAL)?;
            if !value.is_object() {
                return Err(Errno::EINVAL);
            }
        }
        self.version_agreed = true;
        let ours = Version { major: 0.into(), minor: asked.minor.get().min(1).into() };
        let mut answer = Answer::of(&ours);
        answer.body.extend_from_slice(&capabilities());
        Ok(answer)
    }

    fn dma_map(&self, map: DmaMap, descriptors: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let mut descriptors = descriptors.into_iter();
        let file = descriptors.next().map(|descriptor| (descriptor, map.offset.get()));
        let flags = map.flags.get();
        if descriptors.next().is_some() || flags & (READABLE | WRITABLE) == 0 {
            return Err(Errno::EINVAL);
        }
        self.port.lock().dma.map(map.address.get(), map.size.get(), flags, file)?;
        Ok(Answer::default())
    }

    fn dma_unmap(&self, body: &[u8]) -> Result<Answer, Errno> {
        let (unmap, _) = DmaUnmap::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
        let flags = unmap.flags.get();
        if flags & vfio::UNMAP_DIRTY_BITMAP != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if body.len() != size_of::<DmaUnmap>() {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.port.lock();
        let size = if flags & vfio::UNMAP_ALL == 0 {
            inner.dma.unmap(unmap.address.get(), unmap.size.get())?
        } else if unmap.address.get() == 0 && unmap.size.get() == 0 {
            inner.dma.clear()
        } else {
            return Err(Errno::EINVAL);
        };
        Ok(Answer::of(&DmaUnmap { size: size.into(), ..unmap }))
    }

    fn region_info(&self, asked: RegionInfo) -> Result<Answer, Errno> {
        let index = asked.index.get();
        if index >= vfio::REGIONS || (asked.argsz.get() as usize) < size_of::<RegionInfo>() {
            return Err(Errno::EINVAL);
        }
        let bytes = region_bytes(index);
        let mapped = index == REGISTER_BAR;
        let mut flags = if bytes > 0 { vfio::REGION_READ | vfio::REGION_WRITE } else { 0 };
        let mut needed = size_of::<RegionInfo>();
        if mapped {
            flags |= vfio::REGION_MMAP | vfio::REGION_CAPS;
            needed += size_of::<SparseMmap>();
        }
        let room = asked.argsz.get() as usize >= needed;
        // Also where there is no room yet: QEMU asks with the shortest structure first, and does not ask again when
        // the flag tells of capabilities that have no place.
        let cap_offset = if mapped { size_of::<RegionInfo>() } else { 0 };
        let mut answer = Answer::of(&RegionInfo {
            argsz: u32::try_from(needed).unwrap_or(u32::MAX).into(),
            flags: flags.into(),
            index: index.into(),
            cap_offset: u32::try_from(cap_offset).unwrap_or(0).into(),
            size: bytes.into(),
            offset: 0.into(),
        });
        if mapped {
            let descriptor = self.port.registers.as_fd().try_clone_to_owned();
            answer.descriptor = Some(descriptor.map_err(|_| Errno::EMFILE)?);
            if room {
                let area = SparseMmap {
                    id: vfio::SPARSE_MMAP.into(),
                    version: 1.into(),
                    next: 0.into(),
                    areas: 1.into(),
                    reserved: 0.into(),
                    offset: 0.into(),
                    size: bytes.into(),
                };
                answer.body.extend_from_slice(area.as_bytes());
            }
        }
        Ok(answer)
    }

    fn irq_info(&self, asked: IrqInfo) -> Result<Answer, Errno> {
        let index = asked.index.get();
        if index >= vfio::IRQS || (asked.argsz.get() as usize) < size_of::<IrqInfo>() {
            return Err(Errno::EINVAL);
        }
        let count = self.irq_count(index);
        Ok(Answer::of(&IrqInfo {
            argsz: u32::try_from(size_of::<IrqInfo>()).unwrap_or(0).into(),
            flags: if count > 0 { vfio::IRQ_EVENTFD } else { 0 }.into(),
            index: index.into(),
            count: count.into(),
        }))
    }

    fn irq_count(&self, index: u32) -> u32 {
        match index {
            vfio::MSIX_IRQ => VECTORS,
            vfio::ERROR_IRQ => self.port.tells_errors().into(),
            vfio::REQUEST_IRQ => 1,
            _ => 0,
        }
    }

    fn set_irqs(&self, body: &[u8], descriptors: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let (set, data) = IrqSet::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
        let (index, flags) = (set.index.get(), set.flags.get());
        let (start, count) = (set.start.get(), set.count.get());
        if start.checked_add(count).is_none_or(|end| end > self.irq_count(index)) {
            return Err(Errno::EINVAL);
        }
        if flags & vfio::SET_ACTION != vfio::SET_ACTION_TRIGGER {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut inner = self.port.lock();
        let wanted = || (start as usize)..(start as usize + count as usize);
        let events: &mut [Option<OwnedFd>] = match index {
            vfio::MSIX_IRQ => &mut inner.vectors,
            vfio::ERROR_IRQ => std::slice::from_mut(&mut inner.error),
            vfio::REQUEST_IRQ => std::slice::from_mut(&mut inner.request),
            _ => return Err(Errno::EINVAL),
        };
        match flags & vfio::SET_DATA {
            vfio::SET_DATA_NONE if data.is_empty() && count == 0 => events.fill_with(|| None),
            vfio::SET_DATA_NONE if data.is_empty() => {
                events.get(wanted()).unwrap_or_default().iter().for_each(|event| signal(event.as_ref()));
            }
            vfio::SET_DATA_BOOL if data.len() == count as usize => {
                let chosen = events.get(wanted()).unwrap_or_default().iter().zip(data);
                chosen.filter(|(_, raise)| **raise != 0).for_each(|(event, _)| signal(event.as_ref()));
            }
            vfio::SET_DATA_EVENTFD if descriptors.is_empty() => {
                events.get_mut(wanted()).unwrap_or_default().fill_with(|| None);
            }
            vfio::SET_DATA_EVENTFD if descriptors.len() == count as usize => {
                if !descriptors.iter().all(is_eventfd) {
                    return Err(Errno::EINVAL);
                }
                let places = events.get_mut(wanted()).unwrap_or_default();
                places.iter_mut().zip(descriptors).for_each(|(place, event)| *place = Some(event));
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(Answer::default())
    }

    fn region_read(&self, access: RegionAccess) -> Result<Answer, Errno> {
        let (offset, count) = within_region(access)?;
        let mut answer = Answer::of(&access);
        let mut inner = self.port.lock();
        let region = access.region.get();
        let answers =
            !inner.is_gone() && (region == vfio::CONFIG_REGION || inner.config.takes(Request::Read));
        let octets = match region {
            _ if !answers => vec![0xFF; count],
            REGISTER_BAR => self.read_registers(offset, count),
            MSIX_BAR => inner.msix.read(offset, count).ok_or(Errno::EINVAL)?,
            _ => inner.config.read(offset, count).ok_or(Errno::EINVAL)?,
        };
        answer.body.extend_from_slice(&octets);
        Ok(answer)
    }

    fn region_write(&self, body: &[u8]) -> Result<Answer, Errno> {
        let (access, data) = RegionAccess::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
        let (offset, count) = within_region(access)?;
        if data.len() != count {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.port.lock();
        let region = access.region.get();
        let takes = !inner.is_gone() && (region == vfio::CONFIG_REGION || inner.config.takes(Request::Write));
        match region {
            // As on a bus: nobody takes the write and its sender never learns of it.
            _ if !takes => {}
            REGISTER_BAR => self.write_register(offset, data),
            MSIX_BAR => inner.msix.write(offset, data).ok_or(Errno::EINVAL)?,
            _ => {
                drop(inner);
                self.port.write_config(offset, data).ok_or(Errno::EINVAL)?;
            }
        }
        Ok(Answer::of(&access))
    }

    fn read_registers(&self, offset: usize, count: usize) -> Vec<u8> {
        let bar = &self.port.registers;
        let value = register_at(offset, count).and_then(|register| match register.width {
            8 => bar.load64(offset as u64).map(|value| value.to_le_bytes().to_vec()),
            _ => bar.load32(offset as u64).map(|value| value.to_le_bytes().to_vec()),
        });
        value.unwrap_or_else(|| vec![UNDEFINED; count])
    }

    /// Writes a register of the host with its own width; any other write is ignored (REG-2, REG-3, REG-4).
    fn write_register(&self, offset: usize, data: &[u8]) {
        let bar = &self.port.registers;
        let written = register_at(offset, data.len()).filter(|register| register.access == Access::Host);
        match (written.is_some(), data) {
            (true, &[a, b, c, d]) => {
                bar.store32(offset as u64, u32::from_le_bytes([a, b, c, d]));
            }
            (true, &[a, b, c, d, e, f, g, h]) => {
                bar.store64(offset as u64, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
            _ => {}
        }
    }
}

fn exactly<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(body).map_err(|_| Errno::EINVAL)
}

fn device_info(asked: DeviceInfo) -> Result<Answer, Errno> {
    if (asked.argsz.get() as usize) < size_of::<DeviceInfo>() {
        return Err(Errno::EINVAL);
    }
    Ok(Answer::of(&DeviceInfo {
        argsz: u32::try_from(size_of::<DeviceInfo>()).unwrap_or(0).into(),
        flags: (vfio::DEVICE_RESET | vfio::DEVICE_PCI).into(),
        regions: vfio::REGIONS.into(),
        irqs: vfio::IRQS.into(),
    }))
}

const fn region_bytes(index: u32) -> u64 {
    match index {
        REGISTER_BAR => REGISTER_BAR_BYTES,
        MSIX_BAR => MSIX_BAR_BYTES,
        vfio::CONFIG_REGION => config_space::BYTES as u64,
        _ => 0,
    }
}

/// Offset and count of an access that lies within its region and carries no more than was agreed.
fn within_region(access: RegionAccess) -> Result<(usize, usize), Errno> {
    let count = access.count.get();
    let end = access.offset.get().checked_add(count.into()).ok_or(Errno::EINVAL)?;
    if count == 0 || count as usize > DATA_MAX || end > region_bytes(access.region.get()) {
        return Err(Errno::EINVAL);
    }
    let offset = usize::try_from(access.offset.get()).map_err(|_| Errno::EINVAL)?;
    Ok((offset, count as usize))
}

fn register_at(offset: usize, width: usize) -> Option<&'static Register> {
    registers::ALL.iter().find(|known| known.offset as usize == offset && known.width as usize == width)
}

/// Whether a descriptor is an eventfd: writing to anything else could block the cards.
fn is_eventfd(descriptor: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    link.is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}
