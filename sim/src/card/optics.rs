//! The card's side of the link: sessions, blocks that arrive, and what is announced of them (clauses SES, RET).

use qkd_contract::state::{Fault, LinkState};

use super::Card;
use super::block::{Block, Name};
use super::delivery::Notice;
use super::memory::Remembered;
use super::retention::Full;
use super::telemetry::Telemetry;

/// What the link tells a card.
#[derive(Debug)]
pub enum FromLink {
    /// The state of the link changed.
    State(LinkState),
    /// A session with this number has begun.
    SessionBegan(u64),
    /// The session has ended.
    SessionEnded,
    /// A block has been distilled.
    Block(Block),
    /// The block of this name was lost at this end in reconciliation or verification.
    Lost(Name),
    /// Both ends gave up a block, before it had a name.
    GivenUp(Cause),
    /// A new interval of telemetry.
    Telemetry(Telemetry),
}

/// Why both ends gave up a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The error rate was too high.
    Qber,
    /// The classical channel was not authenticated.
    Authentication,
}

/// The card's view of the link.
#[derive(Debug)]
pub(super) struct LinkView {
    pub(super) state: LinkState,
    /// Present session, 0 while there is none.
    pub(super) session: u64,
    /// Next unused sequence of the present session, or of the last one while there is none.
    pub(super) blocks: u64,
    /// Blocks of the session before the present one.
    pub(super) blocks_before: u64,
    pub(super) newest: Option<Name>,
    pub(super) peer_known: bool,
}

impl LinkView {
    pub(super) const fn dark() -> Self {
        Self {
            state: LinkState::Off,
            session: 0,
            blocks: 0,
            blocks_before: 0,
            newest: None,
            peer_known: false,
        }
    }

    pub(super) const fn go_dark(&mut self) {
        self.state = LinkState::Off;
        self.session = 0;
    }
}

impl Card {
    /// Takes a message of the link.
    pub fn receive(&mut self, message: FromLink) {
        match message {
            FromLink::State(state) => {
                if self.link.state != state {
                    self.link.state = state;
                    self.notice(Notice::Link(state));
                }
            }
            FromLink::SessionBegan(session) => self.begin_session(session),
            FromLink::SessionEnded => self.link.session = 0,
            FromLink::Block(block) => self.announce(block),
            FromLink::Lost(name) => {
                if self.uses_up(name) {
                    self.counters.dropped_reconciliation += 1;
                }
            }
            FromLink::GivenUp(Cause::Qber) => self.counters.dropped_qber += 1,
            FromLink::GivenUp(Cause::Authentication) => self.counters.dropped_authentication += 1,
            FromLink::Telemetry(telemetry) => self.telemetry = telemetry,
        }
    }

    /// Makes the number of a session durable before either end distils under it (SES-2). False when it cannot; no
    /// session begins then.
    pub fn agree_session(&mut self, session: u64) -> bool {
        session > self.remembered.session_counter
            && self.remember(Remembered { session_counter: session, ..self.remembered })
    }

    fn notice(&mut self, notice: Notice) {
        let after = self.retention.newest();
        if let Some(delivery) = &mut self.delivery {
            delivery.notice(&self.retention, after, notice);
        }
    }

    fn begin_session(&mut self, session: u64) {
        if session != self.remembered.session_counter || session == 0 {
            // Only a defective link begins a session that was not agreed; its keys could bear a used name.
            self.life.break_down(Fault::NonVolatile);
            return;
        }
        self.link.blocks_before = std::mem::take(&mut self.link.blocks);
        self.link.session = session;
        self.link.peer_known = true;
        self.notice(Notice::Session { session, blocks_before: self.link.blocks_before });
    }

    /// Counts a sequence number as used; false for a block of a session that the card is not in.
    fn uses_up(&mut self, name: Name) -> bool {
        let belongs = self.link.session != 0 && name.session == self.link.session;
        if belongs {
            self.link.blocks = name.sequence.saturating_add(1);
        }
        belongs
    }

    fn announce(&mut self, block: Block) {
        if !self.uses_up(block.name) {
            return;
        }
        let (name, length) = (block.name, block.key.len() as u64);
        let kept =
            if self.misbehaviour.takes_refusal() { Err(Full(block)) } else { self.retention.keep(block) };
        match kept {
            Ok(()) => {
                self.link.newest = Some(name);
                self.counters.blocks_announced += 1;
                self.counters.bytes_announced += length;
            }
            Err(Full(refused)) => {
                drop(refused);
                self.counters.dropped_overflow += 1;
                self.counters.dropped_overflow_bytes += length;
            }
        }
    }
}
