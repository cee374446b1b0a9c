//! What a card tells about its optics and its drops.

use std::time::Duration;

use qkd_contract::registers as reg;

use crate::backing::Backing;
use crate::fault::Fault;
use crate::identity::Identity;
use crate::mmio::{Mmio, Registers};

/// Time between two tries.
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// One, in parts per million.
const PPM: u32 = 1_000_000;
/// What a temperature register holds where there is no sensor (TEL-3).
const NO_SENSOR: i32 = i32::MIN;

/// One consistent reading of the telemetry registers (TEL-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Quantum bit error rate of the last interval, parts per million.
    pub qber_ppm: u32,
    /// Interference visibility of the last interval, parts per million.
    pub visibility_ppm: u32,
    /// Secret key rate over the last interval, bit/s.
    pub secret_key_rate: u64,
    /// Sifted key rate over the last interval, bit/s.
    pub sifted_key_rate: u64,
    /// Detector temperature, millidegrees Celsius; `None` without a sensor.
    pub detector_temperature: Option<i32>,
    /// Board temperature, millidegrees Celsius; `None` without a sensor.
    pub board_temperature: Option<i32>,
    /// Blocks announced since power-on.
    pub blocks_announced: u64,
    /// Payload bytes announced since power-on.
    pub bytes_announced: u64,
    /// Blocks refused because retention was full.
    pub dropped_overflow: u64,
    /// Payload bytes refused because retention was full.
    pub dropped_overflow_bytes: u64,
    /// Blocks lost because the error rate was too high.
    pub dropped_qber: u64,
    /// Blocks lost at this end because reconciliation or verification failed.
    pub dropped_reconciliation: u64,
    /// Blocks lost because the classical channel could not be authenticated.
    pub dropped_authentication: u64,
    /// DMA accesses that failed.
    pub dma_errors: u64,
    /// Blocks retained now.
    pub retained_blocks: u32,
    /// Payload bytes retained now.
    pub retained_bytes: u64,
}

impl Telemetry {
    /// Reads all of it between two equal, even values of `TELEMETRY_SEQUENCE`, within `ms` milliseconds.
    pub(crate) fn read<B: Backing>(backing: &mut B, ms: u64) -> Result<Self, Fault> {
        let deadline = backing.now().saturating_add(Duration::from_millis(ms));
        let first = backing.registers().get32(reg::TELEMETRY_SEQUENCE);
        let mut moved = first.is_multiple_of(2);
        loop {
            let late = backing.now() >= deadline;
            let before = backing.registers().get32(reg::TELEMETRY_SEQUENCE);
            moved |= before != first;
            if before.is_multiple_of(2) {
                let reading = Self::read_once(backing.registers());
                if backing.registers().get32(reg::TELEMETRY_SEQUENCE) == before {
                    return Ok(reading);
                }
            } else if before == u32::MAX && backing.registers().get32(reg::MAGIC) == u32::MAX {
                return Err(Fault::Gone);
            }
            if late && moved {
                return Err(Fault::TelemetryUnsteady { ms });
            }
            if late {
                return Err(Fault::Timeout {
                    what: "ending a change of the telemetry",
                    ms,
                    clause: "TIM-13",
                });
            }
            backing.pause(LOOK_AGAIN);
        }
    }

    /// Checks the values that have a range (TEL-2, TEL-3, TEL-5).
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Fault> {
        let ratio = |value: u32| (value > PPM).then_some((u64::from(value), "TEL-2"));
        let temperature = |value: Option<i32>| {
            let wrong = value.filter(|value| !(-273_150..=1_000_000).contains(value));
            wrong.map(|value| (u64::from(value.cast_unsigned()), "TEL-3"))
        };
        let at_most = |value: u64, limit: u64| (value > limit).then_some((value, "TEL-5"));
        let checks = [
            ("QBER", ratio(self.qber_ppm)),
            ("VISIBILITY", ratio(self.visibility_ppm)),
            ("DETECTOR_TEMPERATURE", temperature(self.detector_temperature)),
            ("BOARD_TEMPERATURE", temperature(self.board_temperature)),
            ("RETAINED_BLOCKS", at_most(self.retained_blocks.into(), identity.retention_blocks.into())),
            ("RETAINED_BYTES", at_most(self.retained_bytes, identity.retention_bytes)),
        ];
        match checks.into_iter().find_map(|(what, wrong)| wrong.map(|wrong| (what, wrong))) {
            Some((what, (value, clause))) => Err(Fault::ValueOutOfRange { what, value, clause }),
            None => Ok(()),
        }
    }

    fn read_once<M: Mmio>(registers: &M) -> Self {
        Self {
            qber_ppm: registers.get32(reg::QBER),
            visibility_ppm: registers.get32(reg::VISIBILITY),
            secret_key_rate: registers.get64(reg::SECRET_KEY_RATE),
            sifted_key_rate: registers.get64(reg::SIFTED_KEY_RATE),
            detector_temperature: sensor(registers.get32(reg::DETECTOR_TEMPERATURE)),
            board_temperature: sensor(registers.get32(reg::BOARD_TEMPERATURE)),
            blocks_announced: registers.get64(reg::BLOCKS_ANNOUNCED),
            bytes_announced: registers.get64(reg::BYTES_ANNOUNCED),
            dropped_overflow: registers.get64(reg::DROPPED_OVERFLOW),
            dropped_overflow_bytes: registers.get64(reg::DROPPED_OVERFLOW_BYTES),
            dropped_qber: registers.get64(reg::DROPPED_QBER),
            dropped_reconciliation: registers.get64(reg::DROPPED_RECONCILIATION),
            dropped_authentication: registers.get64(reg::DROPPED_AUTHENTICATION),
            dma_errors: registers.get64(reg::DMA_ERRORS),
            retained_blocks: registers.get32(reg::RETAINED_BLOCKS),
            retained_bytes: registers.get64(reg::RETAINED_BYTES),
        }
    }
}

fn sensor(value: u32) -> Option<i32> {
    Some(value.cast_signed()).filter(|value| *value != NO_SENSOR)
}
