//! A card model inside the process, in virtual time: for tests that must give the same result every time.
//!
//! Registers and DMA memory are ordinary memory. The model is stepped whenever the driver accesses a register, waits or
//! asks for the time; each of these lets virtual time pass, so that every loop with a deadline ends. Nothing runs in
//! between: with the same model and the same calls, the same happens.

mod bus;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use qkd_contract::limits::FUNCTION_RESET_MS;
use qkd_contract::pci;

use crate::backing::{Backing, BackingError, Signals};
use crate::dma::{DmaMemory, IovaAllocator, round_up};
use crate::mmio::Mmio;
use crate::shared_memory::SharedMemory;

use bus::{Bus, Interior};
pub use bus::{DmaRefused, ModelBus};

/// Virtual time that one register access or one look at the clock takes, in microseconds.
const ACCESS_US: u64 = 1;
/// Longest time between two steps of the model during a wait, in microseconds.
const STEP_US: u64 = 100;

/// A card model. It sees the card's side of the bus and acts when it is stepped.
pub trait Model: Send {
    /// Does what is due at `bus.now_us()`. Called very often; time may have passed or not.
    fn step(&mut self, bus: &mut dyn ModelBus);

    /// Resets the function (FLR-1). The bus has cleared bus mastering. `false`: the reset does not work.
    fn function_reset(&mut self, bus: &mut dyn ModelBus) -> bool;

    /// When the model wants to be stepped next, in microseconds of virtual time; a wait does not jump past it. The
    /// default lets a wait step often.
    fn next_step_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(STEP_US)
    }
}

/// Virtual time, shared by all models of a test.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now_us: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock that stands at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Microseconds since the clock's start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::SeqCst)
    }

    /// Lets time pass.
    pub fn advance_us(&self, by: u64) {
        self.now_us.fetch_add(by, Ordering::SeqCst);
    }
}

/// The model's state, shared by the backing, its registers and the test's handle.
struct Shared<M> {
    inside: Mutex<Inside<M>>,
    clock: VirtualClock,
}

struct Inside<M> {
    model: M,
    interior: Interior,
    /// Memory that was unmapped, newest last, kept so that a test can see that it was wiped.
    unmapped: VecDeque<Arc<SharedMemory>>,
    leaked_bytes: usize,
    removal_requested: bool,
}

impl<M: Model> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Inside<M>> {
        // A model that panicked fails its test by that; nothing here is half done in between.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass and steps the model.
    fn stepped(&self, by_us: u64) -> MutexGuard<'_, Inside<M>> {
        self.clock.advance_us(by_us);
        let mut inside = self.lock();
        let Inside { model, interior, .. } = &mut *inside;
        model.step(&mut Bus::new(interior, self.clock.now_us()));
        inside
    }
}

/// Backing of a [`Model`].
pub struct ModelBacking<M> {
    registers: ModelRegisters<M>,
    iovas: IovaAllocator,
}

/// The model's registers, as the driver sees them.
pub struct ModelRegisters<M> {
    shared: Arc<Shared<M>>,
}

/// A test's hold on a model that a card uses.
pub struct ModelHandle<M> {
    shared: Arc<Shared<M>>,
}

impl<M> fmt::Debug for ModelBacking<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelBacking").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for ModelHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHandle").finish_non_exhaustive()
    }
}

impl<M> Clone for ModelHandle<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M: Model> ModelBacking<M> {
    /// Puts `model` on a bus of its own, in time with `clock`. Configuration space shows the contract's placeholder
    /// identity and the given serial number.
    pub fn new(model: M, serial: u64, clock: VirtualClock) -> Self {
        let inside = Inside {
            model,
            interior: Interior::new(pci::VENDOR_ID, pci::DEVICE_ID, serial),
            unmapped: VecDeque::new(),
            leaked_bytes: 0,
            removal_requested: false,
        };
        let shared = Arc::new(Shared { inside: Mutex::new(inside), clock });
        Self { registers: ModelRegisters { shared }, iovas: IovaAllocator::new() }
    }

    /// A hold on the model, to plant faults and to look at it.
    #[must_use]
    pub fn handle(&self) -> ModelHandle<M> {
        ModelHandle { shared: Arc::clone(&self.registers.shared) }
    }

    fn shared(&self) -> &Shared<M> {
        &self.registers.shared
    }
}

impl<M: Model> ModelHandle<M> {
    /// Calls `act` with the model and its bus, without letting time pass.
    pub fn with<R>(&self, act: impl FnOnce(&mut M, &mut dyn ModelBus) -> R) -> R {
        let mut inside = self.shared.lock();
        let Inside { model, interior, .. } = &mut *inside;
        act(model, &mut Bus::new(interior, self.shared.clock.now_us()))
    }

    /// Lets time pass and steps the model once.
    pub fn advance(&self, by: Duration) {
        drop(self.shared.stepped(micros(by)));
    }

    /// The clock that the model runs by.
    #[must_use]
    pub fn clock(&self) -> VirtualClock {
        self.shared.clock.clone()
    }

    /// Makes the platform ask for the card, as before an unplug.
    pub fn request_removal(&self) {
        self.shared.lock().removal_requested = true;
    }

    /// Bytes of DMA memory that the driver gave up without freeing.
    #[must_use]
    pub fn leaked_bytes(&self) -> usize {
        self.shared.lock().leaked_bytes
    }

    /// Bytes of DMA memory that are mapped for the card now.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.shared.lock().interior.mapped_bytes()
    }

    /// Whether all memory that has been unmapped reads zero now. `None` if none has been.
    #[must_use]
    pub fn unmapped_memory_is_wiped(&self) -> Option<bool> {
        let inside = self.shared.lock();
        let wiped =
            |memory: &Arc<SharedMemory>| (0..memory.len()).step_by(8).all(|at| memory.read_u64(at) == 0);
        (!inside.unmapped.is_empty()).then(|| inside.unmapped.iter().all(wiped))
    }
}

impl<M: Model> Mmio for ModelRegisters<M> {
    fn read32(&self, offset: u32) -> u32 {
        u32::from_le_bytes(self.shared.stepped(ACCESS_US).interior.host_read(offset))
    }

    fn write32(&self, offset: u32, value: u32) {
        self.shared.lock().interior.host_write(offset, value.to_le_bytes());
        drop(self.shared.stepped(ACCESS_US));
    }

    fn read64(&self, offset: u32) -> u64 {
        u64::from_le_bytes(self.shared.stepped(ACCESS_US).interior.host_read(offset))
    }

    fn write64(&self, offset: u32, value: u64) {
        self.shared.lock().interior.host_write(offset, value.to_le_bytes());
        drop(self.shared.stepped(ACCESS_US));
    }
}

impl<M: Model> Backing for ModelBacking<M> {
    type Registers = ModelRegisters<M>;

    fn location(&self) -> String {
        "model".to_owned()
    }

    fn read_config(&mut self, offset: u16, into: &mut [u8]) -> Result<(), BackingError> {
        self.shared().stepped(ACCESS_US).interior.read_config(offset, into)
    }

    fn write_config(&mut self, offset: u16, from: &[u8]) -> Result<(), BackingError> {
        self.shared().lock().interior.write_config(offset, from)?;
        drop(self.shared().stepped(ACCESS_US));
        Ok(())
    }

    fn registers(&self) -> &Self::Registers {
        &self.registers
    }

    fn map_dma(&mut self, length: usize) -> Result<DmaMemory, BackingError> {
        const WHAT: &str = "allocating DMA memory";
        let unsuitable = |problem: &str| BackingError::Unsuitable { what: WHAT, problem: problem.to_owned() };
        let length = round_up(length).ok_or_else(|| unsuitable("too much"))?;
        let iova = self.iovas.allocate(length).ok_or_else(|| unsuitable("no address space is left"))?;
        let memory = Arc::new(SharedMemory::anonymous(length).map_err(BackingError::io(WHAT))?);
        self.shared().lock().interior.map(iova, Arc::clone(&memory));
        Ok(DmaMemory::new(memory, iova))
    }

    fn unmap_dma(&mut self, memory: &DmaMemory) -> Result<(), BackingError> {
        /// How many are kept for a test to look at.
        const KEPT: usize = 4;
        let mut inside = self.shared().lock();
        if let Some(unmapped) = inside.interior.unmap(memory.iova()) {
            inside.unmapped.push_back(unmapped);
            if inside.unmapped.len() > KEPT {
                inside.unmapped.pop_front();
            }
        }
        Ok(())
    }

    fn leak(&mut self, memory: DmaMemory) {
        memory.wipe_all();
        self.shared().lock().leaked_bytes += memory.length();
        std::mem::forget(memory);
    }

    fn wire_interrupts(&mut self) -> Result<(), BackingError> {
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Signals, BackingError> {
        let shared = self.shared();
        let deadline = shared.clock.now_us().saturating_add(micros(timeout));
        let mut signals = Signals { waker: waker.is_some_and(readable), ..Signals::default() };
        loop {
            let mut inside = shared.stepped(0);
            let (event, control) = inside.interior.take_interrupts();
            signals.event |= event;
            signals.control |= control;
            signals.removal_requested |= std::mem::take(&mut inside.removal_requested);
            let now = shared.clock.now_us();
            if signals.any() || now >= deadline {
                return Ok(signals);
            }
            let next = inside.model.next_step_us(now);
            drop(inside);
            let step = next.saturating_sub(now).clamp(ACCESS_US, deadline - now);
            shared.clock.advance_us(step);
        }
    }

    fn pause(&mut self, duration: Duration) {
        drop(self.shared().stepped(micros(duration).max(ACCESS_US)));
    }

    fn reset_function(&mut self) -> Result<(), BackingError> {
        const WHAT: &str = "resetting the function";
        let shared = self.shared();
        let mut inside = shared.stepped(ACCESS_US);
        let now = shared.clock.now_us();
        let Inside { model, interior, .. } = &mut *inside;
        interior.clear_command();
        let worked = model.function_reset(&mut Bus::new(interior, now));
        let _ = interior.take_interrupts();
        drop(inside);
        drop(shared.stepped(FUNCTION_RESET_MS * 1000));
        if worked { Ok(()) } else { Err(BackingError::Timeout { what: WHAT, ms: FUNCTION_RESET_MS }) }
    }

    fn now(&self) -> Duration {
        drop(self.shared().stepped(ACCESS_US));
        Duration::from_micros(self.shared().clock.now_us())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    matches!(poll(&mut descriptors, PollTimeout::ZERO), Ok(count) if count > 0)
}
