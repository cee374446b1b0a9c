//! Beginnings and ends of schedules: a world in which all is well.

use qkd_daemon::interface::KeyStreamId;

use super::checker::{Verdict, broken};
use super::node::KMS_EACH;
use super::push::Mood;
use super::world::World;

/// Virtual time that a round of a world in which all is well takes.
const ROUND_MS: u64 = 3;
/// Longest time from the last fault until both ends are in step.
const IN_STEP_MS: u64 = 300;
/// Longest time from the last fault until every stream that ran delivers again.
const RECOVERY_MS: u64 = 1_000;
/// Longest time in which every stream delivers something, in a world in which all is well.
const RUNNING_MS: u64 = 1_000;

impl World {
    /// Everything works, for `rounds`.
    pub(crate) fn all_well(&mut self, rounds: usize) -> Verdict {
        let before = std::mem::replace(&mut self.healed, true);
        for _ in 0..rounds {
            self.set_time(self.time + ROUND_MS);
            self.comes_about()?;
            self.connect()?;
            if self.steady || self.dice.hits(500) {
                self.distil();
            }
            for end in 0..2 {
                self.arrive(end);
                for _ in 0..4 {
                    self.read_card(end)?;
                }
                self.tick(end)?;
                for _ in 0..6 {
                    self.carry(end)?;
                }
                let streams: Vec<KeyStreamId> = self.nodes[end].pushers.keys().copied().collect();
                for stream in streams {
                    for _ in 0..4 {
                        self.push(end, stream)?;
                    }
                }
                for _ in 0..24 {
                    self.hear_push(end)?;
                }
            }
        }
        self.healed = before;
        Ok(())
    }

    /// A stream or two run already.
    pub(crate) fn warm_up(&mut self) -> Verdict {
        self.all_well(10)?;
        for end in 0..2 {
            if self.dice.hits(700) {
                self.open(end, None)?;
            }
        }
        self.all_well(20)?;
        self.everybody_joins()?;
        self.all_well(20)
    }

    /// All is well, at most for `most_ms`, until `enough`.
    fn all_well_until(&mut self, most_ms: u64, enough: impl Fn(&Self) -> bool) -> Verdict {
        let until = self.time + most_ms;
        while self.time < until && !enough(self) {
            self.all_well(1)?;
        }
        Ok(())
    }

    /// The last fault is over. Where the connection was haunted by messages of an earlier one it must be made anew: what a
    /// real connection cannot do may cost progress until then.
    fn faults_end(&mut self) -> Verdict {
        self.healed = true;
        for node in &mut self.nodes {
            node.moods = [Mood::Well; KMS_EACH];
            node.down_until = node.down_until.map(|_| node.time);
        }
        if self.haunted { self.cut() } else { Ok(()) }
    }

    fn everybody_joins(&mut self) -> Verdict {
        for _ in 0..12 {
            let mut missing = false;
            for end in 0..2 {
                // Each of them: one whose ID this end has forbidden must not keep the others waiting.
                for stream in self.not_joined(end) {
                    self.open(end, Some(stream))?;
                    missing = true;
                }
            }
            if !missing {
                break;
            }
            self.all_well(5)?;
        }
        for end in 0..2 {
            for stream in self.live(end) {
                self.get_key(end, stream, None)?;
            }
        }
        Ok(())
    }

    /// Faults heal. Every stream that is open at both ends must go on, and a new one must be able to run (I6).
    pub(crate) fn heal(&mut self) -> Verdict {
        self.faults_end()?;
        let healed = self.time;
        self.goes_on_by_itself(healed)?;
        self.everybody_joins()?;
        self.all_well(20)?;
        // Room for a new stream.
        if self.live(0).len() >= 3 {
            for stream in self.live(0) {
                if self.stuck.is_none_or(|(_, stuck)| stuck != stream) {
                    for end in 0..2 {
                        self.close(end, stream)?;
                    }
                }
            }
            self.all_well(30)?;
        }
        let before = self.live(0);
        let opener = self.dice.index(2);
        self.open(opener, None)?;
        self.all_well_until(300, |world| world.live(0).len() > before.len())?;
        let new: Vec<KeyStreamId> = self.live(0).into_iter().filter(|id| !before.contains(id)).collect();
        let [new] = new[..] else {
            return broken("I6", format!("no new stream can be opened at end {opener}: {new:?}"));
        };
        self.all_well(10)?;
        self.everybody_joins()?;
        self.all_well(20)?;
        let both = self.running();
        if !both.contains(&new) {
            return broken("I6", format!("the new stream {new} is not open at both ends{}", self.state()));
        }
        self.all_go_on(&both, RUNNING_MS)?;
        self.checker.account()?;
        self.stays_small()
    }

    /// Both ends are in step within [`IN_STEP_MS`] of the last fault, and within [`RECOVERY_MS`] every stream that ran goes
    /// on, without a call. A KMS whose get-key or refusal a fault had come between may have to ask again; those streams are
    /// judged after it has.
    fn goes_on_by_itself(&mut self, healed: u64) -> Verdict {
        self.all_well_until(IN_STEP_MS, |world| {
            (0..2).all(|end| world.is_up(end) && world.nodes[end].core.status().in_step)
        })?;
        if !(0..2).all(|end| self.nodes[end].core.status().in_step) {
            return broken("I6", format!("not in step {IN_STEP_MS} ms after the last fault{}", self.state()));
        }
        self.all_well(1)?;
        let left = (healed + RECOVERY_MS).saturating_sub(self.time);
        let running = self.running();
        self.all_go_on(&running, left)?;
        self.recovered_ms = self.time - healed;
        Ok(())
    }

    /// Each of `streams` that must go on does so, at both ends, within `most_ms`.
    fn all_go_on(&mut self, streams: &[KeyStreamId], most_ms: u64) -> Verdict {
        let goals: Vec<(usize, KeyStreamId, u64)> = (0..2)
            .flat_map(|end| streams.iter().map(move |id| (end, *id)))
            .filter(|(_, stream)| self.must_go_on(*stream, streams))
            .map(|(end, stream)| (end, stream, self.checker.reached(end, stream) + 3))
            .collect();
        let missed = |world: &Self| {
            // A stream may end meanwhile, where its close was under way.
            let lives = |id: &KeyStreamId| {
                (0..2).all(|end| world.nodes[end].core.streams().any(|s| s.stream == *id && !s.closed))
            };
            goals
                .iter()
                .find(|(end, stream, goal)| lives(stream) && world.checker.reached(*end, *stream) < *goal)
                .copied()
        };
        self.all_well_until(most_ms, |world| missed(world).is_none())?;
        match missed(self) {
            Some((end, stream, goal)) => broken(
                "I6",
                format!(
                    "stream {stream} at end {end} has not come to {goal} in {most_ms} ms{}",
                    self.state()
                ),
            ),
            None => Ok(()),
        }
    }

    /// Streams that both KMSs have opened and want.
    fn running(&self) -> Vec<KeyStreamId> {
        let running = |end: usize| {
            let streams = self.nodes[end].core.streams();
            streams
                .filter(|s| s.opened && s.wanted && !s.closed && !s.suspended)
                .map(|s| s.stream)
                .collect::<Vec<_>>()
        };
        let there = running(1);
        let mut both: Vec<KeyStreamId> = running(0).into_iter().filter(|id| there.contains(id)).collect();
        both.sort_unstable();
        both
    }

    /// A stream whose KMS takes nothing stands still, and priority is strict: without a minimum, a stream may starve.
    fn must_go_on(&self, stream: KeyStreamId, among: &[KeyStreamId]) -> bool {
        let qos = |id: KeyStreamId| self.nodes[0].core.streams().find(|s| s.stream == id).map(|s| s.qos);
        let highest = among.iter().filter_map(|id| qos(*id)).map(|q| q.priority).max();
        let stuck = self.stuck.is_some_and(|(_, stuck)| stuck == stream);
        !stuck && qos(stream).is_some_and(|q| q.min_bps > 0 || Some(q.priority) == highest)
    }

    /// How both ends stand, for a failure's last words.
    fn state(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text += &format!("\nend {}: {:?}\n  holds {:?}", node.end, node.core.status(), node.vault);
            for stream in node.core.streams() {
                text += &format!("\n  {stream:?}");
            }
        }
        text
    }

    /// Nothing grows without bound.
    fn stays_small(&self) -> Verdict {
        for node in &self.nodes {
            let durable = node.disk.durable();
            if durable.log.len() > 80 {
                return broken("growth", format!("end {} keeps {} entries", node.end, durable.log.len()));
            }
        }
        Ok(())
    }
}
