//! Where a client's thread and the cards' thread meet: BAR 0, configuration space, DMA table, interrupts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use qkd_contract::pci::{REGISTER_BAR_BYTES, VECTORS};

use super::config_space::{ConfigSpace, Effect};
use super::dma::DmaTable;
use super::msix::MsixTable;
use super::shared::SharedMemory;
use crate::card::{Bus, Card, DmaRefused, Name};

/// Longest wait for the cards' thread to do a reset. The card needs none of it; a busy machine may. It is shorter than
/// the 5 s that QEMU waits for an answer.
const RESET_WITHIN: Duration = Duration::from_secs(4);

/// One card's connection to its host.
#[derive(Debug)]
pub(crate) struct Port {
    /// BAR 0, shared with the client; the card's thread polls it.
    pub(crate) registers: SharedMemory,
    /// Whether VFIO's error interrupt is there.
    tells_errors: bool,
    inner: Mutex<PortInner>,
    reset_done: Condvar,
}

/// What both threads change, under one lock.
#[derive(Debug)]
pub(crate) struct PortInner {
    pub(crate) config: ConfigSpace,
    pub(crate) dma: DmaTable,
    pub(crate) vectors: [Option<OwnedFd>; VECTORS as usize],
    /// VFIO's error interrupt: raised when the card is gone.
    pub(crate) error: Option<OwnedFd>,
    /// VFIO's request interrupt: raised when the pair ends.
    pub(crate) request: Option<OwnedFd>,
    pub(crate) msix: MsixTable,
    resets_asked: u64,
    resets_done: u64,
    connected: bool,
    gone: bool,
}

impl Port {
    pub(crate) fn new(device_id: u16, serial: u64) -> io::Result<Self> {
        let registers = SharedMemory::create("qkd-registers", REGISTER_BAR_BYTES)?;
        let dma = DmaTable::new(&registers)?;
        Ok(Self {
            registers,
            tells_errors: true,
            inner: Mutex::new(PortInner {
                config: ConfigSpace::new(device_id, serial),
                dma,
                vectors: [const { None }; VECTORS as usize],
                error: None,
                request: None,
                msix: MsixTable::default(),
                resets_asked: 0,
                resets_done: 0,
                connected: false,
                gone: false,
            }),
            reset_done: Condvar::new(),
        })
    }

    /// The same without VFIO's error interrupt: a card of whose end nobody is told.
    pub(crate) fn without_error_interrupt(self) -> Self {
        Self { tells_errors: false, ..self }
    }

    /// Whether VFIO's error interrupt is there.
    pub(crate) fn tells_errors(&self) -> bool {
        self.tells_errors
    }

    /// A thread that panicked leaves nothing half done that matters here: every change is a single step.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PortInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has come.
    pub(crate) fn client_came(&self) {
        self.lock().connected = true;
    }

    /// The client has left: nothing of its memory is touched any more, and the function is reset.
    pub(crate) fn client_left(&self) -> bool {
        {
            let mut inner = self.lock();
            inner.connected = false;
            inner.dma.clear();
            inner.vectors = [const { None }; VECTORS as usize];
            inner.error = None;
            inner.request = None;
            inner.config.power_on();
        }
        self.reset()
    }

    /// Resets the function and waits, with a deadline, until the card has done its part. DMA is off as soon as this
    /// is called. False when the card did not answer, or is gone: then nobody is there to be reset.
    pub(crate) fn function_reset(&self) -> bool {
        self.reset() && !self.lock().gone
    }

    fn reset(&self) -> bool {
        let mut inner = self.lock();
        inner.config.function_reset();
        inner.msix = MsixTable::default();
        inner.resets_asked += 1;
        let asked = inner.resets_asked;
        let waiting =
            self.reset_done.wait_timeout_while(inner, RESET_WITHIN, |inner| inner.resets_done < asked);
        let (inner, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        inner.resets_done >= asked
    }

    /// Writes configuration space and does what that sets off. `None` outside it.
    pub(crate) fn write_config(&self, offset: usize, data: &[u8]) -> Option<()> {
        let effect = self.lock().config.write(offset, data)?;
        if effect == Effect::FunctionReset {
            self.function_reset();
        }
        Some(())
    }

    /// Lets the card do what is due. Tells whether it was busy and whether anybody is connected.
    pub(crate) fn step(&self, card: &mut Card, now: u64) -> Stepped {
        let mut bus = PortBus { registers: &self.registers, inner: self.lock(), now };
        if bus.inner.resets_done < bus.inner.resets_asked {
            card.function_reset(&mut bus);
            bus.inner.resets_done = bus.inner.resets_asked;
            self.reset_done.notify_all();
        }
        // In D3hot the card issues neither DMA nor interrupts and its registers cannot be reached (PCI-8).
        let asleep = bus.inner.config.is_asleep();
        let before = card.newest_delivered();
        let busy = !asleep && card.step(&mut bus) == crate::card::Activity::Busy;
        if let Some(newest) = card.newest_delivered().filter(|newest| before != Some(*newest)) {
            announced(card.identity().serial, newest);
        }
        bus.inner.config.set_device_id(card.identity().device_id);
        let was_gone = std::mem::replace(&mut bus.inner.gone, card.is_gone());
        if card.is_gone() && !was_gone {
            bus.inner.signal_error();
        }
        Stepped { busy, connected: bus.inner.connected }
    }

    /// Tells the client that the card is about to be taken away.
    pub(crate) fn request_release(&self) {
        signal(self.lock().request.as_ref());
    }
}

/// What a step found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stepped {
    pub(crate) busy: bool,
    pub(crate) connected: bool,
}

/// Tells in the trace when a block became the host's to see, in nanoseconds of `CLOCK_MONOTONIC`.
fn announced(serial: u64, Name { session, sequence }: Name) {
    if log::log_enabled!(target: "timing", log::Level::Trace) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        log::trace!(target: "timing", "ns={} card {serial:#x} block {session}/{sequence} announced", now.as_nanos());
    }
}

impl PortInner {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    fn signal_error(&self) {
        signal(self.error.as_ref());
    }

    /// Raises a vector that the client asked to have raised.
    pub(crate) fn raise(&self, vector: u32) {
        signal(self.vectors.get(vector as usize).and_then(Option::as_ref));
    }
}

/// Adds one to an eventfd. One that is full already tells the same; it is never waited for.
pub(crate) fn signal(event: Option<&OwnedFd>) {
    let Some(event) = event else { return };
    let mut ready = [PollFd::new(event.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(1)
        && let Err(error) = nix::unistd::write(event, &1_u64.to_ne_bytes())
    {
        log::debug!("an eventfd takes no signal: {error}");
    }
}

/// The bus of a card that is behind a socket.
struct PortBus<'a> {
    registers: &'a SharedMemory,
    inner: MutexGuard<'a, PortInner>,
    now: u64,
}

impl PortBus<'_> {
    fn mastered(&self, iova: u64, length: usize) -> Result<(), DmaRefused> {
        if self.inner.config.bus_master() { Ok(()) } else { Err(DmaRefused { iova, length: length as u64 }) }
    }
}

impl Bus for PortBus<'_> {
    fn read32(&self, offset: u32) -> u32 {
        self.registers.load32(offset.into()).unwrap_or(0)
    }

    fn read64(&self, offset: u32) -> u64 {
        self.registers.load64(offset.into()).unwrap_or(0)
    }

    fn write32(&mut self, offset: u32, value: u32) {
        self.registers.store32(offset.into(), value);
    }

    fn write64(&mut self, offset: u32, value: u64) {
        self.registers.store64(offset.into(), value);
    }

    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused> {
        self.mastered(iova, into.len())?;
        self.inner.dma.read(iova, into).inspect_err(|_| self.inner.config.note_refused_read())
    }

    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused> {
        self.mastered(iova, from.len())?;
        self.inner.dma.write(iova, from)
    }

    fn dma_write_u64(&mut self, iova: u64, value: u64) -> Result<(), DmaRefused> {
        self.mastered(iova, 8)?;
        self.inner.dma.write_u64(iova, value)
    }

    fn raise(&mut self, vector: u32) {
        if self.inner.config.bus_master() {
            self.inner.raise(vector);
        }
    }

    fn now(&self) -> u64 {
        self.now
    }
}
