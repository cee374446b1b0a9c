//! Delivery: events and blocks into the host's rings, acknowledgements out of them (clauses BLK, EVT, ACK).

use std::collections::VecDeque;

use qkd_contract::layout::{
    Acknowledgement, BLOCK_MAGIC, BLOCK_REPLAYED, BLOCK_VERSION, BlockHeader, Event, event,
};
use qkd_contract::limits::{ACK_BYTES, BLOCK_HEADER_BYTES};
use qkd_contract::registers as reg;
use qkd_contract::state::{Fault, LinkState};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::block::{Block, Name};
use super::bus::{Bus, DmaRefused, read_u32};
use super::misbehaviour::{Misbehaviour, OnDelivery};
use super::retention::Retention;
use super::rings::Rings;

/// Blocks that one step delivers at most, so that a step stays short.
const BLOCKS_A_STEP: u32 = 64;
/// Acknowledgement entries that one step takes at most.
const ACKS_A_STEP: u32 = 1024;
/// Notices that may wait before those that the host can do without are dropped (EVT-7).
const NOTICES_BEFORE_THINNING: usize = 256;

/// Something other than a block that the host is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    ReplayEnd,
    Session { session: u64, blocks_before: u64 },
    Link(LinkState),
}

/// Why delivery cannot go on; the card enters this fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The host broke a rule of the rings.
    Ring,
    /// A DMA access was refused.
    Dma(DmaRefused),
}

impl Broken {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Ring => Fault::Ring,
            Self::Dma(_) => Fault::Dma,
        }
    }
}

impl From<DmaRefused> for Broken {
    fn from(refused: DmaRefused) -> Self {
        Self::Dma(refused)
    }
}

/// The state of delivery since START.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) rings: Rings,
    /// Blocks delivered, free running.
    delivered: u32,
    /// Number of the newest event.
    written: u32,
    ack_head: u32,
    /// Newest block delivered; what comes before it is never delivered again in this run.
    cursor: Option<Name>,
    replay_until: Option<Name>,
    /// Each waits until the blocks up to its name are delivered.
    notices: VecDeque<(Option<Name>, Notice)>,
    /// Length of the notices at which they are thinned next.
    thin_at: usize,
    /// A block that a fault holds back behind its successor.
    held: Option<Name>,
}

impl Delivery {
    /// Begins a run: everything retained is delivered again, then the notices (RPL-1).
    pub(crate) fn begin(rings: Rings, retention: &Retention) -> Self {
        let replay_until = retention.newest();
        Self {
            rings,
            delivered: 0,
            written: 0,
            ack_head: 0,
            cursor: None,
            replay_until,
            notices: VecDeque::from([(replay_until, Notice::ReplayEnd)]),
            thin_at: NOTICES_BEFORE_THINNING,
            held: None,
        }
    }

    /// Queues a notice behind everything announced so far. What waits is bounded by what is retained (EVT-7).
    pub(crate) fn notice(&mut self, retention: &Retention, after: Option<Name>, notice: Notice) {
        self.notices.push_back((after, notice));
        if self.notices.len() >= self.thin_at {
            self.thin(retention);
            self.thin_at = NOTICES_BEFORE_THINNING.max(2 * self.notices.len());
        }
    }

    /// Drops the LINK events that a newer one overtakes with no block between, and the SESSION events of sessions of
    /// which no block is retained while a newer one waits.
    fn thin(&mut self, retention: &Retention) {
        let mut kept: VecDeque<(Option<Name>, Notice)> = VecDeque::new();
        let mut newer_session = false;
        for (after, notice) in self.notices.drain(..).rev() {
            let superseded = match notice {
                Notice::ReplayEnd => false,
                Notice::Link(_) => matches!(kept.front(), Some(&(next, Notice::Link(_)))
                    if retention.after(after).is_none_or(|block| Some(block.name) > next)),
                Notice::Session { session, .. } => {
                    let first = Name { session, sequence: 0 };
                    let empty =
                        retention.at_or_after(first).is_none_or(|block| block.name.session != session);
                    std::mem::replace(&mut newer_session, true) && empty
                }
            };
            if !superseded {
                kept.push_front((after, notice));
            }
        }
        self.notices = kept;
    }

    #[cfg(test)]
    pub(crate) fn notices_waiting(&self) -> usize {
        self.notices.len()
    }

    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    pub(crate) fn ack_head(&self) -> u32 {
        self.ack_head
    }

    /// Takes acknowledgement entries and erases what they name (ACK-1 to ACK-3). Gives how many it took.
    pub(crate) fn take_acknowledgements(
        &mut self,
        bus: &mut dyn Bus,
        retention: &mut Retention,
    ) -> Result<u32, Broken> {
        let waiting = read_u32(bus, &reg::ACK_TAIL).wrapping_sub(self.ack_head);
        if waiting > self.rings.ack_count {
            return Err(Broken::Ring);
        }
        let taken = waiting.min(ACKS_A_STEP);
        for _ in 0..taken {
            let mut octets = [0; ACK_BYTES as usize];
            bus.dma_read(self.rings.ack_address(self.ack_head), &mut octets)?;
            let entry = Acknowledgement::read_from_bytes(&octets).map_err(|_| Broken::Ring)?;
            let first = Name { session: entry.first_session.get(), sequence: entry.first_sequence.get() };
            let last = Name { session: entry.last_session.get(), sequence: entry.last_sequence.get() };
            if first > last {
                return Err(Broken::Ring);
            }
            retention.erase(first, last);
            self.ack_head = self.ack_head.wrapping_add(1);
        }
        Ok(taken)
    }

    /// Delivers what there is room for. Gives how many events it wrote.
    pub(crate) fn deliver(
        &mut self,
        bus: &mut dyn Bus,
        retention: &Retention,
        misbehaviour: &mut Misbehaviour,
    ) -> Result<u32, Broken> {
        let consumed = read_u32(bus, &reg::EVENT_CONSUMED);
        let credit = read_u32(bus, &reg::SLOT_CREDIT);
        if self.written.wrapping_sub(consumed) > self.rings.event_count
            || credit.wrapping_sub(self.delivered) > self.rings.slot_count
        {
            return Err(Broken::Ring);
        }
        let before = self.written;
        let mut blocks = 0;
        while self.written.wrapping_sub(consumed) < self.rings.event_count {
            let block = self.next_block(retention);
            match (self.notices.front(), block) {
                (Some(&(after, notice)), block) if block.is_none_or(|block| after < Some(block.name)) => {
                    self.notices.pop_front();
                    self.write_notice(bus, notice)?;
                }
                (_, Some(block)) => {
                    if credit == self.delivered || blocks == BLOCKS_A_STEP {
                        break;
                    }
                    blocks += 1;
                    self.write_block(bus, block, retention, misbehaviour)?;
                }
                (_, None) => break,
            }
        }
        Ok(self.written.wrapping_sub(before))
    }

    /// The block that comes next, whether or not there is room for it.
    fn next_block<'a>(&self, retention: &'a Retention) -> Option<&'a Block> {
        self.held.and_then(|held| retention.get(held)).or_else(|| retention.after(self.cursor))
    }

    fn write_block(
        &mut self,
        bus: &mut dyn Bus,
        block: &Block,
        retention: &Retention,
        misbehaviour: &mut Misbehaviour,
    ) -> Result<(), Broken> {
        if self.held.take().is_some_and(|held| held == block.name) {
            return self.write_slot(bus, block, None);
        }
        match misbehaviour.take_on_delivery() {
            Some(OnDelivery::OutOfOrder) => match retention.after(Some(block.name)) {
                Some(second) => {
                    self.held = Some(block.name);
                    self.cursor = Some(second.name);
                    self.write_slot(bus, second, None)
                }
                None => {
                    // Without a second block there is nothing to swap with: the fault waits for the next one.
                    misbehaviour.put_back(OnDelivery::OutOfOrder);
                    self.cursor = Some(block.name);
                    self.write_slot(bus, block, None)
                }
            },
            Some(OnDelivery::Duplicate) => self.write_slot(bus, block, None),
            fault => {
                self.cursor = Some(block.name);
                self.write_slot(bus, block, fault)
            }
        }
    }

    /// Newest block delivered.
    pub(crate) fn newest(&self) -> Option<Name> {
        self.cursor
    }

    /// Payload, then header, then event (ORD-1). `fault` spoils one of them.
    fn write_slot(
        &mut self,
        bus: &mut dyn Bus,
        block: &Block,
        fault: Option<OnDelivery>,
    ) -> Result<(), Broken> {
        let slot = self.rings.slot_of(self.delivered);
        let address = self.rings.slot_address(slot);
        let key = block.key.expose();
        let spoilt = |kind: OnDelivery| u32::from(fault == Some(kind));
        let foreign = if fault == Some(OnDelivery::ForeignSession) { 1 << 32 } else { 0 };
        let session = block.name.session.wrapping_add(foreign);
        let length = if fault == Some(OnDelivery::LengthBeyondSlot) {
            self.rings.slot_bytes
        } else {
            u32::try_from(key.len()).unwrap_or(u32::MAX)
        };
        let replayed = Some(block.name) <= self.replay_until;

        let mut header = BlockHeader {
            magic: BLOCK_MAGIC.into(),
            version: BLOCK_VERSION.into(),
            flags: if replayed { BLOCK_REPLAYED } else { 0 }.into(),
            session: session.into(),
            sequence: block.name.sequence.into(),
            length: length.into(),
            qber: block.qber.into(),
            distilled_at: block.distilled_at.into(),
            payload_crc: (crc32c::crc32c(key) ^ spoilt(OnDelivery::BadPayloadCrc)).into(),
            ..BlockHeader::new_zeroed()
        };
        let (covered, _) = header.as_bytes().split_at(size_of::<BlockHeader>() - 4);
        header.header_crc = (crc32c::crc32c(covered) ^ spoilt(OnDelivery::BadHeaderCrc)).into();
        bus.dma_write(address + u64::from(BLOCK_HEADER_BYTES), key)?;
        bus.dma_write(address, header.as_bytes())?;
        self.delivered = self.delivered.wrapping_add(1);

        if fault == Some(OnDelivery::EventSkipped) {
            self.written = self.written.wrapping_add(1);
            return Ok(());
        }
        let entry = Event {
            kind: event::BLOCK.into(),
            slot: slot.into(),
            session: session.into(),
            sequence: block.name.sequence.into(),
            length: length.into(),
            ..Event::new_zeroed()
        };
        self.write_event(bus, entry, spoilt(OnDelivery::BadEventCrc))
    }

    fn write_notice(&mut self, bus: &mut dyn Bus, notice: Notice) -> Result<(), Broken> {
        let blank = Event::new_zeroed();
        let entry = match notice {
            Notice::ReplayEnd => Event { kind: event::REPLAY_END.into(), ..blank },
            Notice::Session { session, blocks_before } => Event {
                kind: event::SESSION.into(),
                session: session.into(),
                sequence: blocks_before.into(),
                ..blank
            },
            Notice::Link(state) => Event { kind: event::LINK.into(), detail: state.value().into(), ..blank },
        };
        self.write_event(bus, entry, 0)
    }

    /// Writes an entry; its check and number come last and as one access (ORD-3).
    fn write_event(&mut self, bus: &mut dyn Bus, entry: Event, spoil: u32) -> Result<(), Broken> {
        let number = self.written.wrapping_add(1);
        let address = self.rings.event_address(number);
        let (body, _) = entry.as_bytes().split_at(size_of::<Event>() - 8);
        let crc = crc32c::crc32c(body) ^ spoil;
        bus.dma_write(address, body)?;
        bus.dma_write_u64(address + body.len() as u64, u64::from(crc) | u64::from(number) << 32)?;
        self.written = number;
        Ok(())
    }
}
