//! What the engine does for the core.

use qkd_daemon::agreement::{Action, Delivery, Event, Extent, LossCause};
use qkd_daemon::calls::Answer;
use qkd_daemon::interface::{KeyStreamId, Status};

use super::checker::{Checker, Verdict, broken};
use super::mutants::Mutant;
use super::node::{Asked, KMS_EACH, Node, kms, kms_number};
use super::push::{Order, Pusher};

impl Node {
    /// Carries out at most `most` of what is due.
    pub(crate) fn act(&mut self, most: usize, checker: &mut Checker) -> Verdict {
        for _ in 0..most {
            let Some(action) = self.due.pop_front() else { return Ok(()) };
            if !matches!(action, Action::Release { .. } | Action::Acknowledge { .. }) {
                self.say(|| format!("-> {action:?}"));
            }
            self.carry_out(action, checker)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action, checker: &mut Checker) -> Verdict {
        match action {
            Action::Send(message) => self.outbox.push(message),
            Action::Disconnect { .. } => {
                self.count("disconnect");
                self.hangs_up = true;
            }
            Action::Answer { call, answer } => return self.answered(call, answer, checker),
            Action::Begin { stream, kms, .. } => {
                self.pushers.insert(stream, Pusher::new(kms_number(&kms) % KMS_EACH));
            }
            Action::Deliver(_) if self.withholds_key() => {}
            Action::Deliver(delivery) => return self.deliver(delivery, checker),
            Action::Discard { stream, up_to, .. } => {
                if !self.is(Mutant::DiscardIsIgnored) {
                    return self.order(stream, Order::Discard(up_to));
                }
            }
            Action::Lost { stream, first, count, cause } => {
                self.count("lost");
                if self.is(Mutant::LossIsFilled) && cause == LossCause::BlockLost {
                    return self.fill(stream, first, count, checker);
                }
            }
            Action::Resume { stream } => return self.order(stream, Order::Resume),
            Action::Stop { stream, .. } => {
                if self.is(Mutant::AnswersCloseAtOnce) {
                    self.news.push_back(Event::Stopped { stream, sent_up_to: 0 });
                }
                return self.order(stream, Order::Stop);
            }
            Action::Notice { stream, status, .. } => {
                self.count(match status {
                    Status::PeerNotConnected => "notice 1",
                    Status::InsufficientKey => "notice 2",
                    _ => "notice 4",
                });
                return self.order(stream, Order::Notice);
            }
            Action::Acknowledge { first, last } => self.acknowledgements.push_back((first, last)),
            Action::Release { block } => {
                self.vault.remove(&block);
                let gone: Vec<_> = self.taken.range((block, 0)..=(block, u32::MAX)).copied().collect();
                for octet in gone {
                    self.taken.remove(&octet);
                }
            }
            Action::Zeroized => {
                if let Some(zeroizing) = &mut self.zeroizing {
                    zeroizing.agreed = true;
                }
            }
            Action::Say { .. } => {}
        }
        Ok(())
    }

    /// What is to be delivered was decided before every key was destroyed.
    fn withholds_key(&self) -> bool {
        let withholds = self.zeroizing.as_ref().is_some_and(|zeroizing| !zeroizing.agreed);
        withholds && !self.is(Mutant::ZeroizeGivesWhatWasDue)
    }

    fn deliver(&mut self, mut delivery: Delivery, checker: &mut Checker) -> Verdict {
        if self.is(Mutant::ShiftsExtents) && self.end == 1 {
            delivery.extents[0].offset += 1;
        }
        if self.is(Mutant::IndexIsReused) && std::mem::take(&mut self.restarted) {
            delivery.first = delivery.first.saturating_sub(1);
        }
        self.take_from_vault(&delivery.extents)?;
        let octets = checker.key.octets(&delivery.extents).collect();
        self.order(delivery.stream, Order::Deliver(delivery, octets))
    }

    /// In the place of chunks that are lost comes other key.
    fn fill(&mut self, stream: KeyStreamId, first: u64, count: u64, checker: &mut Checker) -> Verdict {
        let chunk_size = self.core.streams().find(|s| s.stream == stream).map_or(1, |s| s.qos.key_chunk_size);
        let wanted = count as u32 * chunk_size;
        let block = self.vault.iter().find(|(_, length)| **length >= wanted).map(|(name, _)| *name);
        let Some(block) = block else { return Ok(()) };
        let extents = vec![Extent { block, offset: 0, length: wanted }];
        let octets = checker.key.octets(&extents).collect();
        let delivery = Delivery { stream, first, count: count as u32, chunk_size, extents };
        self.order(stream, Order::Deliver(delivery, octets))
    }

    fn order(&mut self, stream: KeyStreamId, order: Order) -> Verdict {
        match self.pushers.get_mut(&stream) {
            Some(pusher) => {
                pusher.orders.push_back(order);
                Ok(())
            }
            None => broken("begin", format!("stream {stream} has no pusher for {order:?}")),
        }
    }

    fn answered(&mut self, call: u64, answer: Answer, checker: &mut Checker) -> Verdict {
        let Some(asked) = self.asked.remove(&call) else { return Ok(()) };
        match (asked, answer) {
            // Where the stream has ended meanwhile and nobody knows its ID, it is a new one, and its own.
            (Asked::WrongOpen(which), Answer::Opened { stream, source, destination, .. })
                if ![&source, &destination].contains(&&kms(self.end, which)) =>
            {
                return broken("I5", format!("a KMS that stream {stream} is not for has opened it"));
            }
            (Asked::Open | Asked::WrongOpen(_), Answer::Opened { stream, .. }) => {
                self.count("opened");
                if !self.opened.contains(&stream) {
                    self.opened.push(stream);
                }
            }
            (Asked::GetKey(_), Answer::Done) => self.count("get-key done"),
            (Asked::Close(stream), Answer::Done) => {
                self.count("closed");
                checker.close_done(self.end, stream);
            }
            (Asked::Stranger(stream), Answer::Done) => {
                return broken(
                    "I5",
                    format!("a KMS has started or closed stream {stream}, which is another's"),
                );
            }
            (_, Answer::Refused { status, .. }) => self.count(match status as u32 {
                1..=2 => "refused 1 to 2",
                3 => "refused 3",
                4 => "refused 4",
                5 => "refused 5",
                6 => "refused 6",
                _ => "refused 7 or 8",
            }),
            (asked, answer) => {
                return broken("answer", format!("{asked:?} is answered with {answer:?}"));
            }
        }
        Ok(())
    }
}
