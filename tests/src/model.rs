//! The simulator's cards behind the driver's in-process backing: both ends of a link in one virtual time.

use std::sync::{Arc, Mutex, PoisonError};

use qkd_driver::backing::model::{Model, ModelBacking, ModelBus, VirtualClock};
use qkd_driver::{Card, CardOptions, OpenError};
use qkd_sim::card::{Bus, DmaRefused};
use qkd_sim::link::{CardPair, End, PairOptions};
use qkd_sim::plan::Plan;

/// Longest jump of virtual time in which a card does nothing, in microseconds.
const STEP_US: u64 = 2_000;

/// A pair that both ends step.
#[derive(Clone)]
pub struct SharedPair {
    pair: Arc<Mutex<CardPair>>,
    serials: [u64; 2],
    clock: VirtualClock,
}

impl SharedPair {
    /// A pair with its own clock.
    ///
    /// # Panics
    /// When the options break a rule.
    #[must_use]
    pub fn new(options: &PairOptions, plan: Plan) -> Self {
        let pair = CardPair::in_memory(options, plan).expect("a pair that can be made");
        Self { pair: Arc::new(Mutex::new(pair)), serials: options.serials, clock: VirtualClock::new() }
    }

    /// The virtual time.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Looks at the pair between two steps.
    pub fn with<R>(&self, look: impl FnOnce(&mut CardPair) -> R) -> R {
        look(&mut self.pair.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The card at one end, for a backing, and its serial number.
    #[must_use]
    pub fn model(&self, end: End) -> (SimulatedCard, u64) {
        let serial = match end {
            End::A => self.serials[0],
            End::B => self.serials[1],
        };
        (SimulatedCard { pair: Arc::clone(&self.pair), end }, serial)
    }

    /// Opens the card at one end with the driver.
    ///
    /// # Errors
    /// As [`Card::open`].
    pub fn open(&self, end: End) -> Result<Card<ModelBacking<SimulatedCard>>, OpenError> {
        let (model, serial) = self.model(end);
        let options =
            CardOptions { slots: 8, allow_test_key: true, recoveries: 1_000, ..CardOptions::default() };
        Card::open(ModelBacking::new(model, serial, self.clock.clone()), options)
    }
}

/// The card at one end, as the driver's backing steps it.
pub struct SimulatedCard {
    pair: Arc<Mutex<CardPair>>,
    end: End,
}

impl Model for SimulatedCard {
    fn step(&mut self, bus: &mut dyn ModelBus) {
        let mut pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        pair.advance(bus.now_us());
        pair.card(self.end).step(&mut Adapter(bus));
    }

    fn function_reset(&mut self, bus: &mut dyn ModelBus) -> bool {
        let mut pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        let card = pair.card(self.end);
        card.function_reset(&mut Adapter(bus));
        !card.is_gone()
    }

    fn next_step_us(&self, now_us: u64) -> u64 {
        now_us + STEP_US
    }
}

/// The driver's bus in the words of the simulator.
struct Adapter<'a>(&'a mut dyn ModelBus);

impl Bus for Adapter<'_> {
    fn read32(&self, offset: u32) -> u32 {
        self.0.read32(offset)
    }

    fn read64(&self, offset: u32) -> u64 {
        self.0.read64(offset)
    }

    fn write32(&mut self, offset: u32, value: u32) {
        self.0.write32(offset, value);
    }

    fn write64(&mut self, offset: u32, value: u64) {
        self.0.write64(offset, value);
    }

    fn dma_read(&mut self, iova: u64, into: &mut [u8]) -> Result<(), DmaRefused> {
        let length = into.len() as u64;
        self.0.dma_read(iova, into).map_err(|_| DmaRefused { iova, length })
    }

    fn dma_write(&mut self, iova: u64, from: &[u8]) -> Result<(), DmaRefused> {
        self.0.dma_write(iova, from).map_err(|_| DmaRefused { iova, length: from.len() as u64 })
    }

    fn dma_write_u64(&mut self, iova: u64, value: u64) -> Result<(), DmaRefused> {
        if !iova.is_multiple_of(8) {
            return Err(DmaRefused { iova, length: 8 });
        }
        self.dma_write(iova, &value.to_le_bytes())
    }

    fn raise(&mut self, vector: u32) {
        self.0.raise(vector);
    }

    fn now(&self) -> u64 {
        self.0.now_us()
    }
}
