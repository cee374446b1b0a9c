//! The connection between the two daemons. A real one keeps the order and loses nothing while it stands; this one does worse.

use std::collections::VecDeque;

use qkd_daemon::agreement::{Event, Message};

use super::checker::Verdict;
use super::faults::Fault;
use super::world::World;

/// Messages on their way to one end.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    messages: Vec<Message>,
    /// Some that were on their way when an earlier connection ended.
    of_before: VecDeque<Message>,
}

/// Messages of earlier connections that are kept.
const OF_BEFORE: usize = 6;

impl Wire {
    /// What is on its way is gone.
    pub(crate) fn ends(&mut self) {
        let from = self.messages.len().saturating_sub(OF_BEFORE);
        self.of_before.extend(self.messages.drain(..).skip(from));
        let more = self.of_before.len().saturating_sub(OF_BEFORE);
        self.of_before.drain(..more);
    }
}

impl World {
    /// What an end has sent goes on its way.
    pub(crate) fn collect(&mut self, end: usize) -> Verdict {
        for message in self.nodes[end].outbox.drain(..) {
            if self.wire_up {
                // Reading and writing JSON is the greater part of a schedule's time: some schedules do it.
                let message = if self.as_json {
                    let frame = message.encode().expect("no message is too long");
                    Message::decode(&frame).expect("what one end writes the other can read")
                } else {
                    message
                };
                self.wires[1 - end].messages.push(message);
            }
        }
        if std::mem::take(&mut self.nodes[end].hangs_up) { self.cut() } else { Ok(()) }
    }

    /// A new connection, where there is none. An end that has not noticed that the old one is gone does so now.
    pub(crate) fn connect(&mut self) -> Verdict {
        if self.wire_up || !self.is_up(0) || !self.is_up(1) {
            return Ok(());
        }
        for end in 0..2 {
            self.wires[end].ends();
            self.notices_at[end] = None;
            if self.nodes[end].core.status().connected {
                self.handle(end, Event::PeerDisconnected)?;
            }
        }
        if !self.is_up(0) || !self.is_up(1) {
            return Ok(());
        }
        // An end may have died of the news that the old one is gone; whoever was still to find that out has.
        self.notices_at = [None; 2];
        self.wire_up = true;
        self.haunted = false;
        self.checker.misled = false;
        for end in 0..2 {
            if self.wire_up {
                self.handle(end, Event::PeerConnected)?;
            }
        }
        Ok(())
    }

    pub(crate) fn drop_wire(&mut self) {
        self.wire_up = false;
        for wire in &mut self.wires {
            wire.ends();
        }
    }

    /// The connection is gone, and both ends know it.
    pub(crate) fn cut(&mut self) -> Verdict {
        if !self.wire_up {
            return Ok(());
        }
        self.drop_wire();
        for end in 0..2 {
            self.notices_at[end] = None;
            self.handle(end, Event::PeerDisconnected)?;
        }
        Ok(())
    }

    /// A message arrives at `end`, or does not.
    pub(crate) fn carry(&mut self, end: usize) -> Verdict {
        if !self.is_up(end) || self.late_until[end] > self.time && !self.healed {
            return Ok(());
        }
        if self.wire_up
            && !self.wires[end].of_before.is_empty()
            && self.strikes(Fault::MessageOfBefore, end, 25)
        {
            let which = self.dice.index(self.wires[end].of_before.len());
            let message = self.wires[end].of_before[which].clone();
            self.haunted = true;
            self.checker.misled = true;
            // An old greeting may be taken for the present one: the ends then begin anew.
            self.checker.epochs_may_begin = true;
            return self.handle(end, Event::PeerMessage(message));
        }
        let waiting = self.wires[end].messages.len();
        if waiting == 0 {
            return Ok(());
        }
        let mut at = 0;
        if waiting > 1 && self.strikes(Fault::MessagesReordered, end, 200) {
            at = self.dice.index(waiting);
            self.checker.misled = true;
        }
        if self.strikes(Fault::MessageLost, end, 80) {
            self.wires[end].messages.remove(at);
            self.checker.misled = true;
            return Ok(());
        }
        let message = if self.strikes(Fault::MessageTwice, end, 80) {
            self.wires[end].messages[at].clone()
        } else {
            self.wires[end].messages.remove(at)
        };
        self.handle(end, Event::PeerMessage(message))
    }
}
