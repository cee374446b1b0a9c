//! Room for handshakes that are not done.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// Bounds how many wait at once. Who comes when it is full takes the place of who has waited longest, so that those who
/// never say anything keep out nobody.
#[derive(Debug)]
pub(crate) struct Lobby {
    most: usize,
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
}

/// A place in the lobby, until it is dropped.
pub(crate) struct Place(oneshot::Receiver<()>);

impl Lobby {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), waiting: Mutex::default() }
    }

    pub(crate) fn enter(&self) -> Place {
        let (sender, place) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| !other.is_closed());
        while waiting.len() >= self.most {
            waiting.pop_front();
        }
        waiting.push_back(sender);
        Place(place)
    }
}

impl Place {
    /// Done when another has taken the place.
    pub(crate) async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_lost(place: &mut Place) -> bool {
        pin!(place.lost()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn silent_ones_keep_out_nobody_and_one_who_is_done_costs_no_place() {
        let lobby = Lobby::new(2);
        let (mut first, second) = (lobby.enter(), lobby.enter());
        drop(second);
        let mut third = lobby.enter();
        assert!(!is_lost(&mut first), "there was room");
        let mut fourth = lobby.enter();
        assert!(is_lost(&mut first), "it has waited longest");
        assert!(!is_lost(&mut third) && !is_lost(&mut fourth));
    }
}
