//! The end: nothing is pushed any more, the card is closed with proof, and no key is left.

use std::time::Duration;

use tokio::time::Instant;

use super::card::{FromCard, ToCard};
use super::{Engine, Failure, LOOK_AGAIN};

/// Longest wait for the kernel to close the card, once its memory is wiped.
const CLOSING: Duration = Duration::from_secs(3);
/// Longest wait for pushers and card when the daemon stops.
const STOPPING: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops pushing, closes the card with proof that it has stopped, and wipes every key.
    pub(super) async fn shut_down(mut self, end: Result<(), Failure>) -> Result<(), Failure> {
        self.supervision.stopping();
        self.give_up_zeroizing(&end);
        self.card.go_on();
        self.inputs.operator.close();
        self.waiting.clear();
        self.inputs.calls.close();
        // What is still being gathered is said now.
        self.losses.say(Instant::now() + STOPPING);
        let mut confirmations = self.streams.stop_all();
        let deadline = Instant::now() + STOPPING;
        let mut end = end;
        if !self.card.order(ToCard::Stop) {
            self.orders.push_back(ToCard::Stop);
        }
        let mut card_ended = matches!(end, Err(Failure::Card(_)));
        while (confirmations > 0 || !card_ended) && Instant::now() < deadline {
            let awake = std::sync::Arc::clone(&self.card.awake);
            tokio::select! {
                Some(_) = self.inputs.stopped.recv() => confirmations = confirmations.saturating_sub(1),
                Some(_) = self.inputs.reports.recv() => {}
                () = awake.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            while let Ok(news) = self.card.news.pop() {
                if let FromCard::Ended(how) = news {
                    card_ended = true;
                    end = end.and(how.map_err(Failure::from));
                }
            }
            if let Some(order) = self.orders.pop_back()
                && !self.card.order(order)
            {
                self.orders.push_back(order);
            }
        }
        if card_ended || self.card.has_ended() {
            self.card.join(CLOSING).await;
        } else {
            log::error!(
                id = "card.thread_late"; "the card's thread did not end within {STOPPING:?}; its memory goes with the process"
            );
        }
        let why = match &end {
            Ok(()) => "stopped as asked".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let last = self.auditing.end(why);
        self.writer.last_words(last);
        self.writer.close(deadline.saturating_duration_since(Instant::now()).max(LOOK_AGAIN)).await;
        log::info!(id = "daemon.stopped"; "stopped; {} blocks of key that were not used are wiped", self.keys.count());
        self.keys.clear();
        end
    }
}
