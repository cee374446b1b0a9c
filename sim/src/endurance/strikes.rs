//! Carries out the faults of a round, each at its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Ledger};
use super::plan::{Deed, Strike, lasts};
use crate::stage::cast::{Cast, Script};
use crate::stage::{Places, StageError};

/// How far a strike has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ahead,
    On { until: Instant },
    Over,
}

/// Both daemons, and what was done.
pub(super) struct Strikes {
    pub(super) daemons: [Daemon; 2],
    /// Faults by kind that struck.
    pub(super) struck: BTreeMap<String, u64>,
    /// Faults that found nothing to strike: a daemon that was down already.
    pub(super) missed: u64,
    /// What a daemon did that it must not.
    pub(super) complaints: Vec<String>,
    begun: Instant,
    under_way: Vec<(Strike, Stage)>,
}

impl Strikes {
    pub(super) fn new() -> Self {
        Self {
            daemons: [Daemon::new(0), Daemon::new(1)],
            struck: BTreeMap::new(),
            missed: 0,
            complaints: Vec::new(),
            begun: Instant::now(),
            under_way: Vec::new(),
        }
    }

    /// How often a daemon was killed.
    pub(super) fn kills(&self) -> u64 {
        self.daemons.iter().map(|daemon| daemon.kills).sum()
    }

    /// Begins a round.
    pub(super) fn begin(&mut self, strikes: Vec<Strike>) {
        self.begun = Instant::now();
        self.under_way = strikes.into_iter().map(|strike| (strike, Stage::Ahead)).collect();
    }

    /// True if every fault is over and both daemons are ready.
    pub(super) fn healed(&self) -> bool {
        self.under_way.iter().all(|(_, stage)| *stage == Stage::Over)
            && self.daemons.iter().all(Daemon::whole)
    }

    /// Does what is due, and gives what is to be told.
    pub(super) async fn look(
        &mut self,
        cast: &mut Cast,
        script: &Script,
        places: &Places,
    ) -> Result<Vec<String>, StageError> {
        let mut said = Vec::new();
        for index in 0..self.under_way.len() {
            let Some((strike, stage)) = self.under_way.get(index).copied() else { continue };
            let now = Instant::now();
            let next = match stage {
                Stage::Ahead if now >= self.begun + strike.at => {
                    if self.strike(strike, cast).await? {
                        *self.struck.entry(strike.deed.kind()).or_default() += 1;
                        said.push(format!("{}, {} ms", strike.deed, strike.lasts.as_millis()));
                    } else {
                        self.missed += 1;
                    }
                    Stage::On { until: now + strike.lasts }
                }
                Stage::On { until } if now >= until => {
                    if let Some(proxy) = &cast.proxy {
                        match strike.deed {
                            Deed::CutLink => proxy.cut(false),
                            Deed::SlowLink(..) => proxy.slow(None),
                            _ => {}
                        }
                    }
                    Stage::Over
                }
                stage => stage,
            };
            if let Some((_, stage)) = self.under_way.get_mut(index) {
                *stage = next;
            }
        }
        for daemon in &mut self.daemons {
            self.complaints.extend(daemon.look(cast, script, places)?);
        }
        Ok(said)
    }

    /// Strikes. False: nothing was there to be struck.
    async fn strike(&mut self, strike: Strike, cast: &mut Cast) -> Result<bool, StageError> {
        let Strike { lasts: time, deed, .. } = strike;
        let mut done = false;
        match deed {
            Deed::Kill(who) | Deed::LoseLedger(who) | Deed::OldLedger(who) => {
                let ledger = match deed {
                    Deed::LoseLedger(_) => Ledger::Lost,
                    Deed::OldLedger(_) => Ledger::Restored,
                    _ => Ledger::Stays,
                };
                for end in who.ends() {
                    if let Some(daemon) = self.daemons.get_mut(end) {
                        done |= daemon.kill(cast, time, ledger).await?;
                    }
                }
            }
            Deed::Terminate(who) => {
                let each =
                    who.ends().filter_map(|end| Some(self.daemons.get_mut(end)?.terminate(cast, time)));
                done = each.fold(false, |done, each| done | each);
            }
            Deed::Freeze(who) => {
                let each = who.ends().filter_map(|end| Some(self.daemons.get_mut(end)?.freeze(cast, time)));
                done = each.fold(false, |done, each| done | each);
            }
            Deed::CutLink | Deed::SlowLink(..) | Deed::ResetLink(_) => {
                if let Some(proxy) = &cast.proxy {
                    done = true;
                    match deed {
                        Deed::SlowLink(ms, octets) => {
                            proxy.slow(Some((Duration::from_millis(ms), octets)));
                        }
                        Deed::ResetLink(octets) => proxy.reset_after(octets),
                        _ => proxy.cut(true),
                    }
                }
            }
            Deed::Kms(who, kind) => {
                for end in who.ends() {
                    if let Some(kms) = cast.kms.get_mut(end) {
                        kms.tell(&format!("at=0s kind={kind} for={}ms", time.as_millis())).await?;
                        done = true;
                    }
                }
            }
            Deed::Card(who, kind) => {
                let end = who.to_string().to_lowercase();
                let much =
                    if lasts(kind) { format!("for={}ms", time.as_millis()) } else { "count=1".to_owned() };
                cast.pair.tell(&format!("end={end} kind={kind} {much}")).await?;
                done = true;
            }
        }
        Ok(done)
    }
}
