//! DMA that must not happen. The card is told addresses by hand here, below the driver's own handle.

use std::time::Instant;

use qkd_contract::command::{Opcode, Outcome as CommandOutcome};
use qkd_contract::limits::{ACK_BYTES, BLOCK_HEADER_BYTES, EVENT_BYTES};
use qkd_contract::registers::{self as reg, Register};
use qkd_contract::state::{Fault as CardFaultCode, State};
use qkd_driver::backing::Backing;
use qkd_driver::mmio::Mmio;

use super::{AGAIN, Outcome, Stage, ensure};
use crate::DEADLINE;

/// Slots, events and acknowledgements of a ring that is as small as it may be.
const SLOTS: u32 = 2;
const ENTRIES: u32 = 64;
/// The page that the contract's areas are aligned to.
const PAGE: u64 = 4096;
/// An address that nobody maps: the driver gives out none above 2^39.
const NOWHERE: u64 = 1 << 45;

/// A card that is held below its handle.
struct Bare<B> {
    backing: B,
    tag: u32,
}

impl<B: Backing> Bare<B> {
    /// Takes the card and resets it. DMA is allowed then, and nothing is mapped.
    fn new(stage: &Stage<'_, B>) -> Result<Self, String> {
        let mut bare = Self { backing: stage.take()?, tag: 0 };
        bare.reset()?;
        Ok(bare)
    }

    fn reset(&mut self) -> Outcome {
        self.backing.set_bus_mastering(false).map_err(|error| error.to_string())?;
        self.backing.reset_function().map_err(|error| error.to_string())?;
        self.tag = 0;
        self.bus_mastering(true)?;
        self.await_state(State::Stopped)
    }

    fn bus_mastering(&mut self, on: bool) -> Outcome {
        self.backing.set_bus_mastering(on).map_err(|error| error.to_string())
    }

    fn read(&self, register: Register) -> u64 {
        let registers = self.backing.registers();
        if register.width == 8 {
            registers.read64(register.offset)
        } else {
            registers.read32(register.offset).into()
        }
    }

    fn write(&self, register: Register, value: u64) {
        let registers = self.backing.registers();
        match u32::try_from(value) {
            Ok(value) if register.width == 4 => registers.write32(register.offset, value),
            _ => registers.write64(register.offset, value),
        }
    }

    fn await_state(&mut self, wanted: State) -> Outcome {
        let end = Instant::now() + DEADLINE;
        while self.read(reg::STATE) != u64::from(wanted.value()) {
            let state = self.read(reg::STATE);
            ensure(Instant::now() < end, || format!("the card is in state {state}, not {wanted:?}"))?;
            self.backing.pause(AGAIN);
        }
        Ok(())
    }

    fn slot_bytes(&self) -> u64 {
        (self.read(reg::BLOCK_MAX) + u64::from(BLOCK_HEADER_BYTES)).next_multiple_of(PAGE)
    }

    /// Octets that all three areas take.
    fn area_bytes(&self) -> Result<usize, String> {
        let events = u64::from(ENTRIES) * u64::from(EVENT_BYTES);
        let acks = u64::from(ENTRIES) * u64::from(ACK_BYTES);
        let all = self.slot_bytes() * u64::from(SLOTS)
            + events.next_multiple_of(PAGE)
            + acks.next_multiple_of(PAGE);
        usize::try_from(all).map_err(|error| error.to_string())
    }

    /// Names the rings: slots from `slots` on, the other areas from `others` on.
    fn name_rings(&self, slots: u64, others: u64) {
        self.write(reg::SLOT_BASE, slots);
        self.write(reg::EVENT_BASE, others);
        self.write(
            reg::ACK_BASE,
            others + (u64::from(ENTRIES) * u64::from(EVENT_BYTES)).next_multiple_of(PAGE),
        );
        self.write(reg::SLOT_BYTES, self.slot_bytes());
        self.write(reg::SLOT_COUNT, SLOTS.into());
        self.write(reg::EVENT_COUNT, ENTRIES.into());
        self.write(reg::ACK_COUNT, ENTRIES.into());
    }

    /// Gives a command and waits for its outcome.
    fn command(&mut self, opcode: Opcode) -> Result<u64, String> {
        self.tag += 1;
        self.write(reg::COMMAND_ARGUMENT, 0);
        self.write(reg::COMMAND, u64::from(self.tag << 16 | opcode.value()));
        let end = Instant::now() + DEADLINE;
        while self.read(reg::COMMAND_DONE) >> 16 != u64::from(self.tag) {
            ensure(Instant::now() < end, || format!("{opcode:?} got no outcome"))?;
            self.backing.pause(AGAIN);
        }
        Ok(self.read(reg::COMMAND_DONE) & 0xFFFF)
    }

    /// The self-test's DMA to slot 0, which must be done.
    fn self_test_works(&mut self) -> Outcome {
        let outcome = self.command(Opcode::SelfTest)?;
        ensure(outcome == u64::from(CommandOutcome::Done.value()), || {
            format!("DMA to mapped memory ended with outcome {outcome}, fault {}", self.read(reg::FAULT))
        })
    }

    /// The same, which must be refused; the card comes back by a reset.
    fn self_test_is_refused(&mut self) -> Outcome {
        let outcome = self.command(Opcode::SelfTest)?;
        ensure(outcome == u64::from(CommandOutcome::Failed.value()), || {
            format!("the DMA ended with outcome {outcome}")
        })?;
        self.is_in_fault_dma()?;
        self.reset()
    }

    fn is_in_fault_dma(&self) -> Outcome {
        let (state, fault) = (self.read(reg::STATE), self.read(reg::FAULT));
        ensure(
            state == u64::from(State::Fault.value()) && fault == u64::from(CardFaultCode::Dma.value()),
            || format!("the card is in state {state} with fault {fault}, not in Fault with Dma"),
        )
    }
}

pub(super) fn dma_to_an_address_never_mapped_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut bare = Bare::new(stage)?;
    bare.name_rings(NOWHERE, NOWHERE + (1 << 30));
    bare.self_test_is_refused()
}

pub(super) fn dma_beyond_the_end_of_a_mapping_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut bare = Bare::new(stage)?;
    let memory = bare.backing.map_dma(bare.area_bytes()?).map_err(|error| error.to_string())?;
    let length = u64::try_from(memory.length()).map_err(|error| error.to_string())?;
    // The last page is reached, the first one after it is not.
    bare.name_rings(memory.iova() + length - PAGE, memory.iova());
    bare.self_test_works()?;
    bare.name_rings(memory.iova() + length, memory.iova());
    bare.self_test_is_refused()?;
    bare.backing.unmap_dma(&memory).map_err(|error| error.to_string())
}

pub(super) fn dma_after_unmap_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut bare = Bare::new(stage)?;
    let memory = bare.backing.map_dma(bare.area_bytes()?).map_err(|error| error.to_string())?;
    let others = memory.iova() + bare.slot_bytes() * u64::from(SLOTS);
    bare.name_rings(memory.iova(), others);
    bare.self_test_works()?;
    bare.backing.unmap_dma(&memory).map_err(|error| error.to_string())?;
    bare.self_test_is_refused()
}

pub(super) fn dma_without_bus_mastering_is_refused<B: Backing>(stage: &mut Stage<'_, B>) -> Outcome {
    let mut bare = Bare::new(stage)?;
    let memory = bare.backing.map_dma(bare.area_bytes()?).map_err(|error| error.to_string())?;
    let others = memory.iova() + bare.slot_bytes() * u64::from(SLOTS);
    bare.name_rings(memory.iova(), others);
    bare.bus_mastering(false)?;
    bare.self_test_is_refused()?;
    bare.name_rings(memory.iova(), others);
    bare.self_test_works()?;
    bare.backing.unmap_dma(&memory).map_err(|error| error.to_string())
}

pub(super) fn delivery_into_memory_that_was_taken_away_ends_in_a_fault<B: Backing>(
    stage: &mut Stage<'_, B>,
) -> Outcome {
    let mut bare = Bare::new(stage)?;
    let memory = bare.backing.map_dma(bare.area_bytes()?).map_err(|error| error.to_string())?;
    let others = memory.iova() + bare.slot_bytes() * u64::from(SLOTS);
    bare.name_rings(memory.iova(), others);
    let outcome = bare.command(Opcode::Start)?;
    ensure(outcome == u64::from(CommandOutcome::Done.value()), || {
        format!("START ended with outcome {outcome}")
    })?;
    bare.backing.unmap_dma(&memory).map_err(|error| error.to_string())?;
    bare.write(reg::SLOT_CREDIT, SLOTS.into());
    bare.await_state(State::Fault)?;
    bare.is_in_fault_dma()?;
    bare.reset()
}
