//! The formulas against what is known of real links.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::link::weather::Drift;
use crate::link::{LOSS_MAX_DB, Optics, Weather};

const OPTICS: Optics = Optics::RECORD;

fn at(loss_db: f64) -> crate::link::Yield {
    OPTICS.at(loss_db, OPTICS.visibility)
}

#[test]
fn more_loss_never_gives_more_key_or_fewer_errors() {
    let steps: Vec<f64> = (0..600).map(|tenth| f64::from(tenth) / 10.0).collect();
    for pair in steps.windows(2) {
        let (near, far) = (at(pair[0]), at(pair[1]));
        assert!(far.secret_bit_s <= near.secret_bit_s, "{} dB", pair[1]);
        assert!(far.sifted_bit_s < near.sifted_bit_s, "{} dB", pair[1]);
        assert!(far.qber >= near.qber, "{} dB", pair[1]);
    }
}

#[test]
fn ten_kilometres_give_the_published_record() {
    let record = at(2.2).secret_bit_s;
    assert!((record / 115.8e6 - 1.0).abs() < 0.02, "{record}");
}

#[test]
fn key_ends_where_the_record_system_ended() {
    assert!(at(55.0).secret_bit_s > 100.0);
    assert!(at(58.0).secret_bit_s <= 0.0);
    assert!(at(LOSS_MAX_DB).qber < 0.5);
}

#[test]
fn error_rates_stay_in_the_bands_that_are_seen() {
    for loss in [0.0, 10.0, 30.0] {
        assert!((0.003..0.01).contains(&at(loss).qber), "{loss} dB: {}", at(loss).qber);
    }
    let far = at(OPTICS.loss_for(1_000.0).unwrap());
    assert!((0.01..0.06).contains(&far.qber), "{}", far.qber);
    assert!(OPTICS.at(10.0, 0.75).secret_bit_s <= 0.0, "12.5 % of errors leave no key");
}

#[test]
fn the_loss_for_a_rate_gives_that_rate() {
    for rate in [1e3, 1e4, 1e6, 10e6, 115.8e6] {
        let loss = OPTICS.loss_for(rate).unwrap();
        assert!((OPTICS.usually(loss).secret_bit_s / rate - 1.0).abs() < 1e-3, "{rate}");
    }
    for impossible in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert_eq!(OPTICS.loss_for(impossible), None);
    }
}

#[test]
fn a_day_of_weather_stays_in_the_published_bands() {
    let mut drift = Drift::new(ChaCha8Rng::seed_from_u64(1), Weather::Field);
    let mut worst: f64 = 1.0;
    let mut stops = 0;
    for tick in 0..864_000_u64 {
        if drift.advance(0.1).is_some() {
            stops += 1;
            drift.realigned();
        }
        worst = worst.min(drift.visibility(OPTICS.visibility));
        assert!(drift.loss_change(tick * 100_000).abs() < 0.1);
    }
    assert!((0.94..0.99).contains(&worst), "{worst}");
    assert!((8..60).contains(&stops), "about once an hour: {stops}");
    let mut calm = Drift::new(ChaCha8Rng::seed_from_u64(1), Weather::Calm);
    assert!((0..100_000).all(|_| calm.advance(0.1).is_none()));
}
