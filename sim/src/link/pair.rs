//! Two cards, the link between them and the faults that are planned for them.

use std::collections::VecDeque;

use qkd_contract::state::Role;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Ends, KeySource, LOSS_MAX_DB, Link, LinkEvent, Optics, Weather};
use crate::card::{BadIdentity, Card, FromLink, Identity, NonVolatile, Remembered};
use crate::plan::{Deed, Fault, Plan};

/// Greatest time in microseconds by which one end learns something later than the other.
const DELAY_MAX_US: u64 = 2_000;

/// One end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The transmitter.
    A,
    /// The receiver.
    B,
}

impl End {
    /// Both ends.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// What a pair is made of.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// The optics at both ends.
    pub optics: Optics,
    /// Loss of the link in dB; [`Optics::loss_for`] finds the one that gives a rate.
    pub loss_db: f64,
    /// Seed of drift, delays and faults. The same seed and the same steps give the same run.
    pub seed: u64,
    /// Seed of random key; `None` makes positional test key.
    pub key_seed: Option<[u8; 32]>,
    /// How often the link stops by itself.
    pub weather: Weather,
    /// Serial numbers of A and B.
    pub serials: [u64; 2],
    /// Largest payload of a block, in bytes.
    pub block_max: u32,
    /// Payload bytes that each card retains at most.
    pub retention_bytes: u64,
    /// Blocks that each card retains at most.
    pub retention_blocks: u32,
}

impl PairOptions {
    /// A calm pair for tests: 1 Mb/s of positional test key.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            optics: Optics::RECORD,
            loss_db: Optics::RECORD.loss_for(1e6).unwrap_or(LOSS_MAX_DB),
            seed,
            key_seed: None,
            weather: Weather::Calm,
            serials: [0xA1B2_C301, 0xA1B2_C302],
            block_max: Identity::BLOCK_MAX,
            retention_bytes: Identity::RETENTION_BYTES,
            retention_blocks: Identity::RETENTION_BLOCKS,
        }
    }
}

/// A pair that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadPair {
    /// A card refuses its values.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// The loss is not a number from 0 to [`LOSS_MAX_DB`].
    #[error("a loss of {0} dB: give 0 to {LOSS_MAX_DB} dB")]
    Loss(f64),
}

/// Two cards on one link.
pub struct CardPair {
    link: Link,
    ends: CardEnds,
    plan: Plan,
    restarts: [u64; 2],
}

impl CardPair {
    /// Makes a pair whose cards remember what their non-volatile memories held.
    ///
    /// # Errors
    /// [`BadPair`] when the options break a rule.
    pub fn new(
        options: &PairOptions,
        plan: Plan,
        memories: [(Remembered, Box<dyn NonVolatile>); 2],
    ) -> Result<Self, BadPair> {
        if !(0.0..=LOSS_MAX_DB).contains(&options.loss_db) {
            return Err(BadPair::Loss(options.loss_db));
        }
        let key = options
            .key_seed
            .map_or(KeySource::Positional, |seed| KeySource::Random(Box::new(ChaCha8Rng::from_seed(seed))));
        let [serial_a, serial_b] = options.serials;
        let card = |serial, peer, role, (remembered, memory)| {
            let identity = Identity {
                block_max: options.block_max,
                retention_bytes: options.retention_bytes,
                retention_blocks: options.retention_blocks,
                test_key: key.is_test_key(),
                ..Identity::new(serial, peer, role)
            };
            Card::new(identity, remembered, memory)
        };
        let [memory_a, memory_b] = memories;
        let cards = [
            card(serial_a, serial_b, Role::Transmitter, memory_a)?,
            card(serial_b, serial_a, Role::Receiver, memory_b)?,
        ];
        let mut seed = ChaCha8Rng::seed_from_u64(options.seed);
        let link =
            Link::new(options.optics, options.loss_db, key, options.weather, options.block_max, &mut seed);
        let ends = CardEnds {
            cards,
            delays: super::Drift::new(ChaCha8Rng::from_rng(&mut seed), Weather::Calm),
            under_way: [VecDeque::new(), VecDeque::new()],
            lose: [0; 2],
        };
        Ok(Self { link, ends, plan, restarts: [0; 2] })
    }

    /// A pair whose cards remember only as long as it lives.
    ///
    /// # Errors
    /// As [`CardPair::new`].
    pub fn in_memory(options: &PairOptions, plan: Plan) -> Result<Self, BadPair> {
        let memory = || (Remembered::default(), Box::new(crate::card::WhileRunning) as Box<dyn NonVolatile>);
        Self::new(options, plan, [memory(), memory()])
    }

    /// Lets link and plan happen up to `now`, in microseconds of the clock that the cards' buses show, and gives the
    /// cards what reaches them by then. Step the cards afterwards.
    pub fn advance(&mut self, now: u64) {
        self.notice_restarts(now);
        while let Some(fault) = self.plan.next_until(now) {
            self.link.advance(fault.at, &mut self.ends);
            self.ends.arrive(fault.at);
            for end in End::BOTH.into_iter().filter(|&end| fault.end.includes(end)) {
                self.at_end(end, fault.deed, fault.at);
            }
            self.on_link(fault.deed, fault.at);
        }
        self.link.advance(now, &mut self.ends);
        self.ends.arrive(now);
    }

    /// Adds a fault to the plan. False when the plan holds as many as it can. One whose time has passed strikes at the
    /// next [`CardPair::advance`].
    pub(crate) fn plan_fault(&mut self, fault: Fault) -> bool {
        self.plan.insert(fault)
    }

    /// The card at one end.
    pub fn card(&mut self, end: End) -> &mut Card {
        let [a, b] = &mut self.ends.cards;
        match end {
            End::A => a,
            End::B => b,
        }
    }

    /// A card that left the link by itself ends the session at both ends.
    fn notice_restarts(&mut self, now: u64) {
        let restarts = self.ends.cards.each_ref().map(Card::restarts);
        for (index, (before, after)) in self.restarts.into_iter().zip(restarts).enumerate() {
            if before != after
                && let Some(queue) = self.ends.under_way.get_mut(index)
            {
                queue.clear();
            }
        }
        if restarts != self.restarts {
            self.restarts = restarts;
            self.link.advance(now, &mut self.ends);
            self.link.distil_until(now);
            self.link.outage(0, &mut self.ends);
        }
    }

    fn at_end(&mut self, end: End, deed: Deed, at: u64) {
        match deed {
            Deed::Card(trouble) => self.card(end).trouble(trouble, at),
            Deed::LoseBlocks(count) => {
                if let Some(lose) = self.ends.lose.get_mut(end.index()) {
                    *lose = lose.saturating_add(count);
                }
            }
            Deed::Outage(_) | Deed::Realign(_) | Deed::NoAuthenticationKey(_) | Deed::Qber(..) => {}
        }
    }

    fn on_link(&mut self, deed: Deed, at: u64) {
        if matches!(deed, Deed::Card(_) | Deed::LoseBlocks(_)) {
            return;
        }
        self.link.distil_until(at);
        match deed {
            Deed::Outage(duration) => self.link.outage(duration, &mut self.ends),
            Deed::Realign(duration) => self.link.realign(duration, &mut self.ends),
            Deed::NoAuthenticationKey(duration) => self.link.lose_authentication(duration, &mut self.ends),
            Deed::Qber(ratio, duration) => self.link.disturb(ratio, duration),
            Deed::Card(_) | Deed::LoseBlocks(_) => {}
        }
    }
}

/// The cards, and what is under way to them.
struct CardEnds {
    cards: [Card; 2],
    delays: super::Drift,
    /// Messages in the order in which they were sent, with the time at which they arrive. What is here is at most
    /// what [`DELAY_MAX_US`] of link time bring, since every advance takes out what is due.
    under_way: [VecDeque<(u64, FromLink)>; 2],
    /// Blocks still to be lost at each end.
    lose: [u32; 2],
}

impl CardEnds {
    fn send(&mut self, end: End, at: u64, message: FromLink) {
        let due = at + self.delays.delay(DELAY_MAX_US);
        if let Some(queue) = self.under_way.get_mut(end.index()) {
            let due = queue.back().map_or(due, |&(last, _)| last.max(due));
            queue.push_back((due, message));
        }
    }

    fn arrive(&mut self, now: u64) {
        for (card, queue) in self.cards.iter_mut().zip(&mut self.under_way) {
            while let Some((_, message)) = queue.pop_front_if(|(due, _)| *due <= now) {
                card.receive(message);
            }
        }
    }

    fn loses(&mut self, end: End) -> bool {
        self.lose.get_mut(end.index()).is_some_and(|lose| {
            let loses = *lose > 0;
            *lose = lose.saturating_sub(1);
            loses
        })
    }
}

impl Ends for CardEnds {
    fn ready(&self) -> bool {
        self.cards.iter().all(Card::optics_ready)
    }

    fn agree_session(&mut self) -> Option<u64> {
        let session = self.cards.iter().map(Card::session_counter).max()?.checked_add(1)?;
        let agreed = self.cards.each_mut().map(|card| card.agree_session(session));
        agreed.into_iter().all(|agreed| agreed).then_some(session)
    }

    fn tell(&mut self, at: u64, event: LinkEvent) {
        match event {
            LinkEvent::Block(block) => {
                let other = block.for_other_end();
                for (end, block) in End::BOTH.into_iter().zip([block, other]) {
                    let message =
                        if self.loses(end) { FromLink::Lost(block.name) } else { FromLink::Block(block) };
                    self.send(end, at, message);
                }
            }
            event => {
                for end in End::BOTH {
                    let message = match &event {
                        LinkEvent::State(state) => FromLink::State(*state),
                        LinkEvent::SessionBegan(session) => FromLink::SessionBegan(*session),
                        LinkEvent::SessionEnded | LinkEvent::Block(_) => FromLink::SessionEnded,
                        LinkEvent::GivenUp(cause) => FromLink::GivenUp(*cause),
                        LinkEvent::Telemetry(telemetry) => FromLink::Telemetry(*telemetry),
                    };
                    self.send(end, at, message);
                }
            }
        }
    }
}
