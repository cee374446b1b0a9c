//! The quantum link between two cards: one source of blocks for both ends, and what the optics do meanwhile.

mod key;
mod pair;
mod physics;
#[cfg(test)]
mod tests;
mod weather;

use qkd_contract::limits::BLOCK_FLUSH_MS;
use qkd_contract::state::LinkState;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::card::{Block, Cause, Name, Telemetry};
pub use key::{KeySource, test_key_cell};
pub use pair::{BadPair, CardPair, End, PairOptions};
pub use physics::{LOSS_MAX_DB, Optics, Yield};
pub use weather::Weather;
use weather::{Drift, Stop, micros, seconds};

/// Microseconds between two moves of the optics.
const TICK_US: u64 = 100_000;
/// Microseconds between two renewals of telemetry; the contract allows 2 s (TIM-12).
const TELEMETRY_US: u64 = 1_000_000;
/// A block is cut after this many microseconds even when it is not full; half of what the contract allows.
const FLUSH_US: u64 = BLOCK_FLUSH_MS * 1_000 / 2;
/// Seconds of key that a block holds when its size allows it.
const BLOCK_SECONDS: f64 = 0.2;
/// How long lasers and detectors come up, and how long a first alignment takes. In the field these are minutes; a
/// simulation would only wait for them.
const INITIALISING_US: u64 = 200_000;
const ALIGNING_US: u64 = 400_000;
/// The light is off for at least this long when an end has left the link.
const DARK_US: u64 = 100_000;

/// What the link tells both ends.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    State(LinkState),
    SessionBegan(u64),
    SessionEnded,
    Block(Block),
    GivenUp(Cause),
    Telemetry(Telemetry),
}

/// The two ends as the link sees them.
pub(crate) trait Ends {
    /// Whether the optics of both work.
    fn ready(&self) -> bool;
    /// Agrees on a new session number and makes it durable at both ends (SES-2).
    fn agree_session(&mut self) -> Option<u64>;
    /// Tells both ends what happened at a moment in microseconds.
    fn tell(&mut self, at: u64, event: LinkEvent);
}

/// The link: driven by the pair, in microseconds of any clock.
pub struct Link {
    optics: Optics,
    loss_db: f64,
    key: KeySource,
    drift: Drift,
    block_max: u32,
    now: u64,
    state: LinkState,
    /// When the present state ends by itself.
    until: Option<u64>,
    session: u64,
    session_began: u64,
    sequence: u64,
    /// Octets distilled and not yet cut; a fraction of one may be among them.
    waiting: f64,
    cut_at: u64,
    rate: Yield,
    tick_at: u64,
    telemetry_at: u64,
    interval: Interval,
    /// Error rate that a fault adds, and until when.
    disturbance: Option<(f64, u64)>,
    given_up_at: u64,
}

impl Link {
    fn new(
        optics: Optics,
        loss_db: f64,
        key: KeySource,
        weather: Weather,
        block_max: u32,
        seed: &mut ChaCha8Rng,
    ) -> Self {
        Self {
            optics,
            loss_db,
            key,
            drift: Drift::new(ChaCha8Rng::from_rng(seed), weather),
            block_max,
            now: 0,
            state: LinkState::Off,
            until: Some(0),
            session: 0,
            session_began: 0,
            sequence: 0,
            waiting: 0.0,
            cut_at: 0,
            rate: Yield::default(),
            tick_at: 0,
            telemetry_at: 0,
            interval: Interval::default(),
            disturbance: None,
            given_up_at: 0,
        }
    }

    /// Lets everything up to `now` happen, in order. The outcome does not depend on how time is cut into calls.
    fn advance(&mut self, now: u64, ends: &mut dyn Ends) {
        loop {
            let due = [Some(self.tick_at), self.until, self.next_cut()].into_iter().flatten().min();
            let Some(at) = due.filter(|&at| at <= now) else { return };
            self.distil_until(at);
            if self.next_cut().is_some_and(|cut| cut <= at) {
                self.cut(ends);
            }
            if self.until.is_some_and(|until| until <= at) {
                self.state_is_over(ends);
            }
            if self.tick_at <= at {
                self.tick(ends);
            }
        }
    }

    /// The light goes out for `duration` microseconds; the session ends.
    fn outage(&mut self, duration: u64, ends: &mut dyn Ends) {
        self.end_session(ends);
        self.enter(LinkState::Off, Some(self.now.saturating_add(duration.max(DARK_US))), ends);
    }

    /// Alignment is lost for `duration` microseconds; the session goes on.
    fn realign(&mut self, duration: u64, ends: &mut dyn Ends) {
        if self.state == LinkState::Distilling {
            self.enter(LinkState::Aligning, Some(self.now.saturating_add(duration)), ends);
        }
    }

    /// The classical channel runs out of authentication key for `duration` microseconds; the session ends.
    fn lose_authentication(&mut self, duration: u64, ends: &mut dyn Ends) {
        if matches!(self.state, LinkState::Distilling | LinkState::Aligning) {
            self.waiting = 0.0;
            self.end_session(ends);
            ends.tell(self.now, LinkEvent::GivenUp(Cause::Authentication));
            self.enter(LinkState::NoAuthenticationKey, Some(self.now.saturating_add(duration)), ends);
        }
    }

    /// Adds `ratio` to the error rate for `duration` microseconds.
    fn disturb(&mut self, ratio: f64, duration: u64) {
        self.disturbance = Some((ratio, self.now.saturating_add(duration)));
        self.measure();
    }

    /// Whole octets that wait are cut when the block is full or has waited long enough (SES-4).
    fn next_cut(&self) -> Option<u64> {
        if self.session == 0 {
            return None;
        }
        let flush = self.cut_at + FLUSH_US;
        let octets_s = self.rate.secret_bit_s / 8.0;
        let missing = f64::from(self.block_target()) - self.waiting;
        if missing <= 0.0 {
            return Some(self.now);
        }
        if octets_s <= 0.0 {
            return Some(flush);
        }
        Some(flush.min(self.now.saturating_add(micros(missing / octets_s))))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a 32-bit range")]
    fn block_target(&self) -> u32 {
        (self.rate.secret_bit_s / 8.0 * BLOCK_SECONDS).clamp(16.0, f64::from(self.block_max)) as u32
    }

    /// Distils up to a moment at which something changes. Not called for other moments, so that sums are the same
    /// however often the link is looked at.
    fn distil_until(&mut self, at: u64) {
        let at = at.max(self.now);
        let passed = seconds(at - self.now);
        self.waiting += self.rate.secret_bit_s / 8.0 * passed;
        self.interval.add(self.rate, self.visibility(), passed);
        self.now = at;
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a 32-bit range")]
    fn cut(&mut self, ends: &mut dyn Ends) {
        let whole = self.waiting.floor().clamp(0.0, f64::from(self.block_max)) as u32;
        self.cut_at = self.now;
        if whole == 0 || self.session == 0 {
            return;
        }
        self.waiting -= f64::from(whole);
        let name = Name { session: self.session, sequence: self.sequence };
        self.sequence += 1;
        let block = Block {
            name,
            qber: ppm(self.rate.qber),
            distilled_at: self.now - self.session_began,
            key: self.key.distil(name, whole as usize),
        };
        ends.tell(self.now, LinkEvent::Block(block));
    }

    fn state_is_over(&mut self, ends: &mut dyn Ends) {
        match self.state {
            LinkState::Off | LinkState::Fault if !ends.ready() => self.until = Some(self.now + DARK_US),
            LinkState::Off | LinkState::Fault => {
                self.enter(LinkState::Initialising, Some(self.now + INITIALISING_US), ends);
            }
            LinkState::Initialising | LinkState::NoAuthenticationKey => {
                self.enter(LinkState::Aligning, Some(self.now + ALIGNING_US), ends);
            }
            LinkState::Aligning => {
                self.drift.realigned();
                self.enter(LinkState::Distilling, None, ends);
                if self.session == 0 {
                    self.begin_session(ends);
                }
            }
            LinkState::Distilling => self.until = None,
        }
    }

    fn begin_session(&mut self, ends: &mut dyn Ends) {
        let Some(session) = ends.agree_session() else {
            self.outage(DARK_US, ends);
            return;
        };
        self.session = session;
        self.session_began = self.now;
        self.sequence = 0;
        self.waiting = 0.0;
        self.cut_at = self.now;
        ends.tell(self.now, LinkEvent::SessionBegan(session));
        self.measure();
    }

    fn end_session(&mut self, ends: &mut dyn Ends) {
        if self.session != 0 {
            self.cut(ends);
            self.session = 0;
            ends.tell(self.now, LinkEvent::SessionEnded);
        }
        self.waiting = 0.0;
    }

    fn enter(&mut self, state: LinkState, until: Option<u64>, ends: &mut dyn Ends) {
        self.until = until;
        if self.state != state {
            self.state = state;
            ends.tell(self.now, LinkEvent::State(state));
        }
        self.measure();
    }

    /// Moves the optics on by one tick.
    fn tick(&mut self, ends: &mut dyn Ends) {
        self.tick_at = self.now + TICK_US;
        let stop = self.drift.advance(seconds(TICK_US));
        if self.state == LinkState::Distilling {
            match stop {
                Some(Stop::Realignment(duration)) => self.realign(duration, ends),
                Some(Stop::Outage(duration)) => self.outage(duration, ends),
                None => {}
            }
        }
        self.measure();
        let hopeless = self.rate.secret_bit_s <= 0.0 && self.rate.sifted_bit_s > 0.0;
        if hopeless && self.now >= self.given_up_at {
            self.given_up_at = self.now + FLUSH_US;
            ends.tell(self.now, LinkEvent::GivenUp(Cause::Qber));
        }
        if self.now >= self.telemetry_at {
            self.telemetry_at = self.now + TELEMETRY_US;
            let telemetry = self.telemetry();
            ends.tell(self.now, LinkEvent::Telemetry(telemetry));
        }
    }

    /// The yield of this moment: none unless the link distils under a session.
    fn measure(&mut self) {
        self.disturbance = self.disturbance.filter(|&(_, until)| self.now < until);
        self.rate = if self.state == LinkState::Distilling && self.session != 0 {
            self.optics.at(self.loss_db + self.drift.loss_change(self.now), self.visibility())
        } else {
            Yield::default()
        };
    }

    fn visibility(&self) -> f64 {
        let disturbance = self.disturbance.map_or(0.0, |(ratio, _)| ratio);
        (self.drift.visibility(self.optics.visibility) - 2.0 * disturbance).max(0.0)
    }

    /// Means over the interval that ends now (TEL-2).
    fn telemetry(&mut self) -> Telemetry {
        let (detector_temperature, board_temperature) = self.drift.temperatures(self.now);
        let interval = std::mem::take(&mut self.interval);
        let temperatures = Telemetry { detector_temperature, board_temperature, ..Telemetry::default() };
        if interval.sifted_bits < 1.0 {
            return temperatures;
        }
        let qber = interval.error_bits / interval.sifted_bits;
        let visibility = interval.visibility_bits / interval.sifted_bits;
        Telemetry {
            qber_ppm: ppm(self.drift.measured(qber, interval.sifted_bits)),
            // Visibility is measured on a tenth of the pulses, as monitors do.
            visibility_ppm: ppm(self.drift.measured(visibility, interval.sifted_bits / 10.0)),
            secret_key_rate: whole(interval.secret_bits / interval.seconds),
            sifted_key_rate: whole(interval.sifted_bits / interval.seconds),
            ..temperatures
        }
    }
}

/// Sums over one interval of telemetry.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    seconds: f64,
    secret_bits: f64,
    sifted_bits: f64,
    error_bits: f64,
    visibility_bits: f64,
}

impl Interval {
    fn add(&mut self, rate: Yield, visibility: f64, seconds: f64) {
        let sifted = rate.sifted_bit_s * seconds;
        self.seconds += seconds;
        self.secret_bits += rate.secret_bit_s * seconds;
        self.sifted_bits += sifted;
        self.error_bits += rate.qber * sifted;
        self.visibility_bits += visibility * sifted;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a 32-bit range")]
fn ppm(ratio: f64) -> u32 {
    (ratio.clamp(0.0, 1.0) * 1e6).round() as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as saturates")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}
