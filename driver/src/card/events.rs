//! Events: read once, judged on the copy, handed out; and blocks: copied once, checked on the copy, slot wiped.

use qkd_contract::layout::{BLOCK_MAGIC, BLOCK_REPLAYED, BLOCK_VERSION, BlockHeader, Event, event};
use qkd_contract::registers as reg;
use qkd_contract::state::LinkState;
use zeroize::Zeroize;

use super::{Card, Life};
use crate::backing::Backing;
use crate::fault::{Fault, ReservedIn};
use crate::ingest;
use crate::mmio::Registers;
use crate::name::BlockName;
use crate::ring::{Due, decode_event, decode_header};

/// Largest error rate, in parts per million (BLK-6).
const QBER_MAX: u32 = 1_000_000;

/// What a card tells.
#[derive(Debug)]
pub enum CardEvent<'a, B: Backing> {
    /// A block of key lies ready.
    Block(PendingBlock<'a, B>),
    /// All that the card had retained at the start has been delivered again.
    ReplayEnd,
    /// A session has begun, or is the one in progress when delivery began.
    Session {
        /// Its number.
        session: u64,
        /// How many sequence numbers the session before it used.
        previous_blocks: u64,
    },
    /// The state of the QKD link is now this.
    Link(LinkState),
}

/// A block's event, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    number: u32,
    slot: u32,
    name: BlockName,
    length: u32,
    replayed: bool,
}

/// A block of key that lies in its slot. Dropping it leaves it there: it is handed out again by the next
/// [`Card::next_event`], and the card waits.
#[derive(Debug)]
pub struct PendingBlock<'a, B: Backing> {
    card: &'a mut Card<B>,
    arrival: Arrival,
}

/// Why a block is lost at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// The payload's CRC is wrong (BLK-5).
    #[error("the CRC of its payload is wrong")]
    PayloadCorrupt,
    /// The header's CRC is wrong (BLK-5).
    #[error("the CRC of its header is wrong")]
    HeaderCorrupt,
}

/// A block was not handed out; the room given for it is wiped.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The room does not have the block's length. Nothing was touched; the block is still pending.
    #[error("the block has {needed} bytes, and room for {given} was given")]
    Room {
        /// Length of the block in bytes.
        needed: usize,
        /// Length of the room in bytes.
        given: usize,
    },
    /// This block alone is lost at this end; the card goes on.
    #[error("block {name} is lost at this end: {cause}")]
    Lost {
        /// The block.
        name: BlockName,
        /// Why.
        cause: BlockFault,
    },
    /// The card broke the contract and is out of service. It has kept the block, unless it is gone.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl<B: Backing> PendingBlock<'_, B> {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> BlockName {
        self.arrival.name
    }

    /// Bytes of key.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.arrival.length as usize
    }

    /// Whether the card had retained it from before the start.
    #[must_use]
    pub const fn replayed(&self) -> bool {
        self.arrival.replayed
    }

    /// Copies the key into `room`, which has exactly [`PendingBlock::length`] bytes, checks the copy, wipes the slot and
    /// gives it back to the card. On any error `room` is wiped.
    ///
    /// # Errors
    /// As [`TakeError`] tells.
    pub fn take(self, room: &mut [u8]) -> Result<(), TakeError> {
        let needed = self.length();
        if room.len() != needed {
            return Err(TakeError::Room { needed, given: room.len() });
        }
        let Self { card, arrival } = self;
        let checked = card.copy_and_check(&arrival, room);
        if !matches!(checked, Ok(None)) {
            room.zeroize();
        }
        match checked {
            Ok(None) => {
                card.counters.blocks_taken += 1;
                card.counters.bytes_taken += u64::from(arrival.length);
                card.counters.blocks_replayed += u64::from(arrival.replayed);
                card.give_slot_back(&arrival, 0);
                Ok(())
            }
            Ok(Some(cause)) => {
                match cause {
                    BlockFault::PayloadCorrupt => card.counters.blocks_bad_payload += 1,
                    BlockFault::HeaderCorrupt => card.counters.blocks_bad_header += 1,
                }
                log::warn!(
                    id = "card.block_lost"; "{}: block {} is lost at this end: {cause}",
                    card.backing.location(),
                    arrival.name
                );
                card.give_slot_back(&arrival, needed);
                Err(TakeError::Lost { name: arrival.name, cause })
            }
            Err(fault) => Err(card.fail(fault).into()),
        }
    }

    /// Wipes the slot and gives it back without looking at the key. The card retains the block until it is
    /// acknowledged.
    pub fn discard(self) {
        let length = self.length();
        self.card.give_slot_back(&self.arrival, length);
    }
}

impl<B: Backing> Card<B> {
    /// The next thing that the card tells; `None` if there is nothing new. A block that was not taken comes again.
    ///
    /// # Errors
    /// [`Fault::NotRunning`] when the card is not running; any other fault takes it out of service.
    pub fn next_event(&mut self) -> Result<Option<CardEvent<'_, B>>, Fault> {
        if self.life != Life::Running {
            return Err(self.fail(Fault::NotRunning));
        }
        if let Some(arrival) = self.pending {
            return Ok(Some(CardEvent::Block(PendingBlock { card: self, arrival })));
        }
        let Some(memory) = &self.memory else { return Err(Fault::NotRunning) };
        let copy = match self.progress.read_due(&self.layout, memory) {
            Due::Nothing => return self.look_for_skipped(1).map(|()| None).map_err(|fault| self.fail(fault)),
            Due::Foreign(found) => {
                let fault = Fault::EventNumber { expected: self.progress.due(), found };
                return Err(self.fail(fault));
            }
            Due::Entry(copy) => copy,
        };
        match self.judge(&copy) {
            Ok(Judged::Block(arrival)) => {
                self.pending = Some(arrival);
                Ok(Some(CardEvent::Block(PendingBlock { card: self, arrival })))
            }
            Ok(Judged::ReplayEnd) => {
                self.announced.replaying = false;
                self.consume();
                Ok(Some(CardEvent::ReplayEnd))
            }
            Ok(Judged::Session { session, previous_blocks }) => {
                self.announced.session = session;
                self.consume();
                self.look_at_peer().map_err(|fault| self.fail(fault))?;
                Ok(Some(CardEvent::Session { session, previous_blocks }))
            }
            Ok(Judged::Link(state)) => {
                self.consume();
                Ok(Some(CardEvent::Link(state)))
            }
            Err(fault) => Err(self.fail(fault)),
        }
    }

    /// Looks whether the card has gone on without the event that is due.
    pub(super) fn look_for_skipped(&self, ahead: u32) -> Result<(), Fault> {
        let Some(memory) = &self.memory else { return Ok(()) };
        match self.progress.skipped_to(&self.layout, memory, ahead) {
            Some(found) => Err(Fault::EventNumber { expected: self.progress.due(), found }),
            None => Ok(()),
        }
    }

    /// Judges the copy of an event. Changes nothing but the newest block seen.
    fn judge(&mut self, copy: &[u8; size_of::<Event>()]) -> Result<Judged, Fault> {
        let entry = decode_event(copy);
        let number = entry.number.get();
        // The number was right before the copy; a card that wrote again since gets no second look.
        if number != self.progress.due() {
            return Err(Fault::EventNumber { expected: self.progress.due(), found: number });
        }
        let (sealed, _) = copy.split_at(std::mem::offset_of!(Event, crc));
        if ingest::crc32c(sealed) != entry.crc.get() {
            return Err(Fault::EventCorrupt { number });
        }
        let kind = entry.kind.get();
        if !(event::BLOCK..=event::LINK).contains(&kind) {
            return Err(Fault::UnknownKind { number, kind });
        }
        if entry.flags.get() != 0 || entry.reserved != [0; 24] {
            return Err(Fault::ReservedBits { place: ReservedIn::Event, number });
        }
        check_fields(&entry)?;
        match kind {
            event::BLOCK => self.judge_block(&entry).map(Judged::Block),
            event::REPLAY_END if self.announced.replaying => Ok(Judged::ReplayEnd),
            event::REPLAY_END => {
                Err(Fault::Replay { number, problem: "its end came twice", clause: "RPL-1" })
            }
            event::SESSION => self.judge_session(&entry),
            _ => LinkState::try_from(entry.detail.get()).map(Judged::Link).map_err(|undefined| {
                Fault::UndefinedValue { register: "LINK event", value: undefined.0.into() }
            }),
        }
    }

    fn judge_session(&self, entry: &Event) -> Result<Judged, Fault> {
        let (number, session) = (entry.number.get(), entry.session.get());
        if self.announced.replaying {
            return Err(Fault::Replay { number, problem: "a session began before its end", clause: "EVT-5" });
        }
        // The session in progress may be that of the newest block replayed; a later one is always newer.
        let replayed = self.announced.last.map_or(0, |name| name.session);
        if session == 0 || session <= self.announced.session || session < replayed {
            let last = replayed.max(self.announced.session);
            return Err(Fault::SessionOutOfOrder { last, found: session });
        }
        Ok(Judged::Session { session, previous_blocks: entry.sequence.get() })
    }

    fn judge_block(&mut self, entry: &Event) -> Result<Arrival, Fault> {
        let name = BlockName { session: entry.session.get(), sequence: entry.sequence.get() };
        let (number, slot, length) = (entry.number.get(), entry.slot.get(), entry.length.get());
        let expected = self.progress.next_slot(&self.layout);
        if slot != expected {
            return Err(Fault::SlotMismatch { number, expected, found: slot });
        }
        let limit = self.identity.block_max;
        if length == 0 || length > limit {
            return Err(Fault::LengthBeyondSlot { name, length, limit });
        }
        let replayed = self.announced.replaying;
        if name.session == 0 || (!replayed && name.session != self.announced.session) {
            return Err(Fault::ForeignSession { current: self.announced.session, found: name });
        }
        match self.announced.last {
            Some(last) if name <= last => return Err(Fault::BlockOutOfOrder { last, found: name }),
            _ => self.announced.last = Some(name),
        }
        Ok(Arrival { number, slot, name, length, replayed })
    }

    /// Copies a block out once and checks the copy. `Ok(Some(_))`: this block alone is bad.
    fn copy_and_check(&self, arrival: &Arrival, room: &mut [u8]) -> Result<Option<BlockFault>, Fault> {
        let Some(memory) = &self.memory else { return Err(Fault::NotRunning) };
        let copy = self.layout.read_header(memory, arrival.slot);
        let header = decode_header(&copy);
        let (sealed, _) = copy.split_at(std::mem::offset_of!(BlockHeader, header_crc));
        if ingest::crc32c(sealed) != header.header_crc.get() {
            return Ok(Some(BlockFault::HeaderCorrupt));
        }
        check_header(&header, arrival)?;
        let crc = ingest::take(memory, self.layout.payload(arrival.slot), room);
        Ok((crc != header.payload_crc.get()).then_some(BlockFault::PayloadCorrupt))
    }

    /// Wipes a slot's header and the first `left` bytes of its payload, which nobody has wiped yet, and gives the slot back, and its
    /// event with it.
    fn give_slot_back(&mut self, arrival: &Arrival, left: usize) {
        let Some(memory) = &self.memory else { return };
        memory.wipe_key(self.layout.slot(arrival.slot), self.layout.payload(0) + left);
        self.pending = None;
        self.progress.delivered = self.progress.delivered.wrapping_add(1);
        self.progress.credit = self.progress.credit.wrapping_add(1);
        self.backing.registers().set32(reg::SLOT_CREDIT, self.progress.credit);
        self.consume();
    }

    fn consume(&mut self) {
        self.progress.consume(&self.layout);
        self.backing.registers().set32(reg::EVENT_CONSUMED, self.progress.consumed);
        self.counters.events += 1;
    }
}

/// An event that keeps to the rules.
enum Judged {
    Block(Arrival),
    ReplayEnd,
    Session { session: u64, previous_blocks: u64 },
    Link(LinkState),
}

/// Checks that the fields which the kind of an event does not use are zero (EVT-2).
fn check_fields(entry: &Event) -> Result<(), Fault> {
    let kind = entry.kind.get();
    let of_block = kind == event::BLOCK;
    let named = of_block || kind == event::SESSION;
    let fields = [
        ("slot", of_block || entry.slot.get() == 0),
        ("session", named || entry.session.get() == 0),
        ("sequence", named || entry.sequence.get() == 0),
        ("length", of_block || entry.length.get() == 0),
        ("detail", kind == event::LINK || entry.detail.get() == 0),
    ];
    match fields.into_iter().find(|(_, right)| !right) {
        Some((field, _)) => Err(Fault::EventField { number: entry.number.get(), field }),
        None => Ok(()),
    }
}

/// Checks a header whose CRC is right against the contract and against its event.
fn check_header(header: &BlockHeader, arrival: &Arrival) -> Result<(), Fault> {
    let name = arrival.name;
    let flags = header.flags.get();
    let reserved = |place| Err(Fault::ReservedBits { place, number: arrival.number });
    if header.reserved != [0; 16] {
        return reserved(ReservedIn::BlockHeader);
    }
    if flags & !BLOCK_REPLAYED != 0 {
        return reserved(ReservedIn::BlockFlags);
    }
    let differs = [
        ("magic", "BLK-2", header.magic.get() != BLOCK_MAGIC),
        ("version", "BLK-2", header.version.get() != BLOCK_VERSION),
        ("session", "BLK-7", header.session.get() != name.session),
        ("sequence", "BLK-7", header.sequence.get() != name.sequence),
        ("length", "BLK-7", header.length.get() != arrival.length),
    ];
    if let Some((field, clause, _)) = differs.into_iter().find(|(_, _, differs)| *differs) {
        return Err(Fault::HeaderMismatch { name, field, clause });
    }
    if header.qber.get() > QBER_MAX {
        let what = "qber of a block header";
        return Err(Fault::ValueOutOfRange { what, value: header.qber.get().into(), clause: "BLK-6" });
    }
    let replay = |problem| Fault::Replay { number: arrival.number, problem, clause: "BLK-3" };
    match (flags & BLOCK_REPLAYED != 0, arrival.replayed) {
        (true, false) => Err(replay("a new block is marked as replayed")),
        (false, true) => Err(replay("a replayed block is not marked")),
        _ => Ok(()),
    }
}
