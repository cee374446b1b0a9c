//! Two cards on the link: names, octets, rates, sessions, outages.

use std::collections::BTreeMap;

use qkd_contract::command::Opcode;
use qkd_contract::layout::event;
use qkd_contract::limits::BLOCK_FLUSH_MS;
use qkd_contract::state::{LinkState, State};

use crate::card::tests::host::Host;
use crate::card::{Name, Trouble};
use crate::link::{CardPair, End, Optics, PairOptions, Weather};
use crate::plan::{Deed, Fault, Kind, Plan, Where};

const SECOND: u64 = 1_000_000;

/// A pair with a host at each end, in virtual time.
pub(super) struct Ends {
    pub(super) pair: CardPair,
    pub(super) hosts: [Host; 2],
    now: u64,
}

impl Ends {
    pub(super) fn new(options: &PairOptions, plan: Plan) -> Self {
        let hosts = [Host::new(options.block_max), Host::new(options.block_max)];
        Self { pair: CardPair::in_memory(options, plan).unwrap(), hosts, now: 0 }
    }

    /// Lets `duration` microseconds pass in steps of `stride`.
    pub(super) fn pass(&mut self, duration: u64, stride: u64) {
        let end = self.now + duration;
        while self.now < end {
            self.now = (self.now + stride).min(end);
            self.pair.advance(self.now);
            for (end, host) in End::BOTH.into_iter().zip(&mut self.hosts) {
                host.now = self.now;
                self.pair.card(end).step(host);
            }
        }
    }

    pub(super) fn start(&mut self) {
        for (end, host) in End::BOTH.into_iter().zip(&mut self.hosts) {
            host.start(self.pair.card(end));
            self.now = self.now.max(host.now);
        }
    }

    pub(super) fn host(&mut self, end: End) -> &mut Host {
        let [a, b] = &mut self.hosts;
        match end {
            End::A => a,
            End::B => b,
        }
    }

    fn blocks(&mut self, end: End) -> BTreeMap<Name, Vec<u8>> {
        let host = self.host(end);
        let taken = std::iter::from_fn(|| host.take());
        taken.filter(|got| got.header.is_some()).map(|got| (got.name(), got.payload)).collect()
    }

    fn both_blocks(&mut self) -> [BTreeMap<Name, Vec<u8>>; 2] {
        End::BOTH.map(|end| self.blocks(end))
    }
}

fn slow(seed: u64) -> PairOptions {
    PairOptions {
        loss_db: Optics::RECORD.loss_for(20_000.0).unwrap(),
        key_seed: Some([seed.to_le_bytes()[0]; 32]),
        ..PairOptions::calm(seed)
    }
}

fn fault(at: u64, end: Where, deed: Deed) -> Plan {
    Plan::named(vec![Fault { at, end, deed }])
}

#[test]
fn both_ends_have_the_same_octets_under_the_same_names() {
    let mut ends = Ends::new(&slow(1), Plan::none());
    ends.pass(SECOND / 2, 1_000);
    ends.start();
    let mut delivered = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..50 {
        ends.pass(SECOND / 10, 1_000);
        for (all, new) in delivered.iter_mut().zip(ends.both_blocks()) {
            all.extend(new);
        }
    }
    let [a, b] = delivered;
    assert!(a.len() > 20);
    assert_eq!(a, b);
    let sequences: Vec<u64> = a.keys().map(|name| name.sequence).collect();
    assert_eq!(sequences, (0..a.len() as u64).collect::<Vec<_>>());
    assert!(a.values().all(|octets| octets.iter().any(|&octet| octet != 0)));
}

#[test]
fn a_run_does_not_depend_on_how_time_is_cut() {
    let retained = |stride| {
        let mut ends = Ends::new(&PairOptions { weather: Weather::Stormy, ..slow(2) }, Plan::none());
        // The cards boot at the same steps; from then on only the link acts.
        ends.pass(2 * SECOND, 1_000);
        ends.pass(300 * SECOND, stride);
        let counters = ends.pair.card(End::A).counters();
        let telemetry = ends.pair.card(End::A).telemetry();
        (counters, telemetry, ends.pair.card(End::A).session())
    };
    assert_eq!(retained(1_000_000), retained(33_333));
}

#[test]
fn the_rate_is_met_over_time() {
    for (rate, seconds, stride) in [(1e3, 1_200, 100_000), (1e6, 600, 100_000), (115.8e6, 20, 20_000)] {
        let options = PairOptions {
            loss_db: Optics::RECORD.loss_for(rate).unwrap(),
            retention_bytes: 1 << 17,
            ..PairOptions::calm(3)
        };
        let mut ends = Ends::new(&options, Plan::none());
        ends.pass(2 * SECOND, 10_000);
        let before = ends.pair.card(End::B).counters();
        ends.pass(seconds * SECOND, stride);
        let after = ends.pair.card(End::B).counters();
        let bytes =
            |counters: crate::card::Counters| counters.bytes_announced + counters.dropped_overflow_bytes;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let measured = (bytes(after) - bytes(before)) as f64 * 8.0 / seconds as f64;
        assert!((measured / rate - 1.0).abs() < 0.04, "{rate}: {measured}");
    }
}

#[test]
fn no_octet_waits_longer_for_its_block_than_the_contract_allows() {
    let options = PairOptions { loss_db: Optics::RECORD.loss_for(300.0).unwrap(), ..PairOptions::calm(4) };
    let mut ends = Ends::new(&options, Plan::none());
    ends.pass(2 * SECOND, 1_000);
    let mut announced = ends.pair.card(End::A).counters().blocks_announced;
    for _ in 0..20 {
        ends.pass(BLOCK_FLUSH_MS * 1_000, 1_000);
        let now = ends.pair.card(End::A).counters().blocks_announced;
        assert!(now > announced);
        announced = now;
    }
}

#[test]
fn a_block_lost_at_one_end_is_only_missing_there() {
    let lose = Kind::LoseBlock.deed(2, 0);
    let mut ends = Ends::new(&slow(5), fault(SECOND, Where::B, lose));
    ends.pass(SECOND / 2, 1_000);
    ends.start();
    ends.pass(SECOND, 1_000);
    let [a, b] = ends.both_blocks();
    let missing: Vec<_> = a.keys().filter(|name| !b.contains_key(name)).collect();
    assert_eq!(missing.len(), 2);
    assert!(b.iter().all(|(name, octets)| a.get(name) == Some(octets)));
    assert_eq!(ends.pair.card(End::B).counters().dropped_reconciliation, 2);
    assert_eq!(ends.pair.card(End::A).counters().dropped_reconciliation, 0);
}

#[test]
fn an_outage_ends_the_session_and_a_realignment_does_not() {
    let outage = Kind::Outage.deed(1, SECOND);
    let realign = Kind::Realign.deed(1, SECOND);
    for (deed, state, ends_session) in [(outage, LinkState::Off, true), (realign, LinkState::Aligning, false)]
    {
        let mut ends = Ends::new(&slow(6), fault(2 * SECOND, Where::Both, deed));
        ends.pass(2 * SECOND - 1_000, 1_000);
        let session = ends.pair.card(End::A).session();
        assert_ne!(session, 0);
        ends.pass(SECOND / 2, 1_000);
        assert_eq!(ends.pair.card(End::B).link_state(), state);
        assert_eq!(ends.pair.card(End::B).session() == 0, ends_session);
        ends.pass(3 * SECOND, 1_000);
        assert_eq!(ends.pair.card(End::B).link_state(), LinkState::Distilling);
        let later = ends.pair.card(End::A).session();
        assert_eq!(later, if ends_session { session + 1 } else { session });
    }
}

#[test]
fn too_many_errors_give_no_key_and_are_counted_at_both_ends() {
    let qber = Kind::Qber.deed(1, 5 * SECOND);
    let mut ends = Ends::new(&slow(7), fault(2 * SECOND, Where::Both, qber));
    ends.pass(2 * SECOND, 1_000);
    let before = ends.pair.card(End::A).counters().bytes_announced;
    ends.pass(4 * SECOND, 1_000);
    let telemetry = ends.pair.card(End::A).telemetry();
    assert!((100_000..200_000).contains(&telemetry.qber_ppm), "{telemetry:?}");
    assert_eq!(telemetry.secret_key_rate, 0);
    let flushed = ends.pair.card(End::A).counters().bytes_announced - before;
    assert!(flushed <= 4096, "{flushed}");
    assert!(End::BOTH.map(|end| ends.pair.card(end).counters().dropped_qber).iter().all(|&n| n > 4));
    ends.pass(5 * SECOND, 1_000);
    assert!(ends.pair.card(End::A).counters().bytes_announced > before + 5_000);
}

#[test]
fn authentication_key_that_runs_out_ends_the_session_and_comes_back() {
    let dry = Kind::NoAuthenticationKey.deed(1, SECOND);
    let mut ends = Ends::new(&slow(8), fault(2 * SECOND, Where::Both, dry));
    ends.pass(2 * SECOND + 10_000, 1_000);
    assert_eq!(ends.pair.card(End::A).link_state(), LinkState::NoAuthenticationKey);
    assert_eq!(ends.pair.card(End::A).session(), 0);
    assert_eq!(ends.pair.card(End::B).counters().dropped_authentication, 1);
    ends.pass(3 * SECOND, 1_000);
    assert_eq!(ends.pair.card(End::A).session(), 2);
}

#[test]
fn a_reset_at_one_end_ends_the_session_at_both_and_the_next_number_is_new() {
    let mut ends = Ends::new(&slow(9), Plan::none());
    ends.pass(2 * SECOND, 1_000);
    assert_eq!(ends.pair.card(End::B).session(), 1);
    let [a, _] = &mut ends.hosts;
    a.command(ends.pair.card(End::A), Opcode::Reset, 0);
    ends.pass(10_000, 1_000);
    assert_eq!(ends.pair.card(End::B).session(), 0);
    ends.pass(3 * SECOND, 1_000);
    assert_eq!(End::BOTH.map(|end| ends.pair.card(end).session()), [2, 2]);
}

#[test]
fn a_zeroized_card_keeps_the_link_down_until_it_is_reset() {
    let mut ends = Ends::new(&slow(10), Plan::none());
    ends.pass(2 * SECOND, 1_000);
    let [a, _] = &mut ends.hosts;
    a.command(ends.pair.card(End::A), Opcode::Zeroize, 0);
    ends.pass(5 * SECOND, 1_000);
    assert_eq!(ends.pair.card(End::B).link_state(), LinkState::Off);
    assert!(ends.pair.card(End::B).retained().0 > 0, "the other end keeps its own");
    let [a, _] = &mut ends.hosts;
    a.command(ends.pair.card(End::A), Opcode::Reset, 0);
    ends.pass(3 * SECOND, 1_000);
    assert_eq!(End::BOTH.map(|end| ends.pair.card(end).session()), [2, 2]);
}

#[test]
fn a_function_reset_does_not_disturb_the_link() {
    let mut ends = Ends::new(&slow(11), Plan::none());
    ends.pass(2 * SECOND, 1_000);
    let [a, _] = &mut ends.hosts;
    ends.pair.card(End::A).function_reset(a);
    ends.pass(SECOND, 1_000);
    assert_eq!(End::BOTH.map(|end| ends.pair.card(end).session()), [1, 1]);
    let [a, b] = End::BOTH.map(|end| ends.pair.card(end).counters().blocks_announced);
    assert_eq!(a, b, "no block was missed");
}

#[test]
fn link_states_follow_each_other_as_the_contract_says() {
    let options = PairOptions { weather: Weather::Stormy, ..slow(12) };
    let mut ends = Ends::new(&options, Plan::none().with_random(12, 20.0));
    ends.pass(SECOND, 1_000);
    let mut before = ends.pair.card(End::A).link_state();
    for _ in 0..60_000 {
        ends.pass(5_000, 1_000);
        let now = ends.pair.card(End::A).link_state();
        let follows = match now {
            _ if now == before => true,
            LinkState::Off | LinkState::Initialising | LinkState::Fault => true,
            LinkState::Aligning => before != LinkState::Off && before != LinkState::Fault,
            LinkState::Distilling => before == LinkState::Aligning,
            LinkState::NoAuthenticationKey => {
                matches!(before, LinkState::Aligning | LinkState::Distilling)
            }
        };
        assert!(follows, "{before:?} to {now:?}");
        let session = ends.pair.card(End::A).session();
        assert!(session == 0 || matches!(now, LinkState::Distilling | LinkState::Aligning), "{now:?}");
        before = now;
    }
}

#[test]
fn a_card_that_is_frozen_loses_no_key() {
    let freeze = Deed::Card(Trouble::Freeze(2 * SECOND));
    let mut ends = Ends::new(&slow(13), fault(2 * SECOND, Where::A, freeze));
    ends.pass(SECOND, 1_000);
    ends.start();
    ends.pass(2 * SECOND, 1_000);
    let frozen = ends.blocks(End::A).len();
    ends.pass(2 * SECOND, 1_000);
    assert!(ends.blocks(End::A).len() > frozen / 2);
    assert_eq!(ends.pair.card(End::A).state(), State::Running);
    let host = ends.host(End::A);
    assert!(std::iter::from_fn(|| host.take()).all(|got| got.kind() != event::SESSION));
}
