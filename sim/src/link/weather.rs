//! How a link in the field drifts, is realigned and fails.
//!
//! What field trials published, and what is made of it here:
//! - a 45 km link in Tokyo kept 300 kbit/s for 34 days under automatic stabilisation (Dynes et al., Optics Express 23,
//!   7583, 2015): the loss follows the day by a few hundredths of a dB, the phase is held by a controller;
//! - a commercial system kept visibility above 97 % and QBER below 1 % through a tropical climate (Tezzin et al.,
//!   arXiv 2604.16236): that is the band in which the visibility wanders between two alignments;
//! - a 248 km link paused for realignment whenever the QBER had risen too far, for 8 to 82 minutes, 57 on average
//!   (Neumann et al., Nature Communications 13, 6134, 2022). Its polarisation was not tracked; stabilised systems
//!   realign in seconds. Pauses here last 3 to 60 s, so that they are seen and a trial does not wait for them.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const SECOND: u64 = 1_000_000;
const DAY_S: f64 = 86_400.0;
/// Seconds in which the controller takes back a phase error.
const RELAXATION_S: f64 = 60.0;
/// Standard deviation of the phase error under control, in radians.
const PHASE_SIGMA: f64 = 0.06;
/// Mean of the cosine of the phase error, e^(-sigma²/2): the share of the visibility that is usually there.
pub(crate) const USUAL_VISIBILITY: f64 = 0.998_202;

/// How often the link stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Weather {
    /// Never: only faults of the plan stop it.
    Calm,
    /// Realigned about once an hour, dark about once a day.
    Field,
    /// Realigned about every two minutes, dark about every ten.
    Stormy,
}

/// What happens to a link by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Alignment is lost for so many microseconds; the session goes on.
    Realignment(u64),
    /// No light for so many microseconds; the session ends.
    Outage(u64),
}

/// The drifting quantities of one link.
#[derive(Debug)]
pub(crate) struct Drift {
    rng: ChaCha8Rng,
    weather: Weather,
    phase: f64,
    day_phase: f64,
}

impl Drift {
    pub(crate) fn new(mut rng: ChaCha8Rng, weather: Weather) -> Self {
        let day_phase = rng.random_range(0.0..std::f64::consts::TAU);
        Self { rng, weather, phase: 0.0, day_phase }
    }

    /// Moves on by `seconds`. Draws whether the link stops meanwhile.
    pub(crate) fn advance(&mut self, seconds: f64) -> Option<Stop> {
        // Ornstein-Uhlenbeck: drift pulled back by the controller, with the noise that gives PHASE_SIGMA.
        let kept = (-seconds / RELAXATION_S).exp();
        self.phase = self.phase * kept + PHASE_SIGMA * (1.0 - kept * kept).sqrt() * self.gaussian();
        let (realign_s, outage_s) = match self.weather {
            Weather::Calm => return None,
            Weather::Field => (3_600.0, DAY_S),
            Weather::Stormy => (120.0, 600.0),
        };
        if self.rng.random_bool((seconds / outage_s).min(1.0)) {
            return Some(Stop::Outage(self.duration(5, 60)));
        }
        if self.rng.random_bool((seconds / realign_s).min(1.0)) {
            return Some(Stop::Realignment(self.duration(3, 60)));
        }
        None
    }

    /// Realigned: the phase error is gone.
    pub(crate) fn realigned(&mut self) {
        self.phase = 0.0;
    }

    /// Visibility now, from what fresh alignment gives.
    pub(crate) fn visibility(&self, best: f64) -> f64 {
        best * self.phase.cos()
    }

    /// Change of the loss over the day, in dB.
    pub(crate) fn loss_change(&self, now: u64) -> f64 {
        0.03 * self.day(now)
    }

    /// Detector and board temperature in millidegrees Celsius: a cryostat at 2.3 K, a board that follows the room.
    pub(crate) fn temperatures(&mut self, now: u64) -> (i32, i32) {
        let detector = -270_850.0 + 5.0 * self.gaussian();
        let board = 41_000.0 + 2_500.0 * self.day(now) + 60.0 * self.gaussian();
        (whole(detector), whole(board))
    }

    /// A measured ratio: the true one with the noise of counting `samples` events.
    pub(crate) fn measured(&mut self, ratio: f64, samples: f64) -> f64 {
        let sigma = (ratio * (1.0 - ratio) / samples.max(1.0)).sqrt();
        (ratio + sigma * self.gaussian()).clamp(0.0, 1.0)
    }

    /// A delay of up to `most` microseconds.
    pub(crate) fn delay(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..=most)
    }

    /// Between two lengths in seconds, short ones more often; in microseconds.
    fn duration(&mut self, least_s: u64, most_s: u64) -> u64 {
        let share: f64 = self.rng.random_range(0.0..1.0);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a pause")]
        let (least, most) = (least_s as f64, most_s as f64);
        micros(least * (most / least).powf(share))
    }

    fn day(&self, now: u64) -> f64 {
        (seconds(now) / DAY_S * std::f64::consts::TAU + self.day_phase).sin()
    }

    fn gaussian(&mut self) -> f64 {
        // Box and Muller; the first draw is kept off 0, whose logarithm is not finite.
        let radius: f64 = self.rng.random_range(f64::MIN_POSITIVE..1.0);
        let angle = self.rng.random_range(0.0..std::f64::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
pub(crate) fn seconds(micros: u64) -> f64 {
    micros as f64 / SECOND as f64
}

/// Seconds as microseconds, rounded up; nothing below 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as saturates")]
#[expect(clippy::cast_precision_loss, reason = "a million is exact")]
pub(crate) fn micros(seconds: f64) -> u64 {
    (seconds * SECOND as f64).ceil() as u64
}

#[expect(clippy::cast_possible_truncation, reason = "as saturates")]
fn whole(value: f64) -> i32 {
    value.round() as i32
}
