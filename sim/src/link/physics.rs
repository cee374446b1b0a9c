//! Rates and error rates of a decoy-state BB84 link as functions of its loss.
//!
//! The asymptotic formulas of Lo, Ma and Chen (Phys. Rev. Lett. 94, 230504, 2005) and of Ma, Qi, Zhao and Lo
//! (Phys. Rev. A 72, 012326, 2005), with perfect decoy estimation:
//!
//! ```text
//! eta = detection * 10^(-loss/10)                 Q  = Y0 + (1 - Y0) (1 - e^(-eta mu))      gain of the signal
//! E   = (Y0/2 + e (1 - e^(-eta mu))) / Q          dark counts Y0 raise the QBER as the loss grows
//! Y1  = Y0 + eta - Y0 eta                         e1 = (Y0/2 + e eta) / Y1                  single photons
//! Q1  = Y1 mu e^(-mu)
//! R   = q F { Q1 [1 - h(e1)] - f Q h(E) }         live = 1 / (1 + F Q tau)                  secret key rate R live
//! ```
//!
//! e is the optical error: e = (1 - V) / 2 for an interferometer of visibility V. Dead time (tau) bends the curve at
//! low loss, as it does for every detector. F, tau, Y0 and q are chosen so that 2.2 dB, 10 km of fibre, give the
//! published record of 115.8 Mb/s (Li et al., Nature Photonics 17, 416, 2023: 2.5 GHz, superconducting detectors), and
//! so that key ends near 56 dB, as it did there after 328 km.

use super::weather::USUAL_VISIBILITY;

/// Greatest loss that the model is asked for, in dB.
pub const LOSS_MAX_DB: f64 = 60.0;

/// The optics at both ends of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optics {
    /// Systems of this kind side by side on one fibre, each at a wavelength of its own; what they yield adds up.
    pub channels: u32,
    /// Pulses per second, in each of them.
    pub pulse_rate: f64,
    /// Mean photon number of a signal pulse.
    pub signal_intensity: f64,
    /// Probability that a photon which arrives is counted.
    pub detection: f64,
    /// Probability of a count without a photon, per pulse.
    pub dark_count: f64,
    /// Seconds for which a count blinds the detectors, shared among their pixels.
    pub dead_time: f64,
    /// Share of the counts that sifting and decoy states leave.
    pub sifting: f64,
    /// What error correction spends over the Shannon limit.
    pub correction: f64,
    /// Visibility when freshly aligned.
    pub visibility: f64,
}

impl Optics {
    /// The kind of system that holds the record.
    pub const RECORD: Self = Self {
        channels: 1,
        pulse_rate: 2.5e9,
        signal_intensity: 0.5,
        detection: 0.65,
        dark_count: 1.2e-7,
        dead_time: 2.4e-9,
        sifting: 0.9,
        correction: 1.16,
        visibility: 0.992,
    };

    /// What the link does at a loss in dB with a visibility from 0 to 1.
    #[must_use]
    pub fn at(&self, loss_db: f64, visibility: f64) -> Yield {
        let eta = self.detection * 10_f64.powf(-loss_db / 10.0);
        let mu = self.signal_intensity;
        let dark = self.dark_count;
        let error = (1.0 - visibility) / 2.0;

        let click = -(-eta * mu).exp_m1();
        let gain = dark + (1.0 - dark) * click;
        let qber = (0.5 * dark + error * click) / gain;
        let single_yield = dark + eta - dark * eta;
        let single_error = (0.5 * dark + error * eta) / single_yield;
        let single_gain = single_yield * mu * (-mu).exp();

        let live = 1.0 / (1.0 + self.pulse_rate * gain * self.dead_time);
        let sifted_pulses = f64::from(self.channels) * self.sifting * self.pulse_rate * live;
        let fraction = single_gain * (1.0 - entropy(single_error)) - self.correction * gain * entropy(qber);
        Yield {
            secret_bit_s: (sifted_pulses * fraction).max(0.0),
            sifted_bit_s: sifted_pulses * gain,
            qber: qber.clamp(0.0, 0.5),
        }
    }

    /// What a link gives on average between two alignments, at a loss in dB.
    #[must_use]
    pub fn usually(&self, loss_db: f64) -> Yield {
        self.at(loss_db, self.visibility * USUAL_VISIBILITY)
    }

    /// The loss in dB at which a link usually gives this secret key rate in bit/s, or nothing when even a link
    /// without loss gives less.
    #[must_use]
    pub fn loss_for(&self, secret_bit_s: f64) -> Option<f64> {
        if !(1.0..=self.usually(0.0).secret_bit_s).contains(&secret_bit_s) {
            return None;
        }
        let (mut low, mut high) = (0.0, LOSS_MAX_DB);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.usually(middle).secret_bit_s >= secret_bit_s {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

/// What a link yields at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Yield {
    /// Secret key rate, bit/s.
    pub secret_bit_s: f64,
    /// Sifted key rate, bit/s.
    pub sifted_bit_s: f64,
    /// Quantum bit error rate, 0 to 0.5.
    pub qber: f64,
}

/// Binary entropy, with everything beyond one half counted as one half.
fn entropy(probability: f64) -> f64 {
    let p = probability.clamp(0.0, 0.5);
    if p == 0.0 { 0.0 } else { -p * p.log2() - (1.0 - p) * (1.0 - p).log2() }
}
