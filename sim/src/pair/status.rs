//! The line of JSON that tells each second how both cards are.

use std::io::{self, Write};

use serde::Serialize;

use crate::card::Card;
use crate::link::{CardPair, End};

#[derive(Serialize)]
struct Status {
    seconds: f64,
    cards: [CardStatus; 2],
}

#[derive(Serialize)]
struct CardStatus {
    card: &'static str,
    connected: bool,
    state: String,
    fault: String,
    link: String,
    session: u64,
    /// bit/s.
    secret_key_rate: u64,
    sifted_key_rate: u64,
    qber_ppm: u32,
    visibility_ppm: u32,
    blocks_announced: u64,
    bytes_announced: u64,
    retained_blocks: u32,
    retained_bytes: u64,
    dropped_overflow: u64,
    dropped_overflow_bytes: u64,
    dropped_qber: u64,
    dropped_reconciliation: u64,
    dropped_authentication: u64,
    dma_errors: u64,
}

impl CardStatus {
    fn of(name: &'static str, connected: bool, card: &Card) -> Self {
        let (telemetry, counters) = (card.telemetry(), card.counters());
        let (retained_blocks, retained_bytes) = card.retained();
        Self {
            card: name,
            connected,
            state: format!("{:?}", card.state()),
            fault: format!("{:?}", card.fault()),
            link: format!("{:?}", card.link_state()),
            session: card.session(),
            secret_key_rate: telemetry.secret_key_rate,
            sifted_key_rate: telemetry.sifted_key_rate,
            qber_ppm: telemetry.qber_ppm,
            visibility_ppm: telemetry.visibility_ppm,
            blocks_announced: counters.blocks_announced,
            bytes_announced: counters.bytes_announced,
            retained_blocks,
            retained_bytes,
            dropped_overflow: counters.dropped_overflow,
            dropped_overflow_bytes: counters.dropped_overflow_bytes,
            dropped_qber: counters.dropped_qber,
            dropped_reconciliation: counters.dropped_reconciliation,
            dropped_authentication: counters.dropped_authentication,
            dma_errors: counters.dma_errors,
        }
    }
}

/// Prints the line. The pair goes on when nobody reads it.
pub(crate) fn print(
    out: &mut dyn Write,
    pair: &mut CardPair,
    seconds: f64,
    connected: [bool; 2],
) -> io::Result<()> {
    let [a_connected, b_connected] = connected;
    let cards = [
        CardStatus::of("a", a_connected, pair.card(End::A)),
        CardStatus::of("b", b_connected, pair.card(End::B)),
    ];
    serde_json::to_writer(&mut *out, &Status { seconds, cards })?;
    writeln!(out)?;
    out.flush()
}
