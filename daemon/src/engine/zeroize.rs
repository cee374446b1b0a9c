//! The operator's order to destroy every key.
//!
//! It is done at once and in this order: pushers stop and wipe what they hold, the vault is wiped, the card is told, and the
//! key agreement ends all streams and burns everything that the card is known to have announced, by the new epoch that also
//! follows a lost ledger; the other end hears of it by the handshake. Nothing that was granted is used any more: deliveries
//! that are still on their way through the ledger are dropped, and blocks that the card had handed over before it took the
//! order are lost. The operator hears of success when pushers, vault, card and ledger have each confirmed; until then the
//! card is not started again. Where one does not, the daemon ends: its memory goes with it, and the streams are not gone on
//! with.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Engine;
use super::exit::Failure;
use crate::agreement::Event;
use crate::audit::{What, Who};
use crate::operator::Caller;
use crate::operator::protocol::{Answer, Zeroized};

/// Longest wait for all confirmations. The card has its own longest time, and may first be in the middle of a reset.
const LONGEST: Duration = Duration::from_secs(40);

/// What has been confirmed of an order to destroy every key.
pub(super) struct Zeroizing {
    replies: Vec<oneshot::Sender<Answer>>,
    streams: u64,
    blocks: u64,
    /// Pushers that have not confirmed.
    pub(super) pushers: usize,
    /// The card's count, once it has proven that it retains nothing.
    pub(super) card: Option<u32>,
    /// The ledger holds the end of all streams.
    pub(super) agreed: bool,
    deadline: Instant,
}

impl Zeroizing {
    /// What is missing, for the operator; `None`: nothing.
    fn missing(&self, vault_used: usize) -> Option<String> {
        let mut missing = Vec::new();
        if self.card.is_none() {
            missing.push("the card has not proven it".to_owned());
        }
        if self.pushers > 0 {
            missing.push(format!("{} pushers have not confirmed", self.pushers));
        }
        if self.card.is_some() && self.pushers == 0 && vault_used > 0 {
            missing.push(format!("{vault_used} bytes of the vault are in use"));
        }
        if !self.agreed {
            missing.push("the ledger has not taken it down".to_owned());
        }
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    fn answer(self, answer: &Answer) {
        for reply in self.replies {
            // An operator who has gone does not mind.
            let _ = reply.send(answer.clone());
        }
    }
}

impl Engine {
    pub(super) fn on_zeroize(&mut self, caller: Caller, reply: oneshot::Sender<Answer>) {
        match &mut self.zeroizing {
            Some(under_way) => under_way.replies.push(reply),
            None => {
                log::warn!(id = "zeroize.ordered"; "{caller} has every key destroyed");
                self.auditing.note(Who::Operator(caller.uid), What::ZeroizeOrdered);
                self.zeroize(reply);
            }
        }
    }

    fn zeroize(&mut self, reply: oneshot::Sender<Answer>) {
        let blocks = self.keys.count() as u64;
        let streams = self.core.status().streams as u64;
        let pushers = self.streams.wipe_all();
        self.keys.clear();
        self.card.zeroize();
        self.zeroizing = Some(Zeroizing {
            replies: vec![reply],
            streams,
            blocks,
            pushers,
            card: None,
            agreed: false,
            deadline: Instant::now() + LONGEST,
        });
        self.handle(Event::Zeroized);
    }

    /// Whether key is not to be given to anybody: it is being destroyed, or what asks for it was decided before that.
    pub(super) fn withholds_key(&self) -> bool {
        self.zeroizing.as_ref().is_some_and(|zeroizing| !zeroizing.agreed)
    }

    /// When [`Engine::look_at_zeroizing`] wants to be called at the latest.
    pub(super) fn zeroizing_due(&self) -> Option<Instant> {
        self.zeroizing.as_ref().map(|zeroizing| zeroizing.deadline)
    }

    /// Tells the operator once everything is confirmed, and lets the card go on.
    ///
    /// # Errors
    /// When it takes too long.
    pub(super) fn look_at_zeroizing(&mut self) -> Result<(), Failure> {
        let Some(zeroizing) = &self.zeroizing else { return Ok(()) };
        if let Some(missing) = zeroizing.missing(self.vault.used()) {
            return if Instant::now() < zeroizing.deadline {
                Ok(())
            } else {
                Err(Failure::NotZeroized(missing))
            };
        }
        if let Some(done) = self.zeroizing.take() {
            let (streams, blocks) = (done.streams, done.blocks);
            let card_count = done.card.unwrap_or_default();
            log::warn!(
                id = "zeroize.done"; "every key is destroyed: {blocks} blocks are wiped, the card retains nothing and has proven it, {streams} key \
                 streams have ended"
            );
            self.auditing.note(Who::Daemon, What::Zeroized { blocks, streams });
            done.answer(&Answer::Zeroized(Zeroized { streams, blocks, card_count }));
            self.card.go_on();
        }
        Ok(())
    }

    /// The daemon ends: whoever waits for the proof hears that there is none.
    pub(super) fn give_up_zeroizing(&mut self, end: &Result<(), Failure>) {
        if let Some(zeroizing) = self.zeroizing.take() {
            let why = match end {
                Ok(()) => "the daemon was stopped meanwhile".to_owned(),
                Err(failure) => failure.to_string(),
            };
            let reason = format!(
                "NOT proven that every key is destroyed: {why}. The daemon ends, and its memory with it; destroy the card's \
                 key by other means if it has not confirmed"
            );
            self.auditing.note(Who::Daemon, What::NotZeroized);
            log::error!(id = "zeroize.not_proven"; "{reason}");
            zeroizing.answer(&Answer::Refused { reason });
        }
    }
}
