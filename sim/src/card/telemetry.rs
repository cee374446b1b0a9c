//! Telemetry and counters (clauses TEL).

use qkd_contract::registers as reg;

use super::bus::Bus;
use super::registers::Registers;

/// What the optics measured over the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Telemetry {
    /// Quantum bit error rate, parts per million.
    pub qber_ppm: u32,
    /// Interference visibility, parts per million.
    pub visibility_ppm: u32,
    /// Secret key rate, bit/s.
    pub secret_key_rate: u64,
    /// Sifted key rate, bit/s.
    pub sifted_key_rate: u64,
    /// Detector temperature, millidegrees Celsius.
    pub detector_temperature: i32,
    /// Board temperature, millidegrees Celsius.
    pub board_temperature: i32,
}

/// Counters since power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks announced.
    pub blocks_announced: u64,
    /// Payload bytes announced.
    pub bytes_announced: u64,
    /// Blocks refused because retention was full.
    pub dropped_overflow: u64,
    /// Payload bytes refused because retention was full.
    pub dropped_overflow_bytes: u64,
    /// Blocks lost to a high error rate.
    pub dropped_qber: u64,
    /// Blocks lost at this end in reconciliation.
    pub dropped_reconciliation: u64,
    /// Blocks lost to the unauthenticated classical channel.
    pub dropped_authentication: u64,
    /// DMA accesses that failed.
    pub dma_errors: u64,
}

/// Writes telemetry, counters and retention between an odd and an even sequence number (TEL-1).
#[derive(Debug, Default)]
pub(crate) struct TelemetryWriter {
    sequence: u32,
    last: Option<Values>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Values {
    telemetry: Telemetry,
    counters: Counters,
    retained_blocks: u32,
    retained_bytes: u64,
}

impl TelemetryWriter {
    pub(crate) fn write(
        &mut self,
        registers: &mut Registers,
        bus: &mut dyn Bus,
        (telemetry, counters): (Telemetry, Counters),
        (retained_blocks, retained_bytes): (u32, u64),
    ) {
        let values = Values { telemetry, counters, retained_blocks, retained_bytes };
        if self.last == Some(values) {
            return;
        }
        self.last = Some(values);
        self.sequence = self.sequence.wrapping_add(1);
        registers.set(bus, &reg::TELEMETRY_SEQUENCE, u64::from(self.sequence));
        for (register, value) in [
            (&reg::QBER, u64::from(telemetry.qber_ppm)),
            (&reg::VISIBILITY, u64::from(telemetry.visibility_ppm)),
            (&reg::DETECTOR_TEMPERATURE, u64::from(telemetry.detector_temperature.cast_unsigned())),
            (&reg::SECRET_KEY_RATE, telemetry.secret_key_rate),
            (&reg::SIFTED_KEY_RATE, telemetry.sifted_key_rate),
            (&reg::BOARD_TEMPERATURE, u64::from(telemetry.board_temperature.cast_unsigned())),
            (&reg::BLOCKS_ANNOUNCED, counters.blocks_announced),
            (&reg::BYTES_ANNOUNCED, counters.bytes_announced),
            (&reg::DROPPED_OVERFLOW, counters.dropped_overflow),
            (&reg::DROPPED_OVERFLOW_BYTES, counters.dropped_overflow_bytes),
            (&reg::DROPPED_QBER, counters.dropped_qber),
            (&reg::DROPPED_RECONCILIATION, counters.dropped_reconciliation),
            (&reg::DROPPED_AUTHENTICATION, counters.dropped_authentication),
            (&reg::DMA_ERRORS, counters.dma_errors),
            (&reg::RETAINED_BLOCKS, u64::from(retained_blocks)),
            (&reg::RETAINED_BYTES, retained_bytes),
        ] {
            registers.set(bus, register, value);
        }
        self.sequence = self.sequence.wrapping_add(1);
        registers.set(bus, &reg::TELEMETRY_SEQUENCE, u64::from(self.sequence));
    }

    /// Writes everything next time: the registers were overwritten as a whole.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}
