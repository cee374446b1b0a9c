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

    fn everybody_joins(&mut self) -> Verdict {
        for _ in 0..12 {
            for end in 0..2 {
                self.join(end)?;
            }
            self.all_well(4)?;
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
        self.all_well(60)?;
        self.everybody_joins()?;
        self.all_well(60)?;
        // Room for a new stream.
        if self.live(0).len() >= 3 {
            for stream in self.live(0) {
                if self.stuck.is_none_or(|(_, stuck)| stuck != stream) {
                    for end in 0..2 {
                        self.close(end, stream)?;
                    }
                }
            }
            self.all_well(60)?;
        }
        let before = self.live(0);
        let opener = self.dice.index(2);
        self.open(opener, None)?;
        self.all_well(30)?;
        let new: Vec<KeyStreamId> = self.live(0).into_iter().filter(|id| !before.contains(id)).collect();
        if new.len() != 1 {
            return broken("I6", format!("no new stream can be opened at end {opener}: {new:?}"));
        }
        self.everybody_joins()?;
        self.all_well(40)?;
        let both: Vec<KeyStreamId> = self.nodes[0]
            .core
            .streams()
            .filter(|s| s.opened && s.wanted && !s.closed)
            .map(|s| s.stream)
            .filter(|id| {
                self.nodes[1].core.streams().any(|s| s.stream == *id && s.opened && s.wanted && !s.closed)
            })
            .collect();
        if !both.contains(&new[0]) {
            return broken("I6", format!("the new stream {} is not open at both ends", new[0]));
        }
        let base: Vec<(usize, KeyStreamId, u64)> = (0..2)
            .flat_map(|end| both.iter().map(move |id| (end, *id)))
            .map(|(end, id)| (end, id, self.checker.reached(end, id)))
            .collect();
        self.all_well(150)?;
        // Priority is strict: without a minimum, a stream may starve.
        let qos = |id| self.nodes[0].core.streams().find(|s| s.stream == id).map(|s| s.qos.clone());
        let highest = both.iter().filter_map(|id| qos(*id)).map(|q| q.priority).max();
        let starves = |id| qos(id).is_some_and(|q| q.min_bps == 0 && Some(q.priority) < highest);
        for (end, stream, before) in base {
            let stuck = self.stuck.is_some_and(|(_, stuck)| stuck == stream) || starves(stream);
            let reached = self.checker.reached(end, stream);
            if !stuck && reached < before + 3 {
                let which = if stream == new[0] { "new" } else { "old" };
                return broken(
                    "I6",
                    format!(
                        "{which} stream {stream} at end {end} stands at {reached}, and stood at {before}{}",
                        self.state()
                    ),
                );
            }
        }
        self.stays_small()
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
