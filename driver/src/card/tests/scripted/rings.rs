//! The scripted card's side of the three rings.

use qkd_contract::layout::{
    Acknowledgement, BLOCK_MAGIC, BLOCK_REPLAYED, BLOCK_VERSION, BlockHeader, Event, event,
};
use qkd_contract::pci::EVENT_VECTOR;
use qkd_contract::registers as reg;
use qkd_contract::state::Fault;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Item, Scripted};
use crate::backing::model::{DmaRefused, ModelBus};
use crate::name::BlockName;

impl Scripted {
    pub(super) fn take_acks(&mut self, bus: &mut dyn ModelBus) {
        let tail = bus.read32(reg::ACK_TAIL.offset);
        let (base, count) = (bus.read64(reg::ACK_BASE.offset), bus.read32(reg::ACK_COUNT.offset));
        assert!(tail.wrapping_sub(self.ack_head) <= count, "the acknowledgement ring is overrun (ACK-1)");
        while self.ack_head != tail && !self.plants.acks_ignored {
            let mut octets = [0; 32];
            let at = base + u64::from(self.ack_head % count) * 32;
            if bus.dma_read(at, &mut octets).is_err() {
                return self.break_down(Fault::Dma);
            }
            let entry = Acknowledgement::read_from_bytes(&octets).expect("32 octets");
            let first =
                BlockName { session: entry.first_session.get(), sequence: entry.first_sequence.get() };
            let last = BlockName { session: entry.last_session.get(), sequence: entry.last_sequence.get() };
            assert!(first <= last, "a range the wrong way round (ACK-2)");
            self.retained.retain(|name, _| *name < first || *name > last);
            self.acknowledged.push((first, last));
            self.ack_head = self.ack_head.wrapping_add(1);
        }
    }

    /// Watches that slots come back wiped and that the host's counters keep the rules (RNG-7).
    pub(super) fn watch_counters(&mut self, bus: &mut dyn ModelBus) {
        let (credit, count) = (bus.read32(reg::SLOT_CREDIT.offset), bus.read32(reg::SLOT_COUNT.offset));
        assert!(credit.wrapping_sub(self.delivered) <= count, "too much credit (RNG-7)");
        let consumed = bus.read32(reg::EVENT_CONSUMED.offset);
        assert!(
            self.written.wrapping_sub(consumed) <= bus.read32(reg::EVENT_COUNT.offset),
            "more consumed than written (RNG-7)"
        );
        let (base, bytes) = (bus.read64(reg::SLOT_BASE.offset), bus.read32(reg::SLOT_BYTES.offset));
        while self.credit_seen != credit {
            let mut slot = vec![0; bytes as usize];
            let at = base + u64::from(self.credit_seen % count) * u64::from(bytes);
            if bus.dma_read(at, &mut slot).is_ok() && slot.iter().any(|octet| *octet != 0) {
                self.unwiped_slots += 1;
            }
            self.credit_seen = self.credit_seen.wrapping_add(1);
        }
    }

    pub(super) fn deliver(&mut self, bus: &mut dyn ModelBus) {
        while let Some(item) = self.queue.front() {
            let consumed = bus.read32(reg::EVENT_CONSUMED.offset);
            let number = self.written.wrapping_add(1);
            if number.wrapping_sub(consumed) > bus.read32(reg::EVENT_COUNT.offset) {
                return;
            }
            let mut entry = Event::new_zeroed();
            entry.number = number.into();
            match *item {
                Item::Block { name, length, replayed } => {
                    let count = bus.read32(reg::SLOT_COUNT.offset);
                    let credit = bus.read32(reg::SLOT_CREDIT.offset).wrapping_sub(self.delivered);
                    if replayed && !self.retained.contains_key(&name) {
                        self.queue.pop_front();
                        continue;
                    }
                    if !(1..=count).contains(&credit) {
                        return;
                    }
                    entry.kind = event::BLOCK.into();
                    entry.slot = (self.delivered % count).into();
                    entry.session = name.session.into();
                    entry.sequence = name.sequence.into();
                    entry.length = u32::try_from(length).expect("short").into();
                    if self.write_block(bus, entry.slot.get(), name, length, replayed).is_err() {
                        return self.break_down(Fault::Dma);
                    }
                    self.delivered = self.delivered.wrapping_add(1);
                }
                Item::ReplayEnd => entry.kind = event::REPLAY_END.into(),
                Item::Session { session, previous } => {
                    entry.kind = event::SESSION.into();
                    entry.session = session.into();
                    entry.sequence = previous.into();
                }
                Item::Link(state) => {
                    entry.kind = event::LINK.into();
                    entry.detail = state.value().into();
                }
            }
            self.queue.pop_front();
            self.write_event(bus, entry);
        }
    }

    fn write_block(
        &mut self,
        bus: &mut dyn ModelBus,
        slot: u32,
        name: BlockName,
        length: usize,
        replayed: bool,
    ) -> Result<(), DmaRefused> {
        let at = bus.read64(reg::SLOT_BASE.offset)
            + u64::from(slot) * u64::from(bus.read32(reg::SLOT_BYTES.offset));
        let mut payload = Self::payload(name, length);
        let mut header = BlockHeader::new_zeroed();
        header.magic = BLOCK_MAGIC.into();
        header.version = BLOCK_VERSION.into();
        header.flags = if replayed { BLOCK_REPLAYED.into() } else { 0.into() };
        header.session = name.session.into();
        header.sequence = name.sequence.into();
        header.length = u32::try_from(length).expect("short").into();
        header.qber = 20_000.into();
        header.payload_crc = crc32c::crc32c(&payload).into();
        header.header_crc = crc32c::crc32c(&header.as_bytes()[..60]).into();
        if let Some(plant) = self.plants.payload.as_ref().filter(|plant| plant.sequence == name.sequence) {
            (plant.change)(&mut payload);
        }
        if let Some(plant) = self.plants.header.as_ref().filter(|plant| plant.sequence == name.sequence) {
            (plant.change)(&mut header);
            if plant.reseal {
                header.header_crc = crc32c::crc32c(&header.as_bytes()[..60]).into();
            }
        }
        bus.dma_write(at + 64, &payload)?;
        bus.dma_write(at, header.as_bytes())
    }

    fn write_event(&mut self, bus: &mut dyn ModelBus, mut entry: Event) {
        let index = entry.number.get().wrapping_sub(1) % bus.read32(reg::EVENT_COUNT.offset);
        entry.crc = crc32c::crc32c(&entry.as_bytes()[..56]).into();
        let of_block = (entry.kind == event::BLOCK).then_some(entry.sequence.get());
        if let Some(plant) = self.plants.event.as_ref().filter(|plant| of_block == Some(plant.sequence)) {
            (plant.change)(&mut entry);
            if plant.reseal {
                entry.crc = crc32c::crc32c(&entry.as_bytes()[..56]).into();
            }
        }
        self.written = self.written.wrapping_add(1);
        if of_block.is_some() && of_block == self.plants.skip_event {
            return;
        }
        let at = bus.read64(reg::EVENT_BASE.offset) + u64::from(index) * 64;
        if bus.dma_write(at, entry.as_bytes()).is_err() {
            self.break_down(Fault::Dma);
        }
    }

    pub(super) fn serve_arm(&mut self, bus: &mut dyn ModelBus) {
        let arm = bus.read64(reg::ARM.offset);
        let serial = u32::try_from(arm >> 32).expect("32 bits");
        let number = u32::try_from(arm & 0xFFFF_FFFF).expect("32 bits");
        let waiting = self.written.wrapping_sub(number);
        if serial != self.arm_served && (1..1 << 31).contains(&waiting) {
            self.arm_served = serial;
            self.raise(bus, EVENT_VECTOR);
        }
    }
}
