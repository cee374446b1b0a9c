//! Before the QKD link has first come up, the card does not know the card at the other end, and so the daemon does not
//! know which pair it belongs to. Nothing can be agreed by then; callers are told that there is no QKD connection.

use std::pin::Pin;
use std::time::Duration;

use qkd_driver::backing::Backing;
use qkd_driver::{Card, Fault};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::card::{CardEnd, reset_once};
use super::exit::Failure;
use super::operators::{events, self_test};
use super::picture;
use super::supervision::Supervision;
use super::watch::Watch;
use crate::calls::{Answer, Call, Pending};
use crate::interface::Status;
use crate::operator::http::Look;
use crate::operator::protocol::{Answer as OperatorAnswer, Request, Streams, Zeroized};
use crate::operator::{self, FromOperator};
use crate::picture::Picture;
use crate::vault::Vault;

/// Between two looks at the card.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What can be told by then.
pub(super) struct First<'a> {
    pub(super) watch: &'a mut Watch,
    pub(super) vault: &'a Vault,
    /// Number of the ledger's last write.
    pub(super) ledger: u64,
}

impl First<'_> {
    fn picture(&self) -> Picture {
        picture::first(self.watch, self.vault, self.ledger)
    }
}

/// Waits until the card names the card at the other end; answers its serial number. `None`: the daemon is to stop.
///
/// # Errors
/// When the card is gone, or broke the contract and could not be recovered.
pub(super) async fn peer_serial<B: Backing>(
    card: &mut Card<B>,
    calls: &mut mpsc::Receiver<Pending>,
    operator: &mut mpsc::Receiver<FromOperator>,
    mut first: First<'_>,
    supervision: &mut Supervision,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<u64>, Failure> {
    let mut said = false;
    loop {
        let up = match card.health() {
            Ok(health) => {
                first.watch.link(health.link);
                true
            }
            Err(Fault::Gone) => {
                // Said before the kernel closes the card, which may take it long.
                if let Err(e) = card.give_back() {
                    log::warn!(id = "card.give_back_failed"; "{e}");
                }
                log::error!(id = "card.gone"; "{}", CardEnd::Gone);
                return Err(CardEnd::Gone.into());
            }
            // One attempt a turn, so that a stop need not wait for all of them.
            Err(fault) => {
                log::error!(id = "card.fault"; "card: {fault}; resetting it");
                let reset = reset_once(card)?;
                if reset {
                    first.watch.tested();
                }
                reset
            }
        };
        if card.removal_requested() {
            return Err(CardEnd::RemovalRequested.into());
        }
        supervision.card.beat();
        supervision.look(Instant::now());
        if let (true, Some(serial)) = (up, card.identity().peer_serial) {
            return Ok(Some(serial));
        }
        if !said {
            log::warn!(id = "link.never_up"; "the QKD link has not come up yet: the card does not know the card at the other end");
            supervision.status("The card is up; waiting for the QKD link to come up for the first time");
            said = true;
        }
        let look = Instant::now() + LOOK_AGAIN;
        loop {
            tokio::select! {
                () = &mut stop => return Ok(None),
                () = sleep_until(look) => break,
                Some(asked) = operator.recv() => {
                    // Whoever has gone does not mind.
                    match asked {
                        FromOperator::Request(pending) => answer_operator(card, &mut first, pending)?,
                        FromOperator::Look(Look::Picture(reply)) => {
                            let _ = reply.send(first.picture());
                        }
                        FromOperator::Look(Look::Streams(reply)) => {
                            let _ = reply.send(Vec::new());
                        }
                        FromOperator::Refused(_) => {}
                    }
                }
                Some(pending) = calls.recv() => {
                    // A caller who has gone does not mind.
                    let _ = pending.reply.send(no_link(&pending.call));
                }
            }
        }
    }
}

/// The vault is empty yet, but the card may retain key of before.
fn answer_operator<B: Backing>(
    card: &mut Card<B>,
    first: &mut First<'_>,
    pending: operator::Pending,
) -> Result<(), CardEnd> {
    let answer = match pending.request {
        Request::Status => Ok(OperatorAnswer::Status(Box::new(first.picture()))),
        Request::Streams => Ok(OperatorAnswer::Streams(Streams { streams: Vec::new() })),
        Request::Events => Ok(events()),
        Request::SelfTest => Ok(self_test(&first.picture())),
        Request::Reload => {
            first.watch.reload(pending.reply);
            return Ok(());
        }
        Request::Zeroize => {
            log::warn!(id = "zeroize.ordered"; "{} has every key destroyed", pending.caller);
            card.zeroize()
                .and_then(|card_count| card.reset().map(|()| card_count))
                .inspect(|_| first.watch.tested())
                .map(|card_count| OperatorAnswer::Zeroized(Zeroized { streams: 0, blocks: 0, card_count }))
        }
    };
    let (answer, end) = match answer {
        Ok(answer) => (answer, Ok(())),
        Err(fault) => {
            let end = CardEnd::NotZeroized(fault);
            (OperatorAnswer::Refused { reason: end.to_string() }, Err(end))
        }
    };
    // An operator who has gone does not mind.
    let _ = pending.reply.send(answer);
    end
}

fn no_link(call: &Call) -> Answer {
    let (status, detail) = match call {
        Call::Open(_) => (Status::NoQkdConnection, "the QKD link has not come up yet".to_owned()),
        Call::GetKey(call) => {
            (Status::PeerApplicationNotConnected, format!("key stream {} is not open", call.stream))
        }
        Call::Close(call) => (Status::KeyStreamIdInUse, format!("key stream {} is not open", call.stream)),
    };
    Answer::Refused { status, detail, counter_proposal: None }
}
