//! The operator has every key at one end destroyed: pushers and vault at once, the card when it takes the order, the key
//! agreement by a new epoch. Once all of them have confirmed, nothing of that key may be sent by this end, ever.

use qkd_daemon::agreement::{BlockName, Event};

use super::checker::Verdict;
use super::faults::Fault;
use super::mutants::Mutant;
use super::world::World;

/// An order that is being carried out.
#[derive(Debug)]
pub(crate) struct Zeroizing {
    /// Every block of which something is left at this end.
    blocks: Vec<BlockName>,
    /// The core's end of all streams is durable.
    pub(crate) agreed: bool,
}

impl World {
    pub(crate) fn zeroize(&mut self, end: usize) -> Verdict {
        if self.nodes[end].zeroizing.is_some() || !self.strikes_if_up(Fault::Zeroize, end, 250) {
            return Ok(());
        }
        let node = &mut self.nodes[end];
        let (held, retained): (Vec<BlockName>, _) =
            (node.vault.keys().copied().collect(), node.card.retained());
        if !node.is(Mutant::ZeroizeSparesPushers) {
            for pusher in node.pushers.values_mut() {
                pusher.wipe();
            }
        }
        node.vault.clear();
        node.taken.clear();
        for name in &held {
            if !retained.contains(name) {
                self.checker.key.destroy(end, *name, "zeroized");
            }
        }
        let blocks = held.into_iter().chain(retained).collect();
        self.nodes[end].zeroizing = Some(Zeroizing { blocks, agreed: false });
        self.checker.epochs_may_begin = true;
        self.handle(end, Event::Zeroized)
    }

    /// The card takes the order, and goes on once all is confirmed.
    pub(crate) fn zeroizing_goes_on(&mut self, end: usize) -> Verdict {
        let hurries = self.healed || self.dice.hits(200);
        let node = &mut self.nodes[end];
        let Some(zeroizing) = node.zeroizing.as_mut().filter(|_| hurries) else { return Ok(()) };
        if !node.card.is_zeroized {
            for name in node.card.zeroize() {
                self.checker.key.destroy(end, name, "zeroized");
                zeroizing.blocks.push(name);
            }
        } else if zeroizing.agreed {
            let blocks = std::mem::take(&mut zeroizing.blocks);
            node.zeroizing = None;
            node.count("zeroized");
            self.checker.key.is_zeroized(end, &blocks);
            self.reset_card(end);
            return self.handle(end, Event::CardReset);
        }
        Ok(())
    }
}
