//! A small honest card, and places at which a test can make it dishonest. Written from the contract.

use std::collections::{BTreeMap, VecDeque};

use qkd_contract::command::{Opcode, Outcome};
use qkd_contract::layout::self_test_octet;
use qkd_contract::limits::SELF_TEST_BYTES;
use qkd_contract::pci::CONTROL_VECTOR;
use qkd_contract::registers::{self as reg, Register};
use qkd_contract::state::{Fault, LinkState, State};
mod rings;

use super::plants::Plants;
use super::{PEER, SERIAL};
use crate::backing::model::{Model, ModelBus};
use crate::name::BlockName;

/// Largest block of this card.
pub(super) const BLOCK_MAX: u32 = 1024;
/// How long it boots, in microseconds.
const BOOT_US: u64 = 5_000;

enum Item {
    Block { name: BlockName, length: usize, replayed: bool },
    ReplayEnd,
    Session { session: u64, previous: u64 },
    Link(LinkState),
}

/// The card.
pub(super) struct Scripted {
    pub(super) plants: Plants,
    /// Registers that are shown in place of the honest value.
    pub(super) shown: BTreeMap<u32, u64>,
    pub(super) retained: BTreeMap<BlockName, usize>,
    pub(super) acknowledged: Vec<(BlockName, BlockName)>,
    pub(super) resets: u32,
    pub(super) commands: Vec<Opcode>,
    /// Slots that were not zero when their credit came back.
    pub(super) unwiped_slots: u32,
    pub(super) session: u64,
    previous_blocks: u64,
    sequence: u64,
    state: State,
    fault: Fault,
    boot_until: u64,
    last_tag: u16,
    done: u32,
    zeroized: u32,
    cell: u64,
    heartbeat: u64,
    /// Moment at which one block is distilled, in microseconds.
    pub(super) distil_at: Option<u64>,
    /// Free-running counts; a test may set them near the wrap.
    pub(super) delivered: u32,
    pub(super) written: u32,
    credit_seen: u32,
    ack_head: u32,
    arm_served: u32,
    queue: VecDeque<Item>,
    announced: u64,
}

impl Scripted {
    pub(super) fn new() -> Self {
        Self {
            plants: Plants::default(),
            shown: BTreeMap::new(),
            retained: BTreeMap::new(),
            acknowledged: Vec::new(),
            resets: 0,
            commands: Vec::new(),
            unwiped_slots: 0,
            session: 1,
            previous_blocks: 0,
            sequence: 0,
            state: State::Boot,
            fault: Fault::None,
            boot_until: BOOT_US,
            last_tag: 0,
            done: 0,
            zeroized: 0,
            cell: 7,
            heartbeat: 0,
            distil_at: None,
            delivered: 0,
            written: 0,
            credit_seen: 0,
            ack_head: 0,
            arm_served: 0,
            queue: VecDeque::new(),
            announced: 0,
        }
    }

    /// The octets of a block.
    pub(super) fn payload(name: BlockName, length: usize) -> Vec<u8> {
        let mut state = name.session.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ name.sequence;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0] | 1
            })
            .collect()
    }

    /// Distils one block.
    pub(super) fn distil(&mut self, length: usize) -> BlockName {
        let name = BlockName { session: self.session, sequence: self.sequence };
        self.sequence += 1;
        self.announced += 1;
        self.retained.insert(name, length);
        if self.state == State::Running {
            self.queue.push_back(Item::Block { name, length, replayed: false });
        }
        name
    }

    /// Uses up a sequence number, as for a block that was lost at this end.
    pub(super) fn lose_one(&mut self) {
        self.sequence += 1;
    }

    /// Begins a session with this number.
    pub(super) fn begin_session(&mut self, session: u64) {
        self.previous_blocks = self.sequence;
        self.session = session;
        self.sequence = 0;
        if self.state == State::Running {
            self.queue.push_back(Item::Session { session, previous: self.previous_blocks });
        }
    }

    pub(super) fn tell_link(&mut self, state: LinkState) {
        self.queue.push_back(Item::Link(state));
    }

    /// Delivers a block that nobody distilled, under any name and of any length.
    pub(super) fn forge(&mut self, name: BlockName, length: usize, replayed: bool) {
        self.queue.push_back(Item::Block { name, length, replayed });
    }

    pub(super) fn end_replay_again(&mut self) {
        self.queue.push_back(Item::ReplayEnd);
    }

    pub(super) fn break_down(&mut self, fault: Fault) {
        (self.fault, self.state) = (fault, State::Fault);
    }

    pub(super) fn restart_by_itself(&mut self) {
        self.state = State::Stopped;
    }

    pub(super) const fn cell(&self) -> u64 {
        self.cell
    }

    fn raise(&self, bus: &mut dyn ModelBus, vector: u32) {
        let enabled = bus.read32(reg::INTERRUPT_ENABLE.offset) >> vector & 1 == 1;
        if enabled && !self.plants.no_interrupts {
            bus.raise(vector);
        }
    }

    fn show(&self, bus: &mut dyn ModelBus) {
        let newest = self.retained.last_key_value().map(|(name, _)| *name);
        let newest = newest.or_else(|| {
            (self.announced > 0).then_some(BlockName { session: self.session, sequence: self.sequence })
        });
        let newest = newest.unwrap_or(BlockName { session: 0, sequence: 0 });
        let bytes: usize = self.retained.values().sum();
        let values: &[(Register, u64)] = &[
            (reg::MAGIC, reg::MAGIC_VALUE.into()),
            (reg::VERSION, reg::VERSION_VALUE.into()),
            (reg::FEATURES, reg::feature::DEFINED),
            (reg::SERIAL, SERIAL),
            (reg::PEER_SERIAL, PEER),
            (reg::ROLE, 1),
            (reg::BLOCK_MAX, BLOCK_MAX.into()),
            (reg::RETENTION_BYTES, 1 << 20),
            (reg::RETENTION_BLOCKS, 1000),
            (reg::FAULT, self.fault.value().into()),
            (reg::STATE, self.state.value().into()),
            (reg::LINK_STATE, LinkState::Distilling.value().into()),
            (reg::ZEROIZED, self.zeroized.into()),
            (reg::CELL, self.cell),
            (reg::SESSION, self.session),
            (reg::NEWEST_SEQUENCE, newest.sequence),
            (reg::NEWEST_SESSION, newest.session),
            (reg::BLOCKS_ANNOUNCED, self.announced),
            (reg::HEARTBEAT, self.heartbeat),
            (reg::COMMAND_DONE, self.done.into()),
            (reg::ACK_HEAD, self.ack_head.into()),
            (reg::TELEMETRY_SEQUENCE, 2),
            (reg::QBER, 21_500),
            (reg::VISIBILITY, 970_000),
            (reg::DETECTOR_TEMPERATURE, u64::from((-50_000_i32).cast_unsigned())),
            (reg::BOARD_TEMPERATURE, 0x8000_0000),
            (reg::SECRET_KEY_RATE, 1_000_000),
            (reg::RETAINED_BLOCKS, self.retained.len() as u64),
            (reg::RETAINED_BYTES, bytes as u64),
        ];
        for (register, honest) in values {
            let value = self.shown.get(&register.offset).copied().unwrap_or(*honest);
            let value = if self.plants.all_ones { u64::MAX } else { value };
            match register.width {
                4 => bus.write32(register.offset, u32::try_from(value & 0xFFFF_FFFF).expect("masked")),
                _ => bus.write64(register.offset, value),
            }
        }
    }

    fn obey(&mut self, bus: &mut dyn ModelBus) {
        let word = bus.read32(reg::COMMAND.offset);
        let (tag, opcode) = (u16::try_from(word >> 16).expect("16 bits"), word & 0xFFFF);
        if tag == 0 || tag == self.last_tag {
            return;
        }
        self.last_tag = tag;
        let Ok(opcode) = Opcode::try_from(opcode) else { panic!("the driver gave opcode {opcode}") };
        self.commands.push(opcode);
        if self.plants.silent == Some(opcode) {
            return;
        }
        if self.plants.power_loss_at == Some(opcode) {
            self.plants.power_loss_at = None;
            self.retained.clear();
            self.announced = 0;
            self.begin_boot(bus);
            if self.plants.power_loss_swallows_it {
                return;
            }
        }
        let outcome = self.execute(opcode, bus);
        if self.plants.wrong_state_after == Some(opcode) {
            self.state = State::Stopping;
        }
        self.done = u32::from(tag) << 16 | outcome.value();
        self.show(bus);
        self.raise(bus, CONTROL_VECTOR);
    }

    fn execute(&mut self, opcode: Opcode, bus: &mut dyn ModelBus) -> Outcome {
        let argument = bus.read32(reg::COMMAND_ARGUMENT.offset);
        match (opcode, self.state) {
            (Opcode::Start, State::Stopped) => {
                for consumed in [reg::SLOT_CREDIT, reg::EVENT_CONSUMED, reg::ACK_TAIL] {
                    assert_eq!(bus.read32(consumed.offset), 0, "{} is 0 before START (CMD-5)", consumed.name);
                }
                (self.delivered, self.written, self.ack_head, self.credit_seen) = (0, 0, 0, 0);
                self.state = State::Running;
                let replay = self.retained.iter();
                self.queue = replay
                    .map(|(name, length)| Item::Block { name: *name, length: *length, replayed: true })
                    .collect();
                self.queue.push_back(Item::ReplayEnd);
                self.queue.push_back(Item::Session { session: self.session, previous: self.previous_blocks });
                self.queue.push_back(Item::Link(LinkState::Distilling));
            }
            (Opcode::Stop, State::Running) => {
                self.state = State::Stopped;
                self.queue.clear();
            }
            (Opcode::Zeroize, State::Stopped | State::Running | State::Fault) => {
                if !self.plants.zeroize_leaves_blocks {
                    self.retained.clear();
                }
                self.queue.clear();
                self.zeroized += 1;
                (self.state, self.fault) = (State::Zeroized, Fault::None);
            }
            (Opcode::Reset, _) => {
                self.retained.clear();
                self.announced = 0;
                self.begin_boot(bus);
            }
            (Opcode::SelfTest, State::Stopped) => {
                let mut pattern: Vec<u8> = (0..SELF_TEST_BYTES).map(self_test_octet).collect();
                if let Some(octet) = self.plants.pattern {
                    pattern[octet] ^= 1;
                }
                let base = bus.read64(reg::SLOT_BASE.offset);
                if bus.dma_write(base, &pattern).is_err() {
                    self.break_down(Fault::Dma);
                    return Outcome::Failed;
                }
            }
            (Opcode::Raise, _) => self.raise(bus, argument),
            _ => return Outcome::WrongState,
        }
        Outcome::Done
    }

    fn begin_boot(&mut self, bus: &mut dyn ModelBus) {
        let hosts = reg::ALL.iter().filter(|register| register.access == reg::Access::Host);
        for register in hosts {
            match register.width {
                4 => bus.write32(register.offset, 0),
                _ => bus.write64(register.offset, 0),
            }
        }
        self.queue.clear();
        (self.last_tag, self.done, self.fault) = (0, 0, Fault::None);
        self.state = State::Boot;
        self.boot_until = bus.now_us() + BOOT_US;
    }
}

impl Model for Scripted {
    fn step(&mut self, bus: &mut dyn ModelBus) {
        let now = bus.now_us();
        if self.state == State::Boot && now >= self.boot_until && !self.plants.never_boots {
            self.state = State::Stopped;
        }
        if !self.plants.heart_stopped {
            self.heartbeat = now / 50_000;
        }
        if self.distil_at.is_some_and(|at| now >= at) {
            self.distil_at = None;
            self.distil(100);
        }
        self.obey(bus);
        let store = bus.read64(reg::CELL_STORE.offset);
        if store > self.cell && !self.plants.cell_stuck {
            self.cell = store;
        }
        if self.state == State::Running {
            self.take_acks(bus);
            self.watch_counters(bus);
            self.deliver(bus);
            self.serve_arm(bus);
        }
        self.show(bus);
        if self.state == State::Fault && self.done & 0xFFFF == 0 {
            self.raise(bus, CONTROL_VECTOR);
        }
    }

    fn function_reset(&mut self, bus: &mut dyn ModelBus) -> bool {
        if self.plants.reset_fails {
            return false;
        }
        self.resets += 1;
        let zeroized = self.state == State::Zeroized;
        self.begin_boot(bus);
        if zeroized {
            self.state = State::Zeroized;
        }
        true
    }
}

impl Scripted {
    /// Sets the free-running counters, as after days of delivery.
    pub(super) const fn jump(&mut self, written: u32, delivered: u32, credit: u32) {
        (self.written, self.delivered, self.credit_seen) = (written, delivered, credit);
    }
}
