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
use super::supervision::Supervision;
use crate::calls::{Answer, Call, Pending};
use crate::config;
use crate::interface::Status;
use crate::operator::protocol::{Answer as OperatorAnswer, Request, Zeroized};
use crate::operator::{self, FromOperator};

/// Between two looks at the card.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until the card names the card at the other end; answers its serial number. `None`: the daemon is to stop.
///
/// # Errors
/// When the card is gone, or broke the contract and could not be recovered.
pub(super) async fn peer_serial<B: Backing>(
    card: &mut Card<B>,
    calls: &mut mpsc::Receiver<Pending>,
    operator: &mut mpsc::Receiver<FromOperator>,
    module: &config::Module,
    supervision: &mut Supervision,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<u64>, Failure> {
    let mut said = false;
    loop {
        let up = match card.health() {
            Ok(_) => true,
            Err(Fault::Gone) => {
                // Said before the kernel closes the card, which may take it long.
                if let Err(e) = card.give_back() {
                    log::warn!("{e}");
                }
                log::error!("{}", CardEnd::Gone);
                return Err(CardEnd::Gone.into());
            }
            // One attempt a turn, so that a stop need not wait for all of them.
            Err(fault) => {
                log::error!("card: {fault}; resetting it");
                reset_once(card)?
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
            log::warn!("the QKD link has not come up yet: the card does not know the card at the other end");
            supervision.status("The card is up; waiting for the QKD link to come up for the first time");
            said = true;
        }
        let look = Instant::now() + LOOK_AGAIN;
        loop {
            tokio::select! {
                () = &mut stop => return Ok(None),
                () = sleep_until(look) => break,
                Some(asked) = operator.recv() => {
                    if let FromOperator::Request(pending) = asked {
                        answer_operator(card, module, pending)?;
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
    module: &config::Module,
    pending: operator::Pending,
) -> Result<(), CardEnd> {
    let answer = match pending.request {
        Request::Status => Ok(OperatorAnswer::Status(operator::protocol::Status {
            module: module.name.clone(),
            role: match module.role {
                config::Role::Leader => "leader".into(),
                config::Role::Follower => "follower".into(),
            },
            epoch: 0,
            link: "has not come up yet".into(),
            in_step: false,
            streams: 0,
            vault_bytes_used: 0,
        })),
        Request::Zeroize => {
            log::warn!("{} has every key destroyed", pending.caller);
            card.zeroize()
                .and_then(|card_count| card.reset().map(|()| card_count))
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
