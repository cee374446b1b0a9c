//! A host for the tests: memory, registers and the little of a driver that the tests need.

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::{Acknowledgement, BlockHeader, Event};
use qkd_contract::limits::{ACK_BYTES, BLOCK_HEADER_BYTES, EVENT_BYTES};
use qkd_contract::registers::{self as reg, Register};
use zerocopy::{FromBytes, IntoBytes};

use crate::card::bus::{self, Bus, DmaRefused};
use crate::card::{Card, Name};

pub(crate) const SLOTS: u32 = 8;
pub(crate) const EVENTS: u32 = 64;
pub(crate) const ACKS: u32 = 64;
pub(crate) const BASE: u64 = 0x10_0000;

/// A host in virtual time.
pub(crate) struct Host {
    registers: Vec<u8>,
    memory: Vec<u8>,
    pub(crate) slot_bytes: u32,
    pub(crate) bus_master: bool,
    pub(crate) raised: Vec<u32>,
    pub(crate) now: u64,
    /// Writes by DMA, in order: address and length.
    pub(crate) writes: Vec<(u64, u64)>,
    tag: u32,
    consumed: u32,
    credit: u32,
    ack_tail: u32,
}

/// What the host read from its rings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) event: Event,
    pub(crate) header: Option<BlockHeader>,
    pub(crate) payload: Vec<u8>,
}

impl Delivered {
    pub(crate) fn name(&self) -> Name {
        Name { session: self.event.session.get(), sequence: self.event.sequence.get() }
    }

    pub(crate) fn kind(&self) -> u16 {
        self.event.kind.get()
    }
}

impl Host {
    pub(crate) fn new(block_max: u32) -> Self {
        let slot_bytes = (BLOCK_HEADER_BYTES + block_max).next_multiple_of(4096);
        let memory = (slot_bytes * SLOTS + EVENTS * EVENT_BYTES).next_multiple_of(4096) + 4096;
        Self {
            registers: vec![0; 0x1_0000],
            memory: vec![0; memory as usize],
            slot_bytes,
            bus_master: true,
            raised: Vec::new(),
            now: 0,
            writes: Vec::new(),
            tag: 0,
            consumed: 0,
            credit: 0,
            ack_tail: 0,
        }
    }

    pub(crate) fn event_base(&self) -> u64 {
        BASE + u64::from(self.slot_bytes * SLOTS)
    }

    pub(crate) fn ack_base(&self) -> u64 {
        self.event_base() + u64::from((EVENTS * EVENT_BYTES).next_multiple_of(4096))
    }

    pub(crate) fn get(&self, register: &Register) -> u64 {
        bus::read(self, register)
    }

    pub(crate) fn set(&mut self, register: &Register, value: u64) {
        bus::write(self, register, value);
    }

    /// Steps the card until `now` has passed `duration` more microseconds.
    pub(crate) fn run(&mut self, card: &mut Card, duration: u64) {
        let end = self.now + duration;
        while self.now < end {
            self.now = (self.now + 500).min(end);
            card.step(self);
        }
    }

    /// A card that has booted.
    pub(crate) fn boot(&mut self, card: &mut Card) {
        card.step(self);
        self.run(card, 100_000);
    }

    pub(crate) fn set_rings(&mut self) {
        for (register, value) in [
            (&reg::SLOT_BASE, BASE),
            (&reg::EVENT_BASE, self.event_base()),
            (&reg::ACK_BASE, self.ack_base()),
            (&reg::SLOT_BYTES, self.slot_bytes.into()),
            (&reg::SLOT_COUNT, SLOTS.into()),
            (&reg::EVENT_COUNT, EVENTS.into()),
            (&reg::ACK_COUNT, ACKS.into()),
            (&reg::INTERRUPT_ENABLE, 3),
        ] {
            self.set(register, value);
        }
    }

    /// Writes a command and waits in virtual time, at most 10 ms, for its outcome.
    pub(crate) fn command(&mut self, card: &mut Card, opcode: Opcode, argument: u32) -> Option<Outcome> {
        self.tag = self.tag % 0xFFFF + 1;
        let tag = self.tag;
        self.set(&reg::COMMAND_ARGUMENT, argument.into());
        self.set(&reg::COMMAND, u64::from(tag << 16 | opcode.value()));
        self.run(card, 10_000);
        let done = u32::try_from(self.get(&reg::COMMAND_DONE)).unwrap();
        (done >> 16 == tag).then(|| Outcome::try_from(done & 0xFFFF).unwrap())
    }

    /// Zeroes the event ring and the counters, starts, and gives all credit.
    pub(crate) fn start(&mut self, card: &mut Card) {
        assert!(self.try_start(card));
        self.give_credit(SLOTS);
        self.run(card, 5_000);
    }

    pub(crate) fn start_without_credit(&mut self, card: &mut Card) {
        assert!(self.try_start(card));
    }

    /// Zeroes ring and counters and starts; false when the card does not answer.
    pub(crate) fn try_start(&mut self, card: &mut Card) -> bool {
        self.set_rings();
        let events = offset(self.event_base());
        self.memory[events..].fill(0);
        (self.consumed, self.credit, self.ack_tail) = (0, 0, 0);
        for register in [&reg::SLOT_CREDIT, &reg::EVENT_CONSUMED, &reg::ACK_TAIL] {
            self.set(register, 0);
        }
        self.command(card, Opcode::Start, 0) == Some(Outcome::Done)
    }

    pub(crate) fn give_credit(&mut self, slots: u32) {
        self.credit += slots;
        self.set(&reg::SLOT_CREDIT, self.credit.into());
    }

    /// Reads the next event, with its block, without returning anything.
    pub(crate) fn peek(&self) -> Option<Delivered> {
        let entry = self.event_base() + u64::from(self.consumed % EVENTS * EVENT_BYTES);
        let event = Event::read_from_bytes(self.octets(entry, 64)).unwrap();
        if event.number.get() != self.consumed + 1 {
            return None;
        }
        let mut delivered = Delivered { event, header: None, payload: Vec::new() };
        if event.kind.get() == qkd_contract::layout::event::BLOCK {
            let slot = BASE + u64::from(event.slot.get() * self.slot_bytes);
            delivered.header = Some(BlockHeader::read_from_bytes(self.octets(slot, 64)).unwrap());
            let length = event.length.get().min(self.slot_bytes - BLOCK_HEADER_BYTES);
            delivered.payload = self.octets(slot + 64, length as usize).to_vec();
        }
        Some(delivered)
    }

    /// Takes the next event and returns its slot.
    pub(crate) fn take(&mut self) -> Option<Delivered> {
        let delivered = self.peek()?;
        if delivered.header.is_some() {
            self.give_credit(1);
        }
        self.consumed += 1;
        self.set(&reg::EVENT_CONSUMED, self.consumed.into());
        Some(delivered)
    }

    /// Takes events until there are none, letting the card go on in between.
    pub(crate) fn take_all(&mut self, card: &mut Card) -> Vec<Delivered> {
        let mut all = Vec::new();
        loop {
            self.run(card, 1_000);
            let before = all.len();
            all.extend(std::iter::from_fn(|| self.take()));
            if all.len() == before {
                return all;
            }
        }
    }

    /// The names of the blocks that [`Host::take_all`] gives.
    pub(crate) fn take_blocks(&mut self, card: &mut Card) -> Vec<Name> {
        let all = self.take_all(card);
        all.iter().filter(|delivered| delivered.header.is_some()).map(Delivered::name).collect()
    }

    pub(crate) fn acknowledge(&mut self, first: Name, last: Name) {
        let entry = Acknowledgement {
            first_session: first.session.into(),
            first_sequence: first.sequence.into(),
            last_session: last.session.into(),
            last_sequence: last.sequence.into(),
        };
        let address = self.ack_base() + u64::from(self.ack_tail % ACKS * ACK_BYTES);
        let place = offset(address);
        self.memory[place..place + 32].copy_from_slice(entry.as_bytes());
        self.ack_tail += 1;
        self.set(&reg::ACK_TAIL, self.ack_tail.into());
    }

    /// Whether the card has taken every acknowledgement.
    pub(crate) fn all_acknowledged(&self) -> bool {
        self.get(&reg::ACK_HEAD) == u64::from(self.ack_tail)
    }

    pub(crate) fn octets(&self, address: u64, count: usize) -> &[u8] {
        let place = offset(address);
        &self.memory[place..place + count]
    }

    fn place(&self, iova: u64, length: usize) -> Result<std::ops::Range<usize>, DmaRefused> {
        let refused = DmaRefused { iova, length: length as u64 };
        let start = iova.checked_sub(BASE).and_then(|at| usize::try_from(at).ok()).ok_or(refused)?;
        let end = start.checked_add(length).filter(|&end| end <= self.memory.len()).ok_or(refused)?;
        if self.bus_master { Ok(start..end) } else { Err(refused) }
    }
}

impl Bus for Host {
    fn read32(&self, offset: u32) -> u32 {
        let place = offset as usize;
        u32::from_le_bytes(self.registers[place..place + 4].try_into().unwrap())
    }

    fn read64(&self, offset: u32) -> u64 {
        let place = offset as usize;
        u64::from_le_bytes(self.registers[place..place + 8].try_into().unwrap())
    }

    fn write32(&mut self, offset: u32, value: u32) {
        let place = offset as usize;
        self.registers[place..place + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn write64(&mut self, offset: u32, value: u64) {
        let place = offset as usize;
        self.registers[place..place + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused> {
        let place = self.place(iova, into.len())?;
        into.copy_from_slice(&self.memory[place]);
        Ok(())
    }

    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused> {
        let place = self.place(iova, from.len())?;
        self.memory[place].copy_from_slice(from);
        self.writes.push((iova, from.len() as u64));
        Ok(())
    }

    fn dma_write_u64(&mut self, iova: u64, value: u64) -> Result<(), DmaRefused> {
        assert!(iova.is_multiple_of(8), "an unaligned write is not one request");
        self.dma_write(iova, &value.to_le_bytes())
    }

    fn raise(&mut self, vector: u32) {
        self.raised.push(vector);
    }

    fn now(&self) -> u64 {
        self.now
    }
}

fn offset(address: u64) -> usize {
    usize::try_from(address - BASE).unwrap()
}
