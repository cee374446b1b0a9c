//! The kinds of trouble, and in which states of the protocol they have struck.

use std::collections::BTreeMap;

use super::states::{State, States};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault { $($(#[$doc])* $name,)+ }
        impl Fault {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

faults! {
    /// A message does not come; no real link does that without breaking.
    MessageLost,
    /// A message comes twice.
    MessageTwice,
    /// A message overtakes others.
    MessagesReordered,
    /// A message comes over a connection that was made after it was sent.
    MessageOfBefore,
    /// Messages to one end are held up for a while.
    MessagesLate,
    ConnectionCut,
    /// The connection is dead, and one end notices late.
    Silence,
    /// The process is killed between two batches.
    Crash,
    /// The power fails before a batch is flushed: it is gone whole.
    CrashBeforeTheFlush,
    /// A batch is on the disk, and the cell does not show it.
    CrashBeforeTheCell,
    /// The cell shows a batch, and nothing of it was done.
    CrashBeforeTheActions,
    /// Some of what a batch wanted was done.
    CrashAmongTheActions,
    /// A commit fails: the core is dropped and made anew from the ledger.
    DiskFull,
    Reboot,
    /// A reboot after which wall time is ahead.
    ClockForward,
    /// A reboot after which wall time has gone back.
    ClockBack,
    /// Host and card lose their power.
    PowerLoss,
    CardReset,
    NewSession,
    BlockLost,
    BlockDamaged,
    /// The card delivers a block twice.
    BlockTwice,
    /// A block is lost at both ends.
    Gap,
    Overflow,
    LedgerLost,
    LedgerRolledBack,
    /// Both ledgers at once are lost or rolled back.
    BothLedgers,
    KmsDown,
    KmsSlow,
    /// The KMS takes a chunk and answers with an error: it comes again.
    ErrorAfterAcceptance,
    /// The KMS refuses a stream's key until its next get-key.
    KmsRefuses,
    LinkDown,
    /// An ID is opened again, whatever became of it.
    IdReused,
    /// A KMS opens, starts or closes a stream that is not its own.
    WrongKms,
    /// get-key names an index.
    IndexGiven,
    Close,
    CloseTwice,
    /// Key comes to the end of its time to live.
    Expiry,
    /// The operator has every key at one end destroyed.
    Zeroize,
}

const COLUMNS: usize = 2 * State::ALL.len();

/// How often each fault has struck in each state, of the end that it struck and of the other.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    cells: Vec<u64>,
    times: Vec<u64>,
}

impl Default for Matrix {
    fn default() -> Self {
        Self { cells: vec![0; Fault::ALL.len() * COLUMNS], times: vec![0; Fault::ALL.len()] }
    }
}

impl Matrix {
    pub(crate) fn strikes(&mut self, fault: Fault, here: States, there: States) {
        self.times[fault as usize] += 1;
        for (half, states) in [here, there].into_iter().enumerate() {
            for state in State::ALL.into_iter().filter(|state| states.holds(*state)) {
                self.cells[fault as usize * COLUMNS + half * State::ALL.len() + state as usize] += 1;
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.cells, &other.cells), (&mut self.times, &other.times)] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
    }

    pub(crate) fn times(&self, fault: Fault) -> u64 {
        self.times[fault as usize]
    }

    fn cell(&self, fault: Fault, half: usize, state: State) -> u64 {
        self.cells[fault as usize * COLUMNS + half * State::ALL.len() + state as usize]
    }

    /// Both tables, as text. A pair that cannot be is a dash.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for half in 0..2 {
            let whose = ["the end that is struck is in it", "the other end is in it"][half];
            text += &format!("\nfaults struck by state, where {whose} (thousands: k)\n");
            for (at, state) in State::ALL.into_iter().enumerate() {
                text += &format!("  {}: {state:?}", letter(at));
            }
            text += &format!("\n{:22}", "");
            text.extend((0..State::ALL.len()).map(|at| format!("{:>6}", letter(at))));
            for fault in Fault::ALL {
                text += &format!("\n{:22}", format!("{fault:?}"));
                for state in State::ALL {
                    let times = self.cell(*fault, half, state);
                    text += &match (times, impossible(*fault, half == 0, state)) {
                        (0, Some(_)) => format!("{:>6}", "-"),
                        (0..10_000, _) => format!("{times:>6}"),
                        _ => format!("{:>6}", format!("{}k", times / 1_000)),
                    };
                }
            }
            text.push('\n');
        }
        text + &Self::reasons()
    }

    /// Why pairs that are dashes cannot be.
    fn reasons() -> String {
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for here in [true, false] {
            for fault in Fault::ALL {
                for state in State::ALL {
                    if let Some(why) = impossible(*fault, here, state) {
                        let whose = if here { "" } else { " at the other end" };
                        reasons.entry(why).or_default().push(format!("{fault:?} in {state:?}{whose}"));
                    }
                }
            }
        }
        let lines = reasons.iter().map(|(why, pairs)| format!("cannot be, {why}: {}\n", pairs.join(", ")));
        lines.collect()
    }

    /// Pairs that can be and were not struck.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for half in 0..2 {
            for fault in Fault::ALL {
                for state in State::ALL {
                    if self.cell(*fault, half, state) == 0 && impossible(*fault, half == 0, state).is_none() {
                        let whose = ["", " at the other end"][half];
                        missing.push(format!("{fault:?} in {state:?}{whose}"));
                    }
                }
            }
        }
        missing
    }
}

fn letter(at: usize) -> char {
    char::from(b'A' + at as u8)
}

/// Why a fault cannot strike in a state of the end that it strikes (`here`) or of the other.
fn impossible(fault: Fault, here: bool, state: State) -> Option<&'static str> {
    use Fault as F;
    use State as S;
    let of_a_message = matches!(fault, F::MessageLost | F::MessageTwice | F::MessagesReordered);
    let of_a_connection = matches!(fault, F::MessageOfBefore | F::ConnectionCut | F::Silence);
    let without_a_daemon = matches!(
        fault,
        F::CardReset
            | F::NewSession
            | F::BlockLost
            | F::Gap
            | F::Overflow
            | F::LedgerLost
            | F::LedgerRolledBack
            | F::BothLedgers
    );
    match (fault, state) {
        (_, S::Down) if here && !without_a_daemon => Some("it strikes a daemon that runs"),
        (_, S::NotConnected) if here && of_a_message => Some("who has no connection hears nothing"),
        (_, S::Down | S::NotConnected) if of_a_connection => {
            Some("it strikes a connection that stands, which takes two daemons")
        }
        (F::Expiry, S::Idle) if here => Some("what expires was granted to a stream that takes key"),
        (F::Expiry, S::BatchOpen) if here => Some("it is seen when the batch that counts it is committed"),
        _ => None,
    }
}
