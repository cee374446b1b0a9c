//! Beginnings and ends of schedules: a world in which all is well.

use qkd_daemon::interface::KeyStreamId;

use super::checker::{Verdict, broken};
use super::world::World;

impl World {
    /// Everything works, for `rounds`.
    fn all_well(&mut self, rounds: usize) -> Verdict {
        let before = std::mem::replace(&mut self.healed, true);
        for _ in 0..rounds {
            self.time += 3;
            self.connect()?;
            self.distil();
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

    /// All is well, at most for `rounds`, until `enough`.
    fn all_well_until(&mut self, rounds: usize, enough: impl Fn(&Self) -> bool) -> Verdict {
        for _ in 0..rounds.div_ceil(5) {
            if enough(self) {
                return Ok(());
            }
            self.all_well(5)?;
        }
        Ok(())
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
        self.healed = true;
        self.all_well_until(80, |world| world.nodes.iter().all(|node| node.core.status().in_step))?;
        self.all_well(10)?;
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
        self.all_well_until(60, |world| world.live(0).len() > before.len())?;
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
        let goals: Vec<(usize, KeyStreamId, u64)> = (0..2)
            .flat_map(|end| both.iter().map(move |id| (end, *id)))
            .filter(|(_, stream)| self.must_go_on(*stream, &both))
            .map(|(end, stream)| (end, stream, self.checker.reached(end, stream) + 3))
            .collect();
        let missed = |world: &Self| {
            goals.iter().find(|(end, stream, goal)| world.checker.reached(*end, *stream) < *goal).copied()
        };
        self.all_well_until(200, |world| missed(world).is_none())?;
        if let Some((end, stream, goal)) = missed(self) {
            let which = if stream == new { "new" } else { "old" };
            let what = format!("{which} stream {stream} at end {end} has not come to {goal}{}", self.state());
            return broken("I6", what);
        }
        self.stays_small()
    }

    /// Streams that both KMSs have opened and want.
    fn running(&self) -> Vec<KeyStreamId> {
        let running = |end: usize| {
            let streams = self.nodes[end].core.streams();
            streams.filter(|s| s.opened && s.wanted && !s.closed).map(|s| s.stream).collect::<Vec<_>>()
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
            let durable = node.ledger.durable();
            if durable.log.len() > 80 {
                return broken("growth", format!("end {} keeps {} entries", node.end, durable.log.len()));
            }
        }
        Ok(())
    }
}
