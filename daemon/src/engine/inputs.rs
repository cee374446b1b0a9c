//! What comes in from outside and from the card, and what the core is told of it.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::card::FromCard;
use super::{Engine, Failure, streams};
use crate::agreement::{BlockName, Event, Message, Position};
use crate::audit::{What, Who};
use crate::calls::Pending;
use crate::interface::KeyStreamId;
use crate::operator::FromOperator;
use crate::peer::PeerEvent;
use crate::push::Report;

/// Most of each kind of input that one turn takes in, so that none shuts out the others.
const BATCH: usize = 256;
/// While so many writes and actions wait for ledger and cell, nothing more is taken in from outside, beside the card.
const MOST_WAITING: usize = 16_384;

/// Everything that comes in from outside, beside the card.
pub(super) struct Inputs {
    pub(super) calls: mpsc::Receiver<Pending>,
    pub(super) peer: mpsc::Receiver<PeerEvent>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) stopped: mpsc::UnboundedReceiver<(KeyStreamId, Position)>,
    /// Pushers that were ended to wipe what they held, one message each.
    pub(super) wiped: mpsc::UnboundedReceiver<()>,
    pub(super) operator: mpsc::Receiver<FromOperator>,
    /// Certificates were read anew.
    pub(super) reloads: mpsc::Receiver<()>,
}

impl Engine {
    /// What else has come meanwhile, in bounded amounts.
    pub(super) fn take_in(&mut self) -> Result<(), Failure> {
        if self.takes_more() {
            self.take_in_from_outside();
        }
        for _ in 0..BATCH {
            let Ok(news) = self.card.news.pop() else { return Ok(()) };
            self.on_card(news)?;
        }
        self.card.awake.notify_one();
        Ok(())
    }

    /// Whether what waits for ledger and cell is little enough. What the card delivers is bounded by the vault.
    pub(super) fn takes_more(&self) -> bool {
        self.out.writes.len() + self.out.actions.len() + self.batches.waiting() < MOST_WAITING
    }

    fn take_in_from_outside(&mut self) {
        for _ in 0..BATCH {
            let Ok(event) = self.inputs.peer.try_recv() else { break };
            self.on_peer(event);
        }
        for _ in 0..BATCH {
            let Ok(pending) = self.inputs.calls.try_recv() else { break };
            self.on_call(pending);
        }
        for _ in 0..BATCH {
            let Ok(report) = self.inputs.reports.try_recv() else { break };
            self.on_report(report);
        }
        for _ in 0..BATCH {
            let Ok(stopped) = self.inputs.stopped.try_recv() else { break };
            self.on_stopped(stopped);
        }
    }

    pub(super) fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected => {
                self.auditing.note_bounded(Who::Peer, What::PeerConnected, Instant::now());
                self.handle(Event::PeerConnected);
            }
            PeerEvent::Disconnected(reason) => {
                self.watch.peer_reason = Some(reason.clone());
                self.saying.say(log::Level::Info, "peer.disconnected", &format!("peer link: {reason}"));
                self.auditing.note_bounded(Who::Peer, What::PeerDisconnected, Instant::now());
                self.handle(Event::PeerDisconnected);
            }
            PeerEvent::Frame(frame) => match Message::decode(&frame) {
                Ok(message) => self.handle(Event::PeerMessage(message)),
                Err(fault) => {
                    log::error!(id = "peer.wrong_message"; "peer link: the other end said something that cannot be: {fault}");
                    self.send(&Message::Refuse { reason: fault.to_string() });
                    self.link.disconnect(fault.to_string());
                }
            },
        }
    }

    pub(super) fn on_call(&mut self, pending: Pending) {
        let id = self.next_call;
        self.next_call += 1;
        self.auditing.asked(id, &pending.call);
        self.waiting.insert(id, pending.reply);
        self.handle(Event::Call { id, call: pending.call, fresh_stream: KeyStreamId::new_v4() });
    }

    pub(super) fn on_report(&mut self, report: Report) {
        self.watch.reported(&report);
        if let Some(event) = streams::event_of(report) {
            self.handle(event);
        }
    }

    pub(super) fn on_wiped(&mut self) {
        if let Some(zeroizing) = &mut self.zeroizing {
            zeroizing.pushers = zeroizing.pushers.saturating_sub(1);
        }
    }

    pub(super) fn on_stopped(&mut self, (stream, sent_up_to): (KeyStreamId, Position)) {
        self.handle(Event::Stopped { stream, sent_up_to });
    }

    fn on_card(&mut self, news: FromCard) -> Result<(), Failure> {
        match news {
            FromCard::Block { name, key, replayed } => {
                let name = agreed_name(name);
                if self.zeroizing.as_ref().is_some_and(|zeroizing| zeroizing.card.is_none()) {
                    // It was handed over before the card took the order.
                    drop(key);
                    self.handle(Event::BlockLost { name });
                    return Ok(());
                }
                let length = u32::try_from(key.length()).unwrap_or(u32::MAX);
                // A replay brings again what the vault still has; the core knows of it.
                if self.keys.hold(name, key) {
                    self.handle(Event::BlockHeld { name, length, replayed });
                }
            }
            FromCard::Lost { name } => self.handle(Event::BlockLost { name: agreed_name(name) }),
            FromCard::ReplayEnd => self.handle(Event::ReplayEnd),
            FromCard::Session { session, previous_blocks } => {
                self.watch.session(session);
                self.handle(Event::Session { session, previous_blocks });
            }
            FromCard::Recovered => {
                self.watch.tested();
                self.handle(Event::CardReset);
            }
            FromCard::Zeroized { count } => {
                if let Some(zeroizing) = &mut self.zeroizing {
                    zeroizing.card = Some(count);
                }
            }
            FromCard::Newest(name) => {
                self.watch.session(name.session);
                self.handle(Event::Newest { name: agreed_name(name) });
            }
            FromCard::Link(state) => {
                self.watch.link(state);
                if self.link_state.replace(state) != Some(state) {
                    log::info!(id = "link.state"; "QKD link: {state:?}");
                }
                self.tell_link();
            }
            FromCard::Telemetry(reading) => {
                let (telemetry, counters) = *reading;
                self.secret_key_rate = telemetry.secret_key_rate;
                self.watch.read(telemetry, counters);
                self.tell_link();
            }
            FromCard::Ended(Ok(())) => {}
            FromCard::Ended(Err(end)) => return Err(end.into()),
        }
        Ok(())
    }

    fn tell_link(&mut self) {
        if let Some(state) = self.link_state {
            self.handle(Event::Link { state, secret_key_rate_bps: self.secret_key_rate });
        }
    }
}

pub(super) fn agreed_name(name: qkd_driver::BlockName) -> BlockName {
    BlockName::new(name.session, name.sequence)
}
