//! The driver on the simulator's cards in virtual time, under every fault of the plan: what comes out is always the
//! octets that the block's name stands for, in order, and delivery goes on after every fault that can be mended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::ValueEnum;
use qkd_driver::backing::model::ModelBacking;
use qkd_driver::{BlockName, Card, CardEvent, Fault, TakeError};
use qkd_sim::link::{End, PairOptions};
use qkd_sim::plan::{Fault as Planned, Kind, Plan, Where};
use qkd_tests::model::{SharedPair, SimulatedCard};
use qkd_tests::test_key::test_key;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// Seeds per kind of fault: with all kinds, thousands of lives.
fn seeds() -> u64 {
    std::env::var("QKD_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// One end: its driver and what it has seen.
struct Side {
    end: End,
    /// `None` after the card was gone: it is opened again, as an operator or systemd would.
    card: Option<Card<ModelBacking<SimulatedCard>>>,
    /// Everything taken, with its length: a block that comes again must be the same.
    taken: BTreeMap<BlockName, usize>,
    acknowledged: BTreeSet<BlockName>,
    /// Newest since the last start.
    last: Option<BlockName>,
    faults: Vec<&'static str>,
    lost: usize,
}

impl Side {
    fn new(end: End) -> Self {
        Self {
            end,
            card: None,
            taken: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            last: None,
            faults: Vec::new(),
            lost: 0,
        }
    }

    /// A turn of the host program at this end.
    fn turn(&mut self, pair: &SharedPair) {
        let Some(card) = self.card.as_mut() else {
            match pair.open(self.end) {
                Ok(card) => self.card = Some(card),
                // The card may be booting, gone or broken for now; time must pass until it is asked again.
                Err(_) => return pair.clock().advance_us(50 * MS),
            }
            return self.start(pair);
        };
        match drain(card, &mut self.taken, &mut self.acknowledged, &mut self.last, &mut self.lost) {
            Ok(()) => {}
            Err(fault) => self.recover(fault, pair),
        }
    }

    fn start(&mut self, pair: &SharedPair) {
        self.last = None;
        if let Some(card) = self.card.as_mut()
            && let Err(fault) = card.start()
        {
            self.recover(fault, pair);
        }
    }

    fn recover(&mut self, fault: Fault, pair: &SharedPair) {
        self.faults.push(fault.cause());
        let recovered = self.card.as_mut().is_some_and(|card| card.recover().is_ok());
        if recovered {
            self.start(pair);
        } else {
            self.card = None;
            pair.clock().advance_us(50 * MS);
        }
    }
}

fn drain(
    card: &mut Card<ModelBacking<SimulatedCard>>,
    taken: &mut BTreeMap<BlockName, usize>,
    acknowledged: &mut BTreeSet<BlockName>,
    last: &mut Option<BlockName>,
    lost: &mut usize,
) -> Result<(), Fault> {
    card.wait(Duration::from_millis(20), None)?;
    while let Some(event) = card.next_event()? {
        let CardEvent::Block(block) = event else { continue };
        let (name, length) = (block.name(), block.length());
        let mut key = vec![0xEE; length];
        match block.take(&mut key) {
            Ok(()) => {}
            Err(TakeError::Lost { .. }) => {
                assert!(key.iter().all(|&octet| octet == 0), "a lost block leaves octets behind");
                *lost += 1;
                continue;
            }
            Err(TakeError::Fault(fault)) => return Err(fault),
            Err(e) => panic!("{e}"),
        }
        assert!(last.is_none_or(|last| last < name), "block {name} after {last:?}");
        *last = Some(name);
        assert!(!acknowledged.contains(&name), "block {name} came again although it was acknowledged");
        assert_eq!(key, test_key(name, length), "block {name} holds other octets than its name stands for");
        let before = taken.insert(name, length);
        assert!(before.is_none_or(|before| before == length), "block {name} came again with another length");
        // Every third stays with the card, to come again after a reset.
        if name.sequence % 3 != 0 && card.acknowledge(name, name)? {
            acknowledged.insert(name);
        }
    }
    card.health()?;
    Ok(())
}

/// One life of both ends under a plan, `until` in microseconds.
fn live(seed: u64, plan: Plan, until: u64) -> (SharedPair, [Side; 2]) {
    let options = PairOptions { block_max: 4096, retention_blocks: 64, ..PairOptions::calm(seed) };
    let pair = SharedPair::new(&options, plan);
    let mut sides = End::BOTH.map(Side::new);
    while pair.clock().now_us() < until {
        for side in &mut sides {
            side.turn(&pair);
        }
    }
    (pair, sides)
}

/// When the planted fault strikes.
const STRIKE: u64 = 3 * SECOND;
/// How long a life is.
const LIFE: u64 = 7 * SECOND;

fn planted(kind: Kind, seed: u64) -> Planned {
    let end = [Where::A, Where::B, Where::Both][usize::try_from(seed % 3).unwrap()];
    Planned {
        at: STRIKE + seed % 7 * 50 * MS,
        end,
        deed: kind.deed(1 + u32::try_from(seed % 2).unwrap(), SECOND / 2),
    }
}

/// What the lives of one kind came upon.
#[derive(Default)]
struct Findings {
    causes: BTreeMap<&'static str, usize>,
    lost: usize,
}

fn judge(kind: Kind, seed: u64, findings: &mut Findings) {
    let what = format!("{kind:?} with seed {seed}");
    let plan = Plan::named(vec![planted(kind, seed)]).with_random(seed, 6.0);
    let (_, sides) = live(seed, plan, LIFE);
    for side in &sides {
        assert!(!side.taken.is_empty(), "{what}: nothing was ever delivered at {:?}", side.end);
        for cause in &side.faults {
            *findings.causes.entry(cause).or_default() += 1;
        }
        findings.lost += side.lost;
    }
    let [a, b] = &sides;
    let both: Vec<_> =
        a.taken.iter().filter_map(|(name, at_a)| Some((name, at_a, b.taken.get(name)?))).collect();
    assert!(!both.is_empty(), "{what}: the two ends have no block in common");
    assert!(both.iter().all(|(_, at_a, at_b)| at_a == at_b), "{what}: a block has two lengths");
}

#[test]
fn no_fault_of_the_plan_makes_the_driver_give_out_a_wrong_block() {
    let lives: Vec<(Kind, u64)> =
        Kind::value_variants().iter().flat_map(|&kind| (0..seeds()).map(move |seed| (kind, seed))).collect();
    let found = std::thread::scope(|scope| {
        let half = |part: usize| {
            let mine: Vec<_> = lives.iter().skip(part).step_by(2).copied().collect();
            scope.spawn(move || {
                let mut findings = Findings::default();
                mine.into_iter().for_each(|(kind, seed)| judge(kind, seed, &mut findings));
                findings
            })
        };
        [half(0), half(1)].map(|worker| worker.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    });
    assert!(found.iter().any(|part| part.lost > 0), "no block was ever lost by a wrong CRC");
    for cause in [
        "block_out_of_order",
        "card_fault",
        "event_corrupt",
        "foreign_session",
        "gone",
        "length_beyond_slot",
        "timeout",
    ] {
        assert!(found.iter().any(|part| part.causes.contains_key(cause)), "no life ever came upon {cause}");
    }
}

#[test]
fn the_same_seed_gives_the_same_life() {
    let life = |seed| {
        let (pair, sides) = live(seed, Plan::none().with_random(seed, 30.0), LIFE);
        (pair.clock().now_us(), sides.map(|side| (side.taken, side.faults, side.lost)))
    };
    assert_eq!(life(7), life(7));
}

#[test]
fn blocks_flow_again_after_every_fault_that_can_be_mended() {
    for (&kind, seed) in Kind::RECOVERABLE.iter().flat_map(|kind| (0..3).map(move |seed| (kind, seed))) {
        let struck = planted(kind, seed);
        let newest = |until| {
            let (_, sides) = live(seed, Plan::named(vec![struck]), until);
            sides.map(|side| side.taken.last_key_value().map(|(name, _)| *name))
        };
        let (before, after) = (newest(struck.at), newest(struck.at + 15 * SECOND));
        for (before, after) in before.iter().zip(after) {
            assert!(after > *before, "{kind:?} with seed {seed}: nothing new after {before:?}");
        }
    }
}
