//! What operators ask of the engine.

use tokio::time::Instant;

use super::Engine;
use crate::audit::{What, Who};
use crate::operator::http::Look;
use crate::operator::protocol::{Answer, Events, Request, SelfTest, Streams};
use crate::operator::{FromOperator, Pending};
use crate::picture::Picture;
use crate::recent;

impl Engine {
    pub(super) fn on_operator(&mut self, asked: FromOperator) {
        let pending = match asked {
            // Whoever has gone does not mind.
            FromOperator::Look(Look::Picture(reply)) => {
                let _ = reply.send(self.picture());
                return;
            }
            FromOperator::Look(Look::Streams(reply)) => {
                let _ = reply.send(self.stream_pictures());
                return;
            }
            FromOperator::Request(pending) => pending,
            FromOperator::Refused(caller) => {
                let what = What::Refused { call: "operator".into(), stream: None, status: 0 };
                self.auditing.note_bounded(Who::Operator(caller.uid), what, Instant::now());
                return;
            }
        };
        let Pending { caller, request, reply } = pending;
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.picture())),
            Request::Streams => Answer::Streams(Streams { streams: self.stream_pictures() }),
            Request::Events => events(),
            Request::SelfTest => self_test(&self.picture()),
            Request::Reload => {
                self.watch.reload(reply);
                return;
            }
            Request::Zeroize => {
                self.on_zeroize(caller, reply);
                return;
            }
        };
        // An operator who has gone does not mind.
        let _ = reply.send(answer);
    }
}

/// The last events, for which nobody needs the engine.
pub(super) fn events() -> Answer {
    Answer::Events(Events { events: recent::newest(recent::MOST) })
}

pub(super) fn self_test(picture: &Picture) -> Answer {
    Answer::SelfTest(SelfTest {
        card: picture.card.serial.clone(),
        passed_unix_ms: picture.card.self_test_unix_ms,
        passed_times: picture.card.self_tests,
    })
}
